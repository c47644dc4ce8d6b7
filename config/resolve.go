package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Current is the id that an app's paths have where no instance is meant: they
// go through the link of that name, and so to what is live.
const Current = "current"

// AppOptions say which app is meant, beyond its name.
type AppOptions struct {
	// InstanceID is the instance whose paths are wanted; empty means Current.
	InstanceID string
	// Source is the content of scotch.cfg at the root of the app's source, nil
	// where it has none. It may set the keys that Schema says it may, and
	// refer to its own keys and ${name}.
	Source []byte
	// SourceName is what errors call that file; empty means "scotch.cfg".
	SourceName string
	// NoFile leaves the app's own file out, and needs none: what the app
	// would be with a file that says nothing.
	NoFile bool
	// File is used in place of the content of the app's own file, where it is
	// not nil: to check a change before it is saved.
	File []byte
	// Recorded are the settings of a release that is to run as it did: they win
	// over all files. Nil: the files alone count.
	Recorded []Setting
	// OtherServer tells that they were recorded while another application server was
	// on: what an app says to today's stays as it is.
	OtherServer bool
	// Live tells whether another app is live. Where it is given, the app's
	// directories are compared with those of all other apps: for a deploy. One
	// that is live keeps its places; one that is not gives way.
	Live func(app string) bool
}

// App reads the configuration of an app. Its error is a *NoAppError where the
// app has no file, an Errors with everything that is wrong in any layer, or
// what kept the file from being read.
func (s *Site) App(name string, o AppOptions) (*App, error) {
	if err := ValidName(name); err != nil {
		return nil, err
	}
	id := o.InstanceID
	if id == "" {
		id = Current
	}
	if !idPattern().MatchString(id) {
		return nil, fmt.Errorf("%q is no id of an instance", id)
	}
	v := over(s.Values)
	filled := Origin{Layer: LayerScotch}
	v.set(ref{"app", "name"}, name, filled)
	v.set(ref{"app", "instance_id"}, id, filled)

	path, err := appFile(v)
	if err != nil {
		return nil, err
	}
	var errs Errors
	if o.Source != nil {
		s.addSource(v, name, o, &errs)
	}
	if !o.NoFile {
		data := o.File
		if data == nil {
			data, err = readFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, &NoAppError{Name: name, Path: path}
			}
			if err != nil {
				return nil, fmt.Errorf("read the file of app %q: %w", name, err)
			}
		}
		d, bad := parse(path, data)
		errs.add(bad...)
		errs.add(s.schema.check(d, LayerApp, func(entry, Key) string { return "set it in " + s.siteFile() })...)
		v.add(d, LayerApp)
	}

	if o.Recorded != nil {
		s.setRecorded(v, o.Recorded, o.OtherServer)
	}
	s.complete(v, name)
	a := &App{Values: v, Name: name, InstanceID: id}
	s.resolveApp(a, &errs)
	s.apart(a, o.Live, &errs)
	s.schema.checkApp(s, a, &errs)
	errs.add(v.check()...)
	if err := errs.err(); err != nil {
		return nil, err
	}
	return a, nil
}

// AppFile is the path of an app's own file, whether or not there is one.
func (s *Site) AppFile(name string) (string, error) {
	if err := ValidName(name); err != nil {
		return "", err
	}
	v := over(s.Values)
	v.set(ref{"app", "name"}, name, Origin{Layer: LayerScotch})
	return appFile(v)
}

// appFile is what the site's values, with an app's name among them, say of it.
func appFile(v *Values) (string, error) {
	var errs Errors
	path := value(&typed{v, &errs}, "app", "config", parsePath)
	return path, errs.err()
}

// addSource merges the file of a stranger: what it refers to is looked up in
// itself alone, so that it can read nothing of the server's.
func (s *Site) addSource(v *Values, name string, o AppOptions, errs *Errors) {
	file := o.SourceName
	if file == "" {
		file = "scotch.cfg"
	}
	d, bad := parse(file, o.Source)
	errs.add(bad...)
	own := newValues(nil)
	own.given = map[string]string{"name": name}
	own.add(d, LayerSource)
	errs.add(s.schema.check(d, LayerSource, func(e entry, k Key) string {
		if k.Set == SetInSite {
			return "an operator sets it in a site file"
		}
		return "remove the line; an operator sets it on the server: " + s.setCommand(name, e, own)
	})...)
	total := 0
	for _, e := range d.entries {
		k, known := s.schema.find(ref{e.section, e.key})
		if !known || k.Set != SetInSource || e.section == defaultSection {
			continue // reported
		}
		text, err := own.interpolate(ref{e.section, e.key}, e.raw)
		if err != nil {
			errs.add(own.located(err).(*Error))
			continue
		}
		if total += len(text); total > maxExpanded {
			errs.add(&Error{File: file, Line: e.first + 1, Problem: fmt.Sprintf("the values get longer than %d bytes in all", maxExpanded)})
			return
		}
		v.set(ref{e.section, e.key}, escape(text), Origin{Layer: LayerSource, File: file, Line: e.first + 1})
	}
}

// complete sets the values that depend on others in ways that interpolation
// can't express, so that a dump shows what counts.
func (s *Site) complete(v *Values, name string) {
	filled := Origin{Layer: LayerScotch}
	user := ref{"app", "user"}
	if o, _ := v.origin(user); o.Layer == LayerDefaults {
		if u, _, err := v.Lookup("app", "user"); err == nil && len(u) > 32 {
			v.set(user, escape(shortUser(u)), filled)
		}
	}
	if d, ok := v.raw(ref{"app", "domains"}); !ok || d == "" {
		domains := "*"
		if d, ok := v.raw(ref{"site", "domain"}); ok && d != "" {
			domains = "${name}.${site:domain}"
		}
		v.set(ref{"app", "domains"}, domains, filled)
	}
	// instance_path first: the others mostly begin with it.
	for _, key := range instancePaths() {
		s.vary(v, name, ref{"app", key})
	}
}

// instancePaths are the keys whose directories belong to one instance.
func instancePaths() []string { return []string{"instance_path", "venv_path", "src_path", "run_path"} }

// vary appends the instance's id to a path that is the same for any two
// instances, and before it the app's name to one that is the same for any two
// apps, where no app's own file says so.
func (s *Site) vary(v *Values, name string, path ref) {
	raw, _ := v.raw(path)
	origin := v.Origin(path.section, path.key)
	if raw == "" {
		return
	}
	same := func(key, one, other string) bool {
		r := ref{"app", key}
		have, _ := v.own(r)
		at, _ := v.origin(r)
		defer func() { v.set(r, have, at) }()
		v.set(r, one, at)
		a, err := v.interpolate(path, raw)
		v.set(r, other, at)
		b, err2 := v.interpolate(path, raw)
		return err == nil && err2 == nil && filepath.Clean(a) == filepath.Clean(b)
	}
	raw = strings.TrimRight(raw, "/")
	if origin.Layer != LayerApp && !v.inInstance(path, raw) && same("name", "one-app", "other-app") {
		raw += "/${app:name}"
	}
	if same("instance_id", "one-instance", "other-instance") {
		raw += "/${app:instance_id}"
	}
	delete(v.written, path)
	if have, _ := v.raw(path); have != raw {
		v.set(path, raw, origin)
		v.written[path] = have
	}
}

// asWritten is a path without what scotch has appended, "" where that is nothing.
func (v *Values) asWritten(path ref) string {
	raw, ok := v.written[path]
	if !ok {
		return ""
	}
	text, err := v.interpolate(path, raw)
	if err != nil {
		return ""
	}
	return text
}

// instancePath reads one of instancePaths. What is wrong is said of what a
// person wrote.
func (t *typed) instancePath(a *App, key string) string {
	if key != "instance_path" && a.InstancePath == "" && t.isDefault(key) {
		return "" // it is below what was found wrong already
	}
	if raw := t.v.asWritten(ref{"app", key}); raw != "" {
		if _, err := parsePath(raw); err != nil {
			t.fail("app", key, err)
			return ""
		}
	}
	return value(t, "app", key, parsePath)
}

// inInstance tells whether a path is inside the instance's own, which is one app's.
func (v *Values) inInstance(path ref, raw string) bool {
	instance, err := v.Get("app", "instance_path")
	dir, err2 := v.interpolate(path, raw)
	return path.key != "instance_path" && err == nil && err2 == nil && strings.HasPrefix(filepath.Clean(dir), filepath.Clean(instance)+"/")
}

// resolveApp fills in the typed fields.
func (s *Site) resolveApp(a *App, errs *Errors) {
	t := &typed{v: a.Values, errs: errs}
	set := func(section, key string) bool {
		l := a.Origin(section, key).Layer
		return l != LayerDefaults && l != LayerPlugin && l != ""
	}
	a.DirMode = t.dirMode(s.Mode)
	optional(t, "site", "domain", parseHost)

	a.Source = optional(t, "app", "src", parseSource)
	a.InstancePath = t.instancePath(a, "instance_path")
	a.VenvPath = t.instancePath(a, "venv_path")
	a.SourcePath = t.instancePath(a, "src_path")
	a.RunPath = t.instancePath(a, "run_path")
	a.DataPath = value(t, "app", "data_path", parsePath)
	t.separate(a)
	a.Interpreter = value(t, "app", "interpreter", parseInterpreter)
	a.InterpreterSet = set("app", "interpreter")
	if set("app", "entry_point") {
		a.EntryPoint = optional(t, "app", "entry_point", parseEntryPoint)
	}
	a.Root = optional(t, "app", "root", parseRoot)
	a.Build = optional(t, "app", "build", text)
	a.Release = optional(t, "app", "release", text)
	a.ReleaseSet = set("app", "release")
	a.CollectStatic = value(t, "app", "collectstatic", parseBool)
	a.Persist = optional(t, "app", "persist", parsePersist)
	a.Workers = value(t, "app", "workers", parseNumber(1, 1000))
	a.Threads = value(t, "app", "threads", parseNumber(1, 1000))
	a.MaxBody = value(t, "app", "max_body", parseSize)
	a.Timeout = value(t, "app", "timeout", parseDuration(atLeastOneSecond))
	if s.Mode != "standalone" {
		a.User = value(t, "app", "user", parseAppUser)
		if a.User != "" || set("app", "group") { // else it is wrong for being the user's
			a.Group = value(t, "app", "group", parseUser)
		}
	}
	a.Domains = value(t, "app", "domains", parseDomains)
	a.URLPrefix = value(t, "app", "url_prefix", parsePrefix)
	a.Keep = value(t, "app", "keep", parseNumber(1, 1000))
	a.Env = t.variables("env")
	a.BuildEnv = t.variables("build_env")
	for i, url := range a.Keys("static") {
		if i == maxStatic {
			t.fail("static", url, fmt.Errorf("is one of more than %d\nmap a directory that holds several", maxStatic))
			break
		}
		a.Static = append(a.Static, value(t, "static", url, func(s string) (Static, error) { return parseStatic(url, s) }))
	}
	a.Health = Health{
		Path:    value(t, "health", "path", parseHealthPath),
		Timeout: value(t, "health", "timeout", parseDuration(atLeastOneSecond)),
		Status:  value(t, "health", "status", ParseStatusSet),
		Host:    optional(t, "health", "host", parseHost),
		Watch:   value(t, "health", "watch", parseDuration(0)),
	}
	a.StepTimeout = value(t, "deploy", "timeout", parseDuration(atLeastOneSecond))
	a.ReleaseTimeout = value(t, "deploy", "release_timeout", parseDuration(0))
	a.Limits = t.limits()
	a.Branch = value(t, "git", "branch", parseBranch)
	a.BranchSet = set("git", "branch")
}

// separate refuses directories of an instance that are, or are in, another one
// of them: what is made new for each instance would hold what is not.
func (t *typed) separate(a *App) {
	dirs := []struct{ key, path string }{
		{"venv_path", a.VenvPath}, {"src_path", a.SourcePath}, {"run_path", a.RunPath}, {"data_path", a.DataPath}, {"instance_path", a.InstancePath},
	}
	said := make(map[string]bool)
	for i, d := range dirs {
		for j, other := range dirs {
			within := d.path == other.path && i < j || strings.HasPrefix(d.path, other.path+"/") && other.key != "instance_path" ||
				// Data outlives the instance whose directory it would be in.
				d.key == "data_path" && strings.HasPrefix(d.path, other.path+"/")
			if i == j || !within || d.path == "" || other.path == "" {
				continue
			}
			// The line to mend is one that a person wrote.
			at, to, relation := d, other, "inside"
			if t.isDefault(d.key) && !t.isDefault(other.key) {
				at, to, relation = other, d, "around"
			}
			if said[at.key] && at.key != d.key {
				continue // one directory around all the others
			}
			said[at.key] = true
			t.fail("app", at.key, fmt.Errorf("%q is %s [app] %s, %q, or the same\ngive each a directory of its own", at.path, relation, to.key, to.path))
		}
	}
	// The application server's socket is a short name in run_path.
	if err := CheckSocketPath(filepath.Join(a.RunPath, "uwsgi.sock")); err != nil {
		t.fail("app", "run_path", err)
	}
}

// isDefault tells that no file sets a key of [app].
func (t *typed) isDefault(key string) bool { return t.v.Origin("app", key).Layer == LayerDefaults }

func (t *typed) limits() map[string]string {
	all := make(map[string]string)
	limit := func(key string, check func(string) error) {
		s := optional(t, "limits", key, func(s string) (string, error) { return s, check(s) })
		if s != "" {
			all[key] = s
		}
	}
	for _, prefix := range []string{"", "build_"} {
		limit(prefix+"memory", func(s string) error { _, err := parseSize(s); return err })
		limit(prefix+"cpu", func(s string) error { _, err := parsePercent(s); return err })
		limit(prefix+"tasks", func(s string) error { _, err := parseNumber(1, 1<<20)(s); return err })
	}
	return all
}
