package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say which files a server's configuration is read from.
type Options struct {
	// Files replace the standard site files; each must exist.
	Files   []string
	Plugins []Defaults
	// Standalone are a layer above Plugins where [server] mode is standalone.
	Standalone []Defaults
	Dir        string // where ./scotch.cfg is looked for; empty: the working directory
	Home       string // where ~/.scotch.cfg is looked for; empty: the caller's home
}

// Open reads the configuration of a server. Its error is an Errors with
// everything that is wrong in the site files, what they say to plugins among it, or
// what kept one from being read. What they say for all apps is among it too, and no
// error by itself (Site.Mistakes): it keeps apps from being deployed, not from serving.
//
// The apps' files are read by Site.App, each time anew.
func Open(o Options) (*Site, error) {
	files, err := o.siteFiles()
	if err != nil {
		return nil, err
	}
	s := &Site{Named: len(o.Files) > 0, schema: newSchema(o.Plugins), Plugins: make(map[string]bool), neighbours: new(neighbours)}
	var errs Errors
	read := func(l Layer, name string, data []byte) layer {
		d, bad := parse(name, data)
		errs.add(bad...)
		if l == LayerSite {
			errs.add(s.schema.check(d, l, nil)...) // anything may be set there
		}
		return layer{l, d}
	}
	base := []layer{read(LayerDefaults, builtinName, builtin)}
	for _, p := range o.Plugins {
		base = append(base, read(LayerPlugin, p.file(), p.Text))
	}
	var own []layer
	for _, name := range files {
		data, err := readFile(name)
		if errors.Is(err, fs.ErrNotExist) && len(o.Files) == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read site file: %w", err)
		}
		own = append(own, read(LayerSite, name, data))
		s.Files = append(s.Files, name)
	}
	s.merge(base, own)
	if mode, err := s.Get("server", "mode"); err == nil && mode == "standalone" && len(o.Standalone) > 0 {
		for _, p := range o.Standalone {
			base = append(base, read(LayerPlugin, p.file(), p.Text))
		}
		s.merge(base, own)
	}
	s.resolve(&errs)
	s.schema.checkSite(s, &errs)
	s.checkApps(&s.Mistakes)
	if len(errs) > 0 {
		errs.add(s.Mistakes...)
		return nil, errs.err()
	}
	return s, nil
}

// merge makes the values of these layers.
func (s *Site) merge(base, own []layer) {
	s.layers = slices.Concat(base, own)
	s.Values = newValues(takesAnyKey)
	s.known = s.schema.named
	s.Values.recorded = s.isRecorded
	for _, l := range s.layers {
		s.add(l.doc, l.kind)
	}
}

// checkApps reports what site files say for all apps and what is wrong for any
// app, whatever its name and its own file.
func (s *Site) checkApps(errs *Errors) {
	same := func(a, b *Error) bool {
		return a.File == b.File && a.Line == b.Line && a.Section == b.Section && a.Key == b.Key
	}
	one, other := s.wrongForApp("a"), s.wrongForApp("b")
	for _, e := range one {
		everybodys := slices.ContainsFunc(other, func(o *Error) bool { return same(e, o) })
		if everybodys && slices.Contains(s.Files, e.File) && !s.leftToApps(ref{e.Section, e.Key}) {
			errs.add(e)
		}
	}
}

// wrongForApp is what is wrong with an app whose own file says nothing.
func (s *Site) wrongForApp(name string) Errors {
	v := over(s.Values)
	v.set(ref{"app", "name"}, name, Origin{Layer: LayerScotch})
	v.set(ref{"app", "instance_id"}, Current, Origin{Layer: LayerScotch})
	var errs Errors
	value(&typed{v, &errs}, "app", "config", parsePath)
	s.complete(v, name)
	a := &App{Values: v, Name: name, InstanceID: Current}
	s.resolveApp(a, &errs)
	s.apart(a, nil, &errs)
	s.schema.checkApp(s, a, &errs)
	errs.add(v.check()...)
	return errs
}

// references are ${key} and ${section:key} in a value.
var references = pattern(`\$\{(?:([^}:]*):)?([^}:]*)\}`)

// leftToApps tells whether a value refers to one that is not set, or that [DEFAULT]
// sets, where people put values of their own: what it is, each app's file decides.
func (s *Site) leftToApps(r ref) bool {
	raw, _ := s.raw(r)
	for _, m := range references().FindAllStringSubmatch(raw, -1) {
		target := ref{cmp.Or(m[1], r.section), ""}
		target.key = keyName(target.section, m[2])
		_, set := s.origin(target)
		if k, _ := s.schema.find(target); k.Set != SetNowhere && !set || target.section == defaultSection {
			return true
		}
	}
	return false
}

// layer is a file in its place.
type layer struct {
	kind Layer
	doc  *document
}

// siteFiles lists the files to read, the one that wins last.
func (o Options) siteFiles() ([]string, error) {
	if len(o.Files) > 0 {
		var all []string
		for _, f := range o.Files {
			abs, err := filepath.Abs(f)
			if err != nil {
				return nil, fmt.Errorf("find site file: %w", err)
			}
			all = append(all, abs)
		}
		return all, nil
	}
	return o.standardFiles("/etc/scotch.cfg")
}

// standardFiles are the system's, the caller's, and the working directory's. The
// last one does not count inside a git work tree: there a scotch.cfg is an
// app's own, and whoever can push would configure the server.
func (o Options) standardFiles(system string) ([]string, error) {
	all := []string{system}
	home := o.Home
	if home == "" {
		home, _ = os.UserHomeDir() // no home, no file in it
	}
	if home != "" {
		all = append(all, filepath.Join(home, ".scotch.cfg"))
	}
	dir := o.Dir
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return nil, fmt.Errorf("find ./scotch.cfg: %w", err)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find ./scotch.cfg: %w", err)
	}
	local := filepath.Join(dir, "scotch.cfg")
	if !inWorkTree(dir) && !slices.Contains(all, local) {
		all = append(all, local)
	}
	return all, nil
}

// inWorkTree tells whether dir or a directory above it has a .git, which is a
// file in a linked work tree (gitrepository-layout(5)).
func inWorkTree(dir string) bool {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent
	}
}

// readFile reads a configuration file, a little more than parse takes of it.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// resolve fills in the typed fields.
func (s *Site) resolve(errs *Errors) {
	t := &typed{v: s.Values, errs: errs}
	s.Mode = value(t, "server", "mode", func(m string) (string, error) {
		if m != "system" && m != "standalone" {
			return "", fmt.Errorf("must be system or standalone, not %q", m)
		}
		return m, nil
	})
	s.Domain = optional(t, "site", "domain", parseHost)
	s.DirMode = t.dirMode(s.Mode)
	s.Umask = value(t, "site", "umask", parseUmask)
	s.Paths = Paths{
		Configuration: value(t, "paths", "configuration", parsePath),
		AppsEnabled:   value(t, "paths", "apps_enabled", parsePath),
		Instances:     value(t, "paths", "instances", ownPath),
		Repositories:  value(t, "paths", "repositories", ownPath),
		Data:          value(t, "paths", "data", ownPath),
		Logs:          value(t, "paths", "logs", ownPath),
		Run:           value(t, "paths", "run", ownPath),
	}
	if err := CheckSocketPath(filepath.Join(s.Paths.Run, "control.sock")); err != nil {
		t.fail("paths", "run", err)
	}
	s.Server = Server{
		Listen:         value(t, "server", "listen", parseListen),
		HostKey:        value(t, "server", "host_key", parsePath),
		AuthorizedKeys: value(t, "server", "authorized_keys", parsePath),
		Deploys:        value(t, "server", "deploys", parseNumber(0, 1000)),
		MinFree:        value(t, "server", "min_free", parseSize),
		MaxPush:        value(t, "server", "max_push", parseSize),
		MaxObjects:     value(t, "server", "max_objects", parseNumber(1, math.MaxInt32)),
		MaxRefs:        value(t, "server", "max_refs", parseNumber(1, math.MaxInt32)),
		MaxObject:      value(t, "server", "max_object", parseSize),
		MaxFiles:       value(t, "server", "max_files", parseNumber(1, 10_000_000)),
		MaxSource:      value(t, "server", "max_source", parseSize),
		PushMemory:     value(t, "server", "push_memory", parseSize),
		PushCPU:        value(t, "server", "push_cpu", parseDuration(atLeastOneSecond)),
		LogSize:        value(t, "server", "log_size", parseSize),
		LogKeep:        value(t, "server", "log_keep", parseNumber(0, 1000)),
		GitUser:        value(t, "server", "git_user", parseUser),
		StopTimeout:    value(t, "server", "stop_timeout", parseDuration(0)),
		MaxConnections: value(t, "server", "max_connections", parseNumber(1, 10000)),
		MaxPerAddress:  value(t, "server", "max_per_address", parseNumber(1, 10000)),
		MaxLogins:      value(t, "server", "max_logins", parseNumber(1, 10000)),
		MaxSessions:    value(t, "server", "max_sessions", parseNumber(1, 1000)),
		MaxPerKey:      value(t, "server", "max_per_key", parseNumber(1, 10000)),
		LoginTimeout:   value(t, "server", "login_timeout", parseDuration(atLeastOneSecond)),
		IdleTimeout:    value(t, "server", "idle_timeout", parseDuration(atLeastOneSecond)),
		KeepAlive:      value(t, "server", "keep_alive", parseDuration(atLeastOneSecond)),
		Penalty:        value(t, "server", "penalty", parseDuration(0)),
		PenaltyExempt:  optional(t, "server", "penalty_exempt", parseNetworks),
	}
	s.Notify = Notify{
		Command: optional(t, "notify", "command", text),
		URL:     optional(t, "notify", "url", parseWebURL),
		Timeout: value(t, "notify", "timeout", parseDuration(atLeastOneSecond)),
	}
	s.Metrics = Metrics{Listen: optional(t, "metrics", "listen", parseLoopback)}
	s.Plugins = t.plugins(s.schema)
}

// Apps returns the names of the apps that have a file in [paths] apps_enabled,
// sorted. A file that is named as no app can be is an error, joined with those
// of others; the names of the apps are returned all the same.
func (s *Site) Apps() ([]string, error) {
	dir := s.Paths.AppsEnabled
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no app was made yet
	}
	if err != nil {
		return nil, fmt.Errorf("list apps: %w", err)
	}
	var (
		names []string
		errs  []error
	)
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".cfg")
		if !ok || strings.HasPrefix(f.Name(), ".") || f.IsDir() {
			continue
		}
		if err := ValidName(name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(dir, f.Name()), err))
			continue
		}
		names = append(names, name)
	}
	return names, errors.Join(errs...)
}

// typed reads values and collects what is wrong with them.
type typed struct {
	v    *Values
	errs *Errors
}

// fail reports what is wrong with a value; an err of errors.Join is several things.
func (t *typed) fail(section, key string, err error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			t.fail(section, key, one)
		}
		return
	}
	var known *Error
	if errors.As(err, &known) {
		t.errs.add(known)
		return
	}
	problem, hint, _ := strings.Cut(err.Error(), "\n")
	if isSecret(section) {
		problem, hint = "the value can't be used", ""
	} else if raw, _ := t.v.raw(ref{section, key}); commentBehind().MatchString(raw) {
		hint = strings.TrimPrefix(hint+"\na comment stands on a line of its own: behind a value # and ; are part of it", "\n")
	} else if m := headerBelow().FindStringSubmatch(raw); m != nil {
		hint = strings.TrimPrefix(hint+"\n"+m[1]+" is indented, and so is part of the value: begin it where the key begins", "\n")
	}
	t.errs.add(t.v.errorAt(ref{section, key}, problem, hint))
}

// Collect gives check a function to tell what is wrong with values, err completing
// "[section] key: ", its next step on a line of its own. It returns all of that,
// an Errors, each with its file and line.
func (v *Values) Collect(check func(fail func(section, key string, err error))) error {
	var errs Errors
	check((&typed{v, &errs}).fail)
	return errs.err()
}

// value reads a key that has a default.
func value[T any](t *typed, section, key string, parse func(string) (T, error)) T {
	var zero T
	s, err := t.v.Get(section, key)
	if err != nil {
		t.fail(section, key, err)
		return zero
	}
	v, err := parse(s)
	if err != nil {
		t.fail(section, key, err)
		return zero
	}
	return v
}

// optional reads a key that need not be set. An empty value is none.
func optional[T any](t *typed, section, key string, parse func(string) (T, error)) T {
	var zero T
	s, _, err := t.v.Lookup(section, key)
	if err != nil {
		t.fail(section, key, err)
		return zero
	}
	if s == "" {
		return zero
	}
	return value(t, section, key, parse)
}

// dirMode reads the mode of new directories. On a server with several users the
// others must get through them: the web server to the sockets, the apps' users to
// their code, git to the repositories.
func (t *typed) dirMode(mode string) fs.FileMode {
	return value(t, "site", "dirmode", func(s string) (fs.FileMode, error) {
		m, err := parseMode(s)
		if err == nil && m&0o700 != 0o700 {
			err = fmt.Errorf("%q keeps scotch itself out of the directories that it makes\nwrite 0711 or more", s)
		}
		if err == nil && mode == "system" && m&0o001 == 0 {
			err = fmt.Errorf("%q keeps the web server and the apps' users out of the directories that lead to theirs\nwrite 0711 or more: what is in an app's directories is closed to others anyway", s)
		}
		return m, err
	})
}

// commentBehind is what would be an inline comment, which configparser does not
// have by default.
var commentBehind = pattern(`(?m)\s[#;]`)

// headerBelow is a section header that became a line of a value.
var headerBelow = pattern(`\n(\[[a-z_]+\])(?:\n|$)`)

func text(s string) (string, error) { return s, nil }

func (t *typed) plugins(s *schema) map[string]bool {
	on := make(map[string]bool)
	for _, k := range s.keys {
		if k.Section != "plugins" {
			continue
		}
		if _, set, _ := t.v.Lookup("plugins", k.Name); !set {
			on[k.Name] = true // a plugin that came without a line about itself
			continue
		}
		on[k.Name] = value(t, "plugins", k.Name, parseBool)
	}
	return on
}

func (t *typed) variables(section string) []Var {
	var vars []Var
	for _, name := range t.v.Keys(section) {
		s, _, err := t.v.Lookup(section, name)
		if err == nil {
			err = ValidEnvName(name)
		}
		if err == nil && len(name)+len(s)+2 > maxVariable {
			err = fmt.Errorf("the value has %d bytes, the system takes at most %d in one variable", len(s), maxVariable-len(name)-2)
		}
		if err != nil {
			// The name is at fault here, and no secret.
			problem, hint, _ := strings.Cut(err.Error(), "\n")
			var known *Error
			if errors.As(err, &known) {
				t.errs.add(known)
			} else {
				t.errs.add(t.v.errorAt(ref{section, name}, problem, hint))
			}
			continue
		}
		vars = append(vars, Var{Name: name, Value: s})
	}
	return vars
}

const (
	atLeastOneSecond = time.Second
	// maxVariable is MAX_ARG_STRLEN of execve(2): 32 pages, with the NUL.
	maxVariable = 131072
)
