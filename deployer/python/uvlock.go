package python

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// uvLock is of uv.lock what tells whether it is of this pyproject.toml
// (https://docs.astral.sh/uv/concepts/projects/layout/#the-lockfile).
type uvLock struct {
	Package []uvPackage `toml:"package"`
}

type uvPackage struct {
	Name         string         `toml:"name"`
	Source       map[string]any `toml:"source"`
	Dependencies []struct {
		Name string `toml:"name"`
	} `toml:"dependencies"`
	Metadata *struct {
		RequiresDist []uvRequirement `toml:"requires-dist"`
	} `toml:"metadata"`
}

type uvRequirement struct {
	Name      string   `toml:"name"`
	Extras    []string `toml:"extras"`
	Marker    string   `toml:"marker"`
	Specifier string   `toml:"specifier"`
}

var errStaleUVLock = errors.New("uv.lock: pyproject.toml changed after it was locked\nlock again and push the result: uv lock")

// checkUVLock refuses a lock that "uv sync --locked" would refuse too, because the
// project's dependencies are others now: --frozen installs it without a word. It
// asks no index, and lets pass what only uv's resolver could judge.
func checkUVLock(pyproject, lock []byte) error {
	doc, err := parseTOML("pyproject.toml", pyproject)
	if err != nil {
		return err
	}
	var l uvLock
	if err := readTOML("uv.lock", lock, &l); err != nil {
		return err
	}
	name, _ := doc.text("project", "name")
	if name == "" || slices.Contains(doc.texts("project", "dynamic"), "dependencies") {
		return nil
	}
	own := normal(name)
	i := slices.IndexFunc(l.Package, func(p uvPackage) bool {
		if normal(p.Name) != own {
			return false
		}
		for _, k := range []string{"virtual", "editable", "directory"} {
			if p.Source[k] == "." {
				return true
			}
		}
		return false
	})
	if i < 0 {
		return nil // uv says itself what it thinks of that
	}
	p, needs := l.Package[i], doc.texts("project", "dependencies")
	if p.Metadata == nil {
		return checkUVNames(p, needs)
	}
	want, have := map[string]*uvNeed{}, map[string]*uvNeed{}
	for _, n := range needs {
		if !readUVNeed(want, n) {
			return nil
		}
	}
	for _, q := range p.Metadata.RequiresDist {
		if strings.Contains(q.Marker, "extra") {
			continue // of an extra: it is not installed
		}
		u := need(have, q.Name)
		u.add(q.Extras, q.Specifier)
	}
	if want[normal(name)] != nil || have[normal(name)] != nil {
		return nil // it asks for an extra of its own
	}
	others := elsewhere(doc)
	for n, w := range want {
		h := have[n]
		switch {
		case h == nil && w.marked:
			// uv may leave out what no Python of the project's needs.
		case h == nil:
			return errStaleUVLock
		case w.marked || others[n]:
		case !maps.Equal(w.extras, h.extras), w.known && h.known && !maps.Equal(w.clauses, h.clauses):
			return errStaleUVLock
		}
	}
	for n := range have {
		if want[n] == nil {
			return errStaleUVLock
		}
	}
	return nil
}

// checkUVNames is for a lock without the metadata: uv leaves it out where nothing
// is needed, and so did the first versions of it always.
func checkUVNames(p uvPackage, needs []string) error {
	locked := map[string]bool{}
	for _, d := range p.Dependencies {
		locked[normal(d.Name)] = true
	}
	own := normal(p.Name)
	for _, n := range needs {
		name := normal(namePattern().FindString(n))
		if !strings.Contains(n, ";") && name != "" && name != own && !locked[name] {
			return errStaleUVLock
		}
	}
	return nil
}

// elsewhere are the packages of which [tool.uv.sources] says where they are from.
func elsewhere(doc document) map[string]bool {
	all := map[string]bool{}
	for n := range doc.table("tool", "uv", "sources") {
		all[normal(n)] = true
	}
	return all
}

// uvNeed is all that is asked of one package.
type uvNeed struct {
	extras  map[string]bool
	clauses map[string]bool
	known   bool // the clauses can be compared
	marked  bool
}

func need(in map[string]*uvNeed, name string) *uvNeed {
	name = normal(name)
	if in[name] == nil {
		in[name] = &uvNeed{extras: map[string]bool{}, clauses: map[string]bool{}, known: true}
	}
	return in[name]
}

var (
	needPattern  = pattern(`^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?\s*(@.*|\(?[^;@()]*\)?)\s*(;.*)?$`)
	plainClause  = pattern(`^(~=|===|==|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?$`)
	leadingZeros = pattern(`(^|\.)0+(\d)`)
)

// readUVNeed adds a requirement, unless it can't be read.
func readUVNeed(in map[string]*uvNeed, text string) bool {
	m := needPattern().FindStringSubmatch(text)
	if m == nil {
		return false
	}
	u := need(in, m[1])
	u.marked = u.marked || m[4] != ""
	u.known = u.known && !strings.HasPrefix(m[3], "@")
	u.add(strings.Split(m[2], ","), strings.Trim(strings.TrimSpace(m[3]), "()"))
	return true
}

func (u *uvNeed) add(extras []string, specifier string) {
	for _, e := range extras {
		if e = strings.TrimSpace(e); e != "" {
			u.extras[normal(e)] = true
		}
	}
	for c := range strings.SplitSeq(specifier, ",") {
		if c = strings.TrimSpace(c); c == "" {
			continue
		}
		m := plainClause().FindStringSubmatch(c)
		if m == nil {
			u.known = false // 1.0-rc.1 has many spellings
			continue
		}
		v := leadingZeros().ReplaceAllString(m[2], "$1$2")
		for m[1] != "~=" && m[3] == "" && strings.HasSuffix(v, ".0") {
			v = strings.TrimSuffix(v, ".0")
		}
		u.clauses[m[1]+v+m[3]] = true
	}
}
