package python

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// poetryLock is poetry.lock, of Poetry 1.1 (lock-version 1.1) to 2.x (2.1):
// https://github.com/python-poetry/poetry/blob/main/src/poetry/packages/locker.py
type poetryLock struct {
	Package  []*poetryPackage `toml:"package"`
	Metadata struct {
		LockVersion string                  `toml:"lock-version"`
		ContentHash string                  `toml:"content-hash"`
		Files       map[string][]lockedFile `toml:"files"` // of lock-version 1.1
	} `toml:"metadata"`
}

type lockedFile struct {
	File string `toml:"file"`
	URL  string `toml:"url"` // of pdm
	Hash string `toml:"hash"`
}

type poetryPackage struct {
	Name         string              `toml:"name"`
	Version      string              `toml:"version"`
	Groups       []string            `toml:"groups"`  // from 2.1 on
	Markers      any                 `toml:"markers"` // a string, or a table by group; from 2.1 on
	Files        []lockedFile        `toml:"files"`   // from 2.0 on
	Dependencies map[string]any      `toml:"dependencies"`
	Extras       map[string][]string `toml:"extras"`
	Source       struct {
		Type              string `toml:"type"`
		URL               string `toml:"url"`
		Reference         string `toml:"reference"`
		ResolvedReference string `toml:"resolved_reference"`
		Subdirectory      string `toml:"subdirectory"`
	} `toml:"source"`
}

func (d *declaration) readPoetry(s source, app *config.App, in deployer.Interpreter, b []byte) error {
	project, err := s.read("pyproject.toml")
	if err != nil {
		return fmt.Errorf("read what poetry.lock belongs to: %w\npush pyproject.toml too, or remove poetry.lock", err)
	}
	doc, err := parseTOML("pyproject.toml", project)
	if err != nil {
		return err
	}
	var lock poetryLock
	if err := readTOML("poetry.lock", b, &lock); err != nil {
		return err
	}
	if err := poetry.fits(len(lock.Package)); err != nil {
		return err
	}
	// Refused as by "poetry install".
	if h := lock.Metadata.ContentHash; h != "" && !freshForPoetry(doc, h) {
		return poetry.refuse("pyproject.toml changed after it was locked\nlock again and push the result: poetry lock")
	}
	var chosen []*poetryPackage
	v, err := parseVersion(lock.Metadata.LockVersion)
	switch {
	case err != nil || v.part(0) < 1 || v.part(0) > 2:
		return poetry.refuse("its lock-version is %q, and 1.1 to 2.1 are known\nlock again: poetry lock; or export it: poetry export -o requirements.txt, and remove poetry.lock", lock.Metadata.LockVersion)
	case v.compare(version{release: []int{2, 1}}) >= 0:
		for _, p := range lock.Package {
			if slices.Contains(p.Groups, "main") {
				chosen = append(chosen, p)
			}
		}
	default:
		// Older ones say of no package whether it is needed: that is found by
		// going through what each needs, as poetry does.
		w := poetryWalk{lock: &lock, env: markersOf(in), seen: map[string]bool{}, named: map[string][]*poetryPackage{}, left: newEffort()}
		for _, p := range lock.Package {
			w.named[normal(p.Name)] = append(w.named[normal(p.Name)], p)
		}
		if err := w.follow(doc.table("tool", "poetry", "dependencies"), nil, nil); err != nil {
			return err
		}
		chosen = w.chosen
	}
	d.lock = &lockfile{name: "poetry.lock"}
	var public bool
	for _, p := range chosen {
		l, err := p.locked(app, &lock)
		if err != nil {
			return err
		}
		d.lock.packages = append(d.lock.packages, l)
		if p.Source.Type == "legacy" {
			d.lock.indexes = append(d.lock.indexes, index{p.Source.Reference, p.Source.URL})
		}
		public = public || p.Source.Type == ""
	}
	if d.lock.indexes, err = poetry.indexes(d.lock.indexes); err != nil {
		return err
	}
	if public && len(d.lock.indexes) > 0 {
		// What no source is named for is from PyPI, and only from there.
		d.lock.indexes = append([]index{{pypi, "https://pypi.org/simple"}}, d.lock.indexes...)
		for i, p := range d.lock.packages {
			if p.index == "" {
				d.lock.packages[i].index = pypi
			}
		}
	}
	if !notPackaged(doc) {
		d.readRoot(s, doc)
	}
	return nil
}

const pypi = "PyPI"

// locked turns a package of the lock into what is installed.
func (p *poetryPackage) locked(app *config.App, lock *poetryLock) (locked, error) {
	l := locked{name: p.Name, version: p.Version}
	switch m := p.Markers.(type) {
	case string:
		l.marker = m
	case map[string]any:
		l.marker, _ = m["main"].(string)
	}
	files := p.Files
	if len(files) == 0 {
		files = lock.Metadata.Files[p.Name]
	}
	for _, f := range files {
		l.hashes = append(l.hashes, f.Hash)
	}
	var err error
	switch src := p.Source; src.Type {
	case "":
	case "legacy":
		l.index = src.Reference
	case "git":
		commit := src.ResolvedReference
		if commit == "" {
			commit = src.Reference
		}
		l.at, err = poetry.commit(p.Name, "git", src.URL, commit, src.Subdirectory)
	case "url":
		l.at, err = poetry.archive(p.Name, src.URL, src.Subdirectory)
	case "directory", "file":
		l.local, err = poetry.path(app, p.Name, src.URL)
	default:
		err = poetry.refuse("%s is from a source of type %q, which is not known here\nexport it: poetry export -o requirements.txt, and remove poetry.lock", p.Name, src.Type)
	}
	return l, err
}

// poetryWalk finds the packages of the main group in a lock that does not say.
type poetryWalk struct {
	lock   *poetryLock
	env    markerEnv
	named  map[string][]*poetryPackage
	left   effort
	seen   map[string]bool // NAME[EXTRA], and NAME[
	chosen []*poetryPackage
}

// follow goes through a table of dependencies, of the project or of a package
// that was asked for with extras.
func (w *poetryWalk) follow(deps map[string]any, of *poetryPackage, extras []string) error {
	for _, name := range slices.Sorted(maps.Keys(deps)) {
		if name == "python" && of == nil {
			continue
		}
		var all []any
		switch v := deps[name].(type) {
		case []any:
			all = v
		case []map[string]any:
			for _, t := range v {
				all = append(all, t)
			}
		default:
			all = []any{v}
		}
		for _, v := range all {
			t, _ := v.(map[string]any) // else a version
			ok, err := w.wanted(name, document(t), of, extras)
			if err != nil {
				return err
			}
			if ok {
				if err := w.add(name, document(t).texts("extras")); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *poetryWalk) wanted(name string, t document, of *poetryPackage, extras []string) (bool, error) {
	marker, _ := t.text("markers")
	if err := w.left.spend(poetry, len(name)+len(marker), len(extras)); err != nil {
		return false, err
	}
	if optional, _ := t.at("optional").(bool); optional {
		asked := false
		for _, e := range extras {
			for extra, list := range of.Extras {
				if err := w.left.spend(poetry, len(extra)+len(e), len(list)); err != nil {
					return false, err
				}
				if normal(extra) != normal(e) {
					continue
				}
				for _, need := range list {
					asked = asked || normal(namePattern().FindString(need)) == normal(name)
				}
			}
		}
		if !asked {
			return false, nil
		}
	}
	if text, ok := t.text("python"); ok {
		if err := w.left.spend(poetry, len(text), 1); err != nil {
			return false, err
		}
		alternatives, err := parsePoetryVersions(text)
		if err != nil {
			return false, poetry.refuse("%s: python = %q is not understood\nlock again with Poetry 2: poetry lock", name, text)
		}
		v, err := parseVersion(w.env["python_full_version"])
		if err != nil || !anyAllows(alternatives, v) {
			return false, err
		}
	}
	ok, err := w.env.allows(marker, extras...)
	if err != nil {
		return false, poetry.refuse("%s: %v", name, err)
	}
	return ok, nil
}

func (w *poetryWalk) add(name string, extras []string) error {
	found := w.named[normal(name)]
	if len(found) != 1 {
		// Which of several counts depends on Poetry's own resolver.
		return poetry.refuse("it has %d versions of %s, and a lock-version %s does not say which is for Python %s\nlock again with Poetry 2, which does: poetry lock", len(found), name, w.lock.Metadata.LockVersion, w.env["python_version"])
	}
	p := found[0]
	if once := normal(name) + "["; !w.seen[once] {
		w.seen[once] = true
		w.chosen = append(w.chosen, p)
	}
	key := normal(name) + "[" + strings.Join(slices.Sorted(slices.Values(extras)), ",") + "]"
	if w.seen[key] {
		return nil
	}
	w.seen[key] = true
	return w.follow(p.Dependencies, p, extras)
}

// freshForPoetry tells whether a lock belongs to a pyproject.toml, as Poetry's
// Locker.is_fresh does: before 2.3 without dependency-groups.
func freshForPoetry(doc document, hash string) bool {
	for _, groups := range []bool{true, false} {
		text := poetryContent(doc, groups)
		sum := sha256.Sum256([]byte(text))
		if text == "" || hex.EncodeToString(sum[:]) == hash {
			return true
		}
	}
	return false
}

func poetryContent(doc document, withGroups bool) string {
	project := map[string]any{}
	for _, k := range []string{"requires-python", "dependencies", "optional-dependencies"} {
		if v := doc.at("project", k); v != nil {
			project[k] = v
		}
	}
	groups := doc.table("dependency-groups")
	if !withGroups {
		groups = nil
	}
	tool := map[string]any{}
	for _, k := range []string{"dependencies", "source", "extras", "dev-dependencies", "group"} {
		v := doc.at("tool", "poetry", k)
		if v == nil && (k == "group" || len(project) > 0 || len(groups) > 0) {
			continue
		}
		tool[k] = v
	}
	content := map[string]any{}
	if len(project) > 0 {
		content["project"] = project
	}
	if len(groups) > 0 {
		content["dependency-groups"] = groups
	}
	if len(content) == 0 {
		return pythonJSON(tool, ", ", ": ")
	}
	content["tool"] = map[string]any{"poetry": tool}
	return pythonJSON(content, ", ", ": ")
}

var (
	orPattern     = pattern(`\s*\|\|?\s*`)
	poetryClause  = pattern(`(~=|===|==|!=|<=|>=|<|>|\^|~|=)?\s*v?(\d+(?:\.\d+)*)(\.\*)?`)
	poetryLeading = pattern(`^[\s,]*`)
)

// parsePoetryVersions reads versions of Python as Poetry writes them
// (https://python-poetry.org/docs/dependency-specification/): one of the results
// must allow a version.
func parsePoetryVersions(s string) ([]specifier, error) {
	var out []specifier
	for _, part := range orPattern().Split(s, -1) {
		var spec specifier
		rest := strings.TrimSpace(part)
		if rest == "" {
			return nil, fmt.Errorf("%q is no version", s)
		}
		for rest != "" && rest != "*" {
			m := poetryClause().FindStringSubmatchIndex(rest)
			if m == nil || m[0] != 0 {
				return nil, fmt.Errorf("%q is no version", s)
			}
			sub := poetryClause().FindStringSubmatch(rest)
			rest = rest[m[1]:]
			rest = rest[len(poetryLeading().FindString(rest)):]
			v, err := parseVersion(sub[2])
			if err != nil {
				return nil, err
			}
			next := func(at int) version {
				r := slices.Clone(v.release[:at+1])
				r[at]++
				return version{release: r}
			}
			switch op := sub[1]; op {
			case "^":
				at := 0
				for at < len(v.release)-1 && v.release[at] == 0 {
					at++
				}
				spec = append(spec, clause{">=", v, false}, clause{"<", next(at), false})
			case "~":
				spec = append(spec, clause{">=", v, false}, clause{"<", next(min(1, len(v.release)-1)), false})
			case "", "=":
				spec = append(spec, clause{"==", v, sub[3] != ""})
			default:
				if op == "~=" && len(v.release) < 2 {
					return nil, fmt.Errorf("%q is no version", s)
				}
				spec = append(spec, clause{op, v, sub[3] != ""})
			}
		}
		out = append(out, spec)
	}
	return out, nil
}

func anyAllows(list []specifier, v version) bool {
	return slices.ContainsFunc(list, func(s specifier) bool { return s.allows(v) })
}
