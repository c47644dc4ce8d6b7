package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// location is a directory of an app's own.
type location struct {
	key    string // of [app]; empty for the app's directory below [paths] instances
	path   string // cleaned; anyID stands for the id of any instance
	parts  []string
	origin Origin // of the key
}

// anyID stands for an instance's id in a path. No path holds it: see parsePath.
const anyID = "*"

func newLocation(key, path string, o Origin) location {
	return location{key: key, path: path, parts: components(path), origin: o}
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// places are the directories that an app's values name, and those that follow
// from them. A value that can't be used names none: it is reported elsewhere.
func (s *Site) places(v *Values, name string) []location {
	id := ref{"app", "instance_id"}
	have, _ := v.own(id)
	at, _ := v.origin(id)
	v.set(id, anyID, at)
	defer v.set(id, have, at)

	home := filepath.Join(s.Paths.Instances, name)
	all := []location{newLocation("", home, Origin{})}
	for _, key := range append(instancePaths(), "data_path") {
		raw, err := v.Get("app", key)
		if err != nil {
			continue
		}
		if _, err := parsePath(strings.ReplaceAll(raw, anyID, "0")); err != nil {
			continue
		}
		p := newLocation(key, filepath.Clean(raw), v.Origin("app", key))
		all = append(all, p)
		if key == "venv_path" && !below(p.path, home) {
			// What the instances' links lead to is kept beside them.
			all = append(all, newLocation(key, filepath.Join(filepath.Dir(p.path), ".venvs", name), p.origin))
		}
	}
	return all
}

// below tells whether a path is in dir, or is dir.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// relation says how p lies to q: "inside", "around", "the same as", or "" for
// apart, whatever the instances' ids are.
func (p location) relation(q location) string {
	n := min(len(p.parts), len(q.parts))
	for i := range n {
		if !sameComponent(p.parts[i], q.parts[i]) {
			return ""
		}
	}
	switch cmp.Compare(len(p.parts), len(q.parts)) {
	case 1:
		return "inside"
	case -1:
		return "around"
	}
	return "the same as"
}

// sameComponent tells whether two names in a path can be the same one. The ids
// that scotch gives are digits.
func sameComponent(a, b string) bool {
	if a == b {
		return true
	}
	beforeA, afterA, varyA := strings.Cut(a, anyID)
	beforeB, afterB, varyB := strings.Cut(b, anyID)
	isID := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	switch {
	case varyA && varyB:
		long, short := longer(beforeA, beforeB)
		tail, shortTail := longer(afterA, afterB)
		return strings.HasPrefix(long, short) && isID(long[len(short):]) &&
			strings.HasSuffix(tail, shortTail) && isID(tail[:len(tail)-len(shortTail)])
	case varyB:
		return sameComponent(b, a)
	case varyA && len(b) > len(beforeA)+len(afterA) && strings.HasPrefix(b, beforeA) && strings.HasSuffix(b, afterA):
		id := b[len(beforeA) : len(b)-len(afterA)]
		return isID(id) || id == Current
	}
	return false
}

func longer(a, b string) (long, short string) {
	if len(a) < len(b) {
		return b, a
	}
	return a, b
}

// apart refuses directories of an app that are others': the system's, the
// server's and, where live is given, other apps'. A deploy gives an app's
// directories to its user and removes them again, with all that is in them.
func (s *Site) apart(a *App, live func(app string) bool, errs *Errors) {
	own := s.places(a.Values, a.Name)
	refused := make(map[string]bool) // by key: a venv_path has several places
	for _, p := range own {
		if p.key == "" || p.origin.Layer == LayerDefaults || refused[p.key] {
			continue // it follows from [paths] and the app's name
		}
		problem, hint := s.takenAbove(p, a)
		if problem == "" {
			problem, hint = s.taken(p, a.Name)
		}
		if problem != "" {
			refused[p.key] = true
			errs.add(a.errorAt(ref{"app", p.key}, problem, hint))
		}
	}
	if live == nil {
		return
	}
	others := s.neighbours.all(s)
	reported := make(map[string]bool) // by key: a path around all apps' is said once
	for _, p := range own {
		for _, other := range others {
			if other.name == a.Name || reported[p.key] {
				continue
			}
			for _, q := range other.places {
				rel := p.relation(q)
				if rel == "" || shareData(p, q, a.User, other.user) {
					continue
				}
				// Who is live holds the place. Before that a place that only the
				// site's files name is kept from one that an app's file names.
				if !live(other.name) && (p.origin.Layer != LayerApp || q.origin.Layer == LayerApp) {
					continue
				}
				errs.add(collision(a.Name, p, rel, other.name, q))
				reported[p.key] = true
				break
			}
		}
	}
}

// shareData tells whether two apps have one data directory by their operator's
// own word, and as one user: with two, the one deployed last would own it.
func shareData(p, q location, user, otherUser string) bool {
	return p.key == "data_path" && q.key == "data_path" && p.path == q.path && user == otherUser &&
		p.origin.Layer != LayerDefaults && q.origin.Layer != LayerDefaults
}

func collision(app string, p location, relation, other string, q location) *Error {
	// The line to mend is one that a person wrote.
	if p.origin.Layer != LayerApp && q.origin.Layer == LayerApp {
		return collision(other, q, map[string]string{"inside": "around", "around": "inside"}[relation], app, p)
	}
	if relation == "" {
		relation = "the same as"
	}
	e := &Error{File: p.origin.File, Line: p.origin.Line, Section: "app", Key: p.key,
		Problem: fmt.Sprintf("%q of app %q is %s %s", p.shown(), app, relation, q.of(other)),
		Hint:    "give each app directories of its own, with ${name} in them"}
	if p.key == "" {
		e.Section = ""
	}
	if p.key == "data_path" && q.key == "data_path" && p.path == q.path {
		e.Hint += "\ntwo apps can share a data_path that is set for both, where [app] user is the same too"
	}
	return e
}

func (p location) shown() string { return strings.ReplaceAll(p.path, anyID, "ID") }

// of names an app's place with the line that says it.
func (p location) of(app string) string {
	if p.key == "" {
		return fmt.Sprintf("%q, the directory of app %q in [paths] instances", p.path, app)
	}
	return fmt.Sprintf("%q, [app] %s of app %q (%s)", p.shown(), p.key, app, p.origin)
}

// takenAbove says what of the system's or the server's the directory would be
// that the instances' own are made in: /srv of /srv/000042, also where scotch
// has appended that id, or an app's name and the id, to what a person wrote.
func (s *Site) takenAbove(p location, a *App) (problem, hint string) {
	if written := a.asWritten(ref{"app", p.key}); written != "" {
		if dir := filepath.Clean(written); systemDir(dir) {
			return fmt.Sprintf("%q is the system's own", dir), ownDirectory
		}
	}
	if i := slices.Index(p.parts, anyID); i >= 0 {
		return s.taken(newLocation(p.key, "/"+strings.Join(p.parts[:i], "/"), p.origin), a.Name)
	}
	return "", ""
}

const ownDirectory = "name a directory that is the app's alone, such as one below [paths] data or /srv"

// taken says what of the system's or the server's a path would be, "" for nothing.
func (s *Site) taken(p location, app string) (problem, hint string) {
	const own = ownDirectory
	if systemDir(p.path) || len(p.parts) == 0 || p.parts[0] == anyID {
		return fmt.Sprintf("%q is the system's own", p.shown()), own
	}
	for _, d := range []struct {
		section, key, path string
		closed             bool // nothing of an app may be in it
	}{
		{"paths", "repositories", s.Paths.Repositories, true}, {"paths", "run", s.Paths.Run, true}, {"paths", "logs", s.Paths.Logs, true},
		{"paths", "apps_enabled", s.Paths.AppsEnabled, true}, {"paths", "configuration", s.Paths.Configuration, false},
		{"paths", "data", s.Paths.Data, false}, {"paths", "instances", s.Paths.Instances, false},
		{"paths", "configuration", filepath.Join(s.Paths.Configuration, "keys"), true},
		{"server", "host_key", s.Server.HostKey, true}, {"server", "authorized_keys", s.Server.AuthorizedKeys, true},
	} {
		rel := p.relation(newLocation(d.key, d.path, Origin{}))
		if rel == "" || rel == "inside" && !d.closed {
			continue
		}
		return fmt.Sprintf("%q is %s [%s] %s, %q (%s)", p.shown(), rel, d.section, d.key, d.path, s.Origin(d.section, d.key)), own
	}
	// The site's files say who may do what.
	for _, f := range s.Files {
		if p.relation(newLocation("", f, Origin{})) != "" {
			return fmt.Sprintf("%q has the site file %q in it", p.shown(), f), own
		}
	}
	// What scotch keeps beside the instances.
	rest, _ := strings.CutPrefix(p.path, filepath.Join(s.Paths.Instances, app)+"/")
	first, _, _ := strings.Cut(rest, "/")
	if rest != p.path && slices.Contains([]string{Current, "releases", "stopped", ".src", ".venvs", ".cache", "destroying.json"}, first) && p.path != filepath.Join(s.Paths.Instances, app, ".venvs", app) {
		return fmt.Sprintf("%q is in %q, which scotch keeps itself", p.shown(), filepath.Join(s.Paths.Instances, app, first)), own
	}
	return "", ""
}

// systemDir tells whether a path is one of systemDirs, or in one that is no
// app's with all that is in it.
func systemDir(path string) bool {
	return slices.ContainsFunc(systemDirs(), func(dir string) bool {
		dir, whole := strings.CutSuffix(dir, "/")
		return path == dir || path == "/" || whole && below(path, dir) && !below(path, "/usr/local")
	})
}

// ownPath takes a directory of the server's own: in it are apps' directories,
// which are made, given to others and removed with all that is in them.
func ownPath(s string) (string, error) {
	p, err := parsePath(s)
	if err == nil && systemDir(p) && !below(p, "/dev/shm") {
		err = fmt.Errorf("%q is the system's own\nname a directory that is scotch's alone, such as /srv/scotch or one below it", p)
	}
	return p, err
}

// systemDirs are no app's: those with a slash behind them with all that is in
// them (https://refspecs.linuxfoundation.org/FHS_3.0/fhs/index.html).
func systemDirs() []string {
	return []string{
		"/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/lib32/", "/lib64/", "/libx32/", "/proc/", "/sbin/", "/sys/", "/usr/",
		"/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var", "/var/cache", "/var/lib",
		"/var/local", "/var/lock", "/var/log", "/var/mail", "/var/opt", "/var/run", "/var/spool", "/var/tmp",
	}
}

// neighbours knows the places of all apps. An app's file is read again only
// when it has changed: with hundreds of apps a deploy looks at each of them.
type neighbours struct {
	mu    sync.Mutex
	known map[string]neighbour
}

type neighbour struct {
	name   string
	file   stamp
	user   string
	places []location
}

// stamp tells whether a file is still the one that was read.
type stamp struct {
	path string
	size int64
	when time.Time
	info fs.FileInfo
}

func (a stamp) same(b stamp) bool {
	return a.info != nil && a.path == b.path && a.size == b.size && a.when.Equal(b.when) && os.SameFile(a.info, b.info)
}

// ReadApps reads what a deploy compares an app's directories with, the files of
// all apps, so that the first one need not.
func (s *Site) ReadApps() { s.neighbours.all(s) }

// all returns the apps that have a file, sorted by name.
func (n *neighbours) all(s *Site) []neighbour {
	n.mu.Lock()
	defer n.mu.Unlock()
	names, _ := s.Apps() // a file that is no app's has no places
	known := make(map[string]neighbour, len(names))
	list := make([]neighbour, 0, len(names))
	v := over(s.Values)
	for _, name := range names {
		one := n.known[name]
		path := one.file.path // the site's values say it, and do not change
		if path == "" {
			v.set(ref{"app", "name"}, name, Origin{Layer: LayerScotch})
			var err error
			if path, err = v.Get("app", "config"); err != nil {
				continue
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		at := stamp{path, info.Size(), info.ModTime(), info}
		if !one.file.same(at) {
			if one, err = s.neighbour(name, path); err != nil {
				continue
			}
			one.file = at
		}
		known[name] = one
		list = append(list, one)
	}
	n.known = known
	return list
}

// neighbour reads one app's file.
func (s *Site) neighbour(name, path string) (neighbour, error) {
	data, err := readFile(path)
	if err != nil {
		return neighbour{}, err
	}
	d, _ := parse(path, data) // what is wrong is for that app's own deploy to tell
	v := over(s.Values)
	v.set(ref{"app", "name"}, name, Origin{Layer: LayerScotch})
	v.set(ref{"app", "instance_id"}, anyID, Origin{Layer: LayerScotch})
	for _, e := range d.entries {
		if k, known := s.schema.find(ref{e.section, e.key}); known && k.Set <= SetInApp || e.section == defaultSection {
			v.set(ref{e.section, e.key}, e.raw, Origin{Layer: LayerApp, File: path, Line: e.first + 1})
		}
	}
	s.complete(v, name)
	one := neighbour{name: name, places: s.places(v, name)}
	if s.Mode != "standalone" {
		one.user, _, _ = v.Lookup("app", "user")
	}
	return one, nil
}
