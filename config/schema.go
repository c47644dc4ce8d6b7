package config

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// builtin is the first layer, and the documentation of the keys in it.
//
//go:embed defaults.cfg
var builtin []byte

const builtinName = "defaults.cfg (built in)"

// Setter says in which files a key may be set.
type Setter int

// Who may set a key. Each one includes those below it.
const (
	SetInSource Setter = iota // scotch.cfg of the app's source, and the files below
	SetInApp                  // the app's own file, and the files below
	SetInSite                 // site files
	SetNowhere                // filled in by scotch
)

func (s Setter) String() string {
	return [...]string{"site, app, source", "site, app", "site", "scotch itself"}[s]
}

// Key is one key that scotch knows.
type Key struct {
	Section string
	Name    string // as in files, or what stands for any: "NAME", "/url/"
	Type    string // in words
	Default string // as written in defaults.cfg, not interpolated
	Unset   bool   // there is no default
	Doc     string // in Markdown-free prose, one paragraph
	Set     Setter
	Any     bool // stands for every key of the section that has no Key of its own
}

// Defaults is a plugin's defaults.cfg.
//
// Its sections and keys become known ones; a key without a default is there
// commented out (#key = example, nothing between the # and the key). The
// comment lines directly above a key are its documentation; a line "# site
// files only" among them says that an app's file must not set it. A section
// that is named NAME_config takes any key.
type Defaults struct {
	Name string // of the plugin: "nginx"
	Text []byte
	// Check tells what of an app's configuration the plugin can't use, each
	// time that it is read and the plugin is on: fail once for each wrong
	// value, err completing "[section] key: ", its next step on a line of its
	// own. A field of the app is zero where its value is reported already. nil
	// checks nothing.
	Check func(a *App, fail func(section, key string, err error))
	// CheckSite is the same for the server's configuration, once when that is
	// read: the plugin's own section. Paths of the site are empty where they are
	// reported already.
	CheckSite func(s *Site, fail func(section, key string, err error))
	// Recorded tells that what an app's files may set of its sections says how the
	// app runs: a release records it, and a rollback brings it back.
	Recorded bool
}

func (d Defaults) file() string { return d.Name + "/defaults.cfg (built in)" }

// rule is what defaults.cfg can't say of a key.
type rule struct {
	section, key, kind string
	set                Setter
}

// rules returns the types of all keys of defaults.cfg, and who may set them.
func rules() []rule {
	return []rule{
		{"app", "name", "name of an app", SetNowhere},
		{"app", "instance_id", "id of an instance", SetNowhere},
		{"app", "src", "git URL or absolute path", SetInApp},
		{"app", "instance_path", "path", SetInApp},
		{"app", "venv_path", "path", SetInApp},
		{"app", "src_path", "path", SetInApp},
		{"app", "run_path", "path", SetInApp},
		{"app", "data_path", "path", SetInApp},
		{"app", "interpreter", "program", SetInSource},
		{"app", "config", "path", SetInSite},
		{"app", "entry_point", "MODULE:CALLABLE", SetInSource},
		{"app", "root", "relative path", SetInApp},
		{"app", "build", "shell command", SetInSource},
		{"app", "release", "shell command", SetInSource},
		{"app", "collectstatic", "on or off", SetInSource},
		{"app", "persist", "relative paths", SetInSource},
		{"app", "workers", "number", SetInApp},
		{"app", "threads", "number", SetInApp},
		{"app", "max_body", "size", SetInApp},
		{"app", "timeout", "duration", SetInApp},
		{"app", "user", "user name", SetInApp},
		{"app", "group", "group name", SetInApp},
		{"app", "domains", "hosts", SetInApp},
		{"app", "url_prefix", "URL path", SetInApp},
		{"app", "keep", "number", SetInApp},
		{"env", "NAME", "text", SetInSource},
		{"build_env", "NAME", "text", SetInApp},
		{"static", "/url/", "relative path, or data:path", SetInSource},
		{"health", "path", "URL path", SetInSource},
		{"health", "timeout", "duration", SetInSource},
		{"health", "status", "HTTP statuses", SetInSource},
		{"health", "host", "host", SetInSource},
		{"health", "watch", "duration", SetInSource},
		{"deploy", "timeout", "duration", SetInApp},
		{"deploy", "release_timeout", "duration", SetInApp},
		{"limits", "memory", "size", SetInApp},
		{"limits", "cpu", "percentage", SetInApp},
		{"limits", "tasks", "number", SetInApp},
		{"limits", "build_memory", "size", SetInApp},
		{"limits", "build_cpu", "percentage", SetInApp},
		{"limits", "build_tasks", "number", SetInApp},
		{"git", "branch", "branch", SetInApp},
		{"plugins", "git", "on or off", SetInSite},
		{"plugins", "uwsgi", "on or off", SetInSite},
		{"plugins", "nginx", "on or off", SetInSite},
		{"site", "domain", "host", SetInApp},
		{"site", "dirmode", "octal mode", SetInApp},
		{"site", "umask", "octal mode", SetInSite},
		{"paths", "configuration", "path", SetInSite},
		{"paths", "apps_enabled", "path", SetInSite},
		{"paths", "instances", "path", SetInSite},
		{"paths", "repositories", "path", SetInSite},
		{"paths", "data", "path", SetInSite},
		{"paths", "logs", "path", SetInSite},
		{"paths", "run", "path", SetInSite},
		{"server", "mode", "system or standalone", SetInSite},
		{"server", "listen", "HOST:PORT", SetInSite},
		{"server", "host_key", "path", SetInSite},
		{"server", "authorized_keys", "path", SetInSite},
		{"server", "deploys", "number", SetInSite},
		{"server", "min_free", "size", SetInSite},
		{"server", "max_push", "size", SetInSite},
		{"server", "max_objects", "number", SetInSite},
		{"server", "max_object", "size", SetInSite},
		{"server", "max_refs", "number", SetInSite},
		{"server", "max_files", "number", SetInSite},
		{"server", "max_source", "size", SetInSite},
		{"server", "push_memory", "size", SetInSite},
		{"server", "push_cpu", "duration", SetInSite},
		{"server", "log_size", "size", SetInSite},
		{"server", "log_keep", "number", SetInSite},
		{"server", "git_user", "user name", SetInSite},
		{"server", "stop_timeout", "duration", SetInSite},
		{"server", "max_connections", "number", SetInSite},
		{"server", "max_per_address", "number", SetInSite},
		{"server", "max_logins", "number", SetInSite},
		{"server", "max_sessions", "number", SetInSite},
		{"server", "max_per_key", "number", SetInSite},
		{"server", "login_timeout", "duration", SetInSite},
		{"server", "idle_timeout", "duration", SetInSite},
		{"server", "keep_alive", "duration", SetInSite},
		{"server", "penalty", "duration", SetInSite},
		{"server", "penalty_exempt", "networks", SetInSite},
		{"notify", "command", "shell command", SetInSite},
		{"notify", "url", "http or https URL", SetInSite},
		{"notify", "timeout", "duration", SetInSite},
		{"metrics", "listen", "HOST:PORT", SetInSite},
		{"text", "empty", "nothing", SetNowhere},
	}
}

// Schema returns every key that scotch and the given plugins know, in the order
// of their files.
func Schema(plugins []Defaults) []Key {
	documented := documentedKeys(builtin)
	var all []Key
	for _, r := range rules() {
		k := Key{Section: r.section, Name: r.key, Type: r.kind, Set: r.set, Unset: true}
		k.Any = keepsCase(r.section)
		for _, d := range documented {
			if d.section == r.section && (d.key == r.key || k.Any && d.key == "") {
				k.Doc, k.Default, k.Unset = d.doc, d.value, d.commented || k.Any
			}
		}
		all = append(all, k)
	}
	for _, p := range plugins {
		for _, d := range documentedKeys(p.Text) {
			k := Key{Section: d.section, Name: d.key, Type: "text", Default: d.value, Unset: d.commented, Doc: d.doc, Set: SetInApp}
			if d.siteOnly {
				k.Set = SetInSite
			}
			if d.section == "plugins" {
				k.Type, k.Set = "on or off", SetInSite
			}
			if d.key == "" {
				if !takesAnyKey(d.section) {
					continue
				}
				k.Name, k.Any, k.Unset = "OPTION", true, true
			}
			if !slices.ContainsFunc(all, func(o Key) bool { return o.Section == k.Section && o.Name == k.Name }) {
				all = append(all, k)
			}
		}
		if !slices.ContainsFunc(all, func(k Key) bool { return k.Section == "plugins" && k.Name == p.Name }) {
			all = append(all, Key{Section: "plugins", Name: p.Name, Type: "on or off", Default: "on", Set: SetInSite,
				Doc: fmt.Sprintf("Whether the plugin %s is used.", p.Name)})
		}
	}
	return all
}

// takesAnyKey tells whether a plugin's section has free keys.
func takesAnyKey(section string) bool { return strings.HasSuffix(section, "_config") }

// documentedKey is a key, or with an empty key a section, of a defaults.cfg.
type documentedKey struct {
	section, key, value, doc string
	commented, siteOnly      bool
}

// documentedKeys reads a defaults.cfg with its comments, by the rules that
// Defaults states.
func documentedKeys(text []byte) []documentedKey {
	d, _ := parse("", text)
	values := make(map[int]entry)
	for _, e := range d.entries {
		values[e.first] = e
	}
	var (
		all     []documentedKey
		section string
		doc     []string
	)
	for n, l := range d.lines {
		k := documentedKey{section: section}
		switch l.kind {
		case commentLine:
			name, value, ok := commentedKey(l.text)
			if !ok {
				doc = append(doc, strings.TrimSpace(strings.TrimLeft(l.text, "#; \t")))
				continue
			}
			k.key, k.value, k.commented = name, value, true
		case headerLine:
			section, _ = headerName(strings.TrimFunc(l.text, isSpace))
			k.section = section
		case optionLine:
			k.key, k.value = values[n].key, values[n].raw
		default:
			doc = nil
			continue
		}
		doc = slices.DeleteFunc(doc, func(s string) bool {
			site := strings.EqualFold(strings.TrimRight(s, "."), "site files only")
			k.siteOnly = k.siteOnly || site
			return site
		})
		k.doc = strings.Join(doc, " ")
		// Keys in one block, without a comment of their own between them, share it.
		if k.doc == "" && k.key != "" && len(all) > 0 {
			if last := all[len(all)-1]; last.key != "" && last.section == section && n > 0 && d.lines[n-1].kind != blankLine {
				k.doc, k.siteOnly = last.doc, last.siteOnly
			}
		}
		doc = nil
		all = append(all, k)
	}
	return all
}

// commentedKey reads "#key = example".
func commentedKey(s string) (key, value string, ok bool) {
	s = strings.TrimFunc(s, isSpace)[1:]
	key, value, ok = strings.Cut(s, "=")
	key = strings.TrimRight(key, " \t")
	if !ok || key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return "", "", false
	}
	return key, strings.TrimSpace(value), true
}

// schema finds keys by their names.
type schema struct {
	keys     []Key
	sections []string
	byRef    map[ref]Key
	plugins  []Defaults
	// recordedOf names the plugin of each section that is recorded for it.
	recordedOf map[string]string
}

func newSchema(plugins []Defaults) *schema {
	s := &schema{keys: Schema(plugins), byRef: make(map[ref]Key), plugins: plugins, recordedOf: make(map[string]string)}
	for _, k := range s.keys {
		name := k.Name
		if k.Any {
			name = "*"
		}
		s.byRef[ref{k.Section, name}] = k
		if !slices.Contains(s.sections, k.Section) {
			s.sections = append(s.sections, k.Section)
		}
	}
	for _, p := range plugins {
		for _, d := range documentedKeys(p.Text) {
			if !slices.Contains(s.sections, d.section) {
				s.sections = append(s.sections, d.section)
			}
			if p.Recorded && !slices.ContainsFunc(rules(), func(r rule) bool { return r.section == d.section }) {
				s.recordedOf[d.section] = p.Name
			}
		}
	}
	return s
}

// find returns the key that r is, or that stands for it.
func (s *schema) find(r ref) (Key, bool) {
	k, ok := s.byRef[r]
	if !ok {
		k, ok = s.byRef[ref{r.section, "*"}]
	}
	return k, ok
}

// named returns the key of a section that has this very name and can be set.
func (s *schema) named(r ref) (Key, bool) {
	k, ok := s.byRef[r]
	return k, ok && !k.Any && k.Set != SetNowhere
}

// maxHints is how many keys that are not known get a hint each.
const maxHints = 50

// check reports every section and key of a file that is not known, or that must
// not be set in this layer's files. elsewhere says where a key is set instead.
func (s *schema) check(d *document, l Layer, elsewhere func(entry, Key) string) Errors {
	var errs Errors
	unknown := 0
	for _, h := range d.sections {
		if h.name == defaultSection || slices.Contains(s.sections, h.name) {
			continue
		}
		hint := didYouMean(h.name, s.sections, func(x string) string { return "[" + x + "]" })
		if hint == "" && l != LayerSource {
			hint = "values of your own, that others refer to, go into [DEFAULT]: ${DEFAULT:KEY}"
		}
		errs.add(&Error{File: d.file, Line: h.line + 1, Section: h.name, Problem: "there is no such section", Hint: hint})
	}
	for _, e := range d.entries {
		bad := &Error{File: d.file, Line: e.first + 1, Section: e.section, Key: e.key}
		k, known := s.find(ref{e.section, e.key})
		switch {
		case e.section == defaultSection && l != LayerSource:
			continue
		case e.section != defaultSection && !slices.Contains(s.sections, e.section):
			continue // the section is reported
		case e.section == defaultSection:
			bad.Problem = "the app's source can't set defaults for all sections"
			bad.Hint = "write the value where it is used"
		case !known:
			bad.Problem = "there is no such key"
			// A file that was pushed may have thousands of them.
			if unknown++; unknown <= maxHints {
				bad.Hint = cmp.Or(s.swallowed(d, e), retired(e.section, e.key))
				if bad.Hint == "" {
					bad.Hint = s.nearest(e.section, e.key)
				}
			}
		case k.Set == SetNowhere:
			bad.Problem = "is filled in by scotch and can't be set"
			bad.Hint = "remove the line"
		case l == LayerApp && k.Set == SetInSite:
			bad.Problem = "can't be set for one app"
			bad.Hint = elsewhere(e, k)
		case l == LayerSource && k.Set != SetInSource:
			bad.Problem = "can't be set in the app's source"
			bad.Hint = elsewhere(e, k)
		default:
			continue
		}
		errs.add(bad)
	}
	return errs
}

// swallowed tells of a section header above a key that is indented, and so is part of
// a value: what was to be below it is taken for keys of the section before.
func (s *schema) swallowed(d *document, e entry) string {
	for n := e.first - 1; n >= 0 && d.lines[n].kind != headerLine; n-- {
		if d.lines[n].kind != continuationLine {
			continue
		}
		name, ok := headerName(strings.TrimFunc(d.lines[n].text, isSpace))
		if ok && slices.Contains(s.sections, name) && name != e.section {
			return fmt.Sprintf("line %d, [%s], is indented, and so goes on with the value above it: begin it where that key begins", n+1, name)
		}
	}
	return ""
}

// checkSite has each plugin that is on check the server's configuration.
func (s *schema) checkSite(site *Site, errs *Errors) {
	t := &typed{v: site.Values, errs: errs}
	for _, p := range s.plugins {
		if p.CheckSite != nil && site.Plugins[p.Name] {
			p.CheckSite(site, t.fail)
		}
	}
}

// checkApp has each plugin that is on check an app's configuration.
func (s *schema) checkApp(site *Site, a *App, errs *Errors) {
	t := &typed{v: a.Values, errs: errs}
	for _, p := range s.plugins {
		if p.Check != nil && site.Plugins[p.Name] {
			p.Check(a, t.fail)
		}
	}
}
