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

// pdmLock is pdm.lock, lock_version 4.x
// (https://pdm-project.org/en/latest/usage/lockfile/).
type pdmLock struct {
	Metadata struct {
		LockVersion string   `toml:"lock_version"`
		ContentHash string   `toml:"content_hash"`
		Strategy    []string `toml:"strategy"`
		Groups      []string `toml:"groups"`
	} `toml:"metadata"`
	Package []*pdmPackage `toml:"package"`
}

type pdmPackage struct {
	Name         string       `toml:"name"`
	Version      string       `toml:"version"`
	Extras       []string     `toml:"extras"`
	Groups       []string     `toml:"groups"`
	Marker       string       `toml:"marker"`
	Dependencies []string     `toml:"dependencies"`
	Files        []lockedFile `toml:"files"`
	Git          string       `toml:"git"`
	Hg           string       `toml:"hg"`
	Svn          string       `toml:"svn"`
	Bzr          string       `toml:"bzr"`
	Revision     string       `toml:"revision"`
	Subdirectory string       `toml:"subdirectory"`
	URL          string       `toml:"url"`
	Path         string       `toml:"path"`
}

func (d *declaration) readPDM(s source, app *config.App, in deployer.Interpreter, b []byte) error {
	project, err := s.read("pyproject.toml")
	if err != nil {
		return fmt.Errorf("read what pdm.lock belongs to: %w\npush pyproject.toml too, or remove pdm.lock", err)
	}
	doc, err := parseTOML("pyproject.toml", project)
	if err != nil {
		return err
	}
	var lock pdmLock
	if err := readTOML("pdm.lock", b, &lock); err != nil {
		return err
	}
	if err := pdm.fits(len(lock.Package)); err != nil {
		return err
	}
	v, err := parseVersion(lock.Metadata.LockVersion)
	if err != nil || v.part(0) != 4 {
		return pdm.refuse("its lock_version is %q, and 4.x is known\nlock again: pdm lock; or export it: pdm export --prod -o requirements.txt, and remove pdm.lock", lock.Metadata.LockVersion)
	}
	if g := lock.Metadata.Groups; len(g) > 0 && !slices.Contains(g, "default") {
		return pdm.refuse("it does not lock the group \"default\"\nlock again: pdm lock")
	}
	// "pdm sync" goes on, so do we.
	if want := pdmContent(doc); want != "" && lock.Metadata.ContentHash != "" && lock.Metadata.ContentHash != "sha256:"+want {
		d.notes = append(d.notes, "pdm.lock is older than pyproject.toml, and is what counts: pdm lock makes a new one")
	}
	var chosen []*pdmPackage
	if slices.Contains(lock.Metadata.Strategy, "inherit_metadata") {
		for _, p := range lock.Package {
			if slices.Contains(p.Groups, "default") {
				chosen = append(chosen, p)
			}
		}
	} else {
		w := pdmWalk{lock: &lock, env: markersOf(in), named: map[string][]*pdmPackage{}, left: newEffort(), seen: map[*pdmPackage]bool{}}
		for _, p := range lock.Package {
			key := pdmKey(p.Name, p.Extras)
			w.named[key] = append(w.named[key], p)
		}
		for _, need := range doc.texts("project", "dependencies") {
			if err := w.add(need, nil); err != nil {
				return err
			}
		}
		chosen = w.chosen
	}
	d.lock = &lockfile{name: "pdm.lock"}
	type once struct {
		name, version, local string
		at                   address
	}
	known := map[once]int{}
	hashes := map[string]bool{} // INDEX HASH
	for _, p := range chosen {
		l, err := p.locked(app)
		if err != nil {
			return err
		}
		// A package is there once more for each set of extras.
		key := once{normal(l.name), l.version, l.local, l.at}
		i, there := known[key]
		if !there {
			known[key] = len(d.lock.packages)
			for _, h := range l.hashes {
				hashes[fmt.Sprint(len(d.lock.packages), " ", h)] = true
			}
			d.lock.packages = append(d.lock.packages, l)
			continue
		}
		o := &d.lock.packages[i]
		switch {
		case o.marker == "" || l.marker == "":
			o.marker = ""
		case o.marker != l.marker:
			if o.marker = "(" + o.marker + ") or (" + l.marker + ")"; len(o.marker) > maxMarker {
				return pdm.refuse("the markers of %s have more than %d bytes", l.name, maxMarker)
			}
		}
		for _, h := range l.hashes {
			if id := fmt.Sprint(i, " ", h); !hashes[id] {
				hashes[id] = true
				o.hashes = append(o.hashes, h)
			}
		}
	}
	sources, _ := doc.at("tool", "pdm", "source").([]map[string]any)
	own := false
	for _, t := range sources {
		t := document(t)
		if kind, _ := t.text("type"); kind == "find_links" {
			return pdm.refuse("[[tool.pdm.source]] of type find_links is not supported\nexport it: pdm export --prod -o requirements.txt, and remove pdm.lock")
		}
		name, _ := t.text("name")
		at, _ := t.text("url")
		own = own || name == "pypi"
		d.lock.indexes = append(d.lock.indexes, index{name, at})
	}
	if len(sources) > 0 && !own {
		d.lock.indexes = append([]index{{"pypi", "https://pypi.org/simple"}}, d.lock.indexes...)
	}
	if d.lock.indexes, err = pdm.indexes(d.lock.indexes); err != nil {
		return err
	}
	if is, said := doc.at("tool", "pdm", "distribution").(bool); doc.has("build-system") && (is || !said) {
		d.installRoot()
	}
	return nil
}

func (p *pdmPackage) locked(app *config.App) (locked, error) {
	l := locked{name: p.Name, version: p.Version, marker: p.Marker}
	for _, f := range p.Files {
		l.hashes = append(l.hashes, f.Hash)
	}
	var err error
	for _, v := range []struct{ kind, repo string }{{"git", p.Git}, {"hg", p.Hg}, {"svn", p.Svn}, {"bzr", p.Bzr}} {
		if v.repo != "" && err == nil {
			l.at, err = pdm.commit(p.Name, v.kind, v.repo, p.Revision, p.Subdirectory)
		}
	}
	switch {
	case err != nil:
	case p.URL != "":
		l.at, err = pdm.archive(p.Name, p.URL, p.Subdirectory)
	case p.Path != "":
		l.local, err = pdm.path(app, p.Name, p.Path)
	}
	return l, err
}

// pdmWalk finds the packages of the default group in a lock that does not say.
type pdmWalk struct {
	lock   *pdmLock
	env    markerEnv
	named  map[string][]*pdmPackage // by pdmKey
	left   effort
	seen   map[*pdmPackage]bool
	chosen []*pdmPackage
}

// pdmKey is a package's name with the extras that it stands for.
func pdmKey(name string, extras []string) string {
	all := make([]string, 0, len(extras))
	for _, e := range extras {
		all = append(all, normal(e))
	}
	slices.Sort(all)
	return normal(name) + "[" + strings.Join(all, ",") + "]"
}

// add takes a PEP 508 requirement of a package that was asked for with extras.
func (w *pdmWalk) add(need string, extras []string) error {
	if err := w.left.spend(pdm, len(need), len(extras)); err != nil {
		return err
	}
	name := namePattern().FindString(strings.TrimSpace(need))
	text, marker, _ := strings.Cut(need, ";")
	if strings.Contains(text, "://") { // a ";" of an address has no space before it
		text, marker, _ = strings.Cut(need, " ;")
	}
	if ok, err := w.env.allows(marker, extras...); err != nil {
		return pdm.refuse("%s: %v", name, err)
	} else if !ok {
		return nil
	}
	var asked []string
	if m := extrasPattern().FindStringSubmatch(text); m != nil {
		for e := range strings.SplitSeq(m[1], ",") {
			if e = normal(strings.TrimSpace(e)); e != "" {
				asked = append(asked, e)
			}
		}
	}
	slices.Sort(asked)
	found := w.named[pdmKey(name, asked)]
	if len(found) != 1 {
		return pdm.refuse("it has %d versions of %s, and does not say which is for Python %s\nlock again with what each package is for: pdm lock -S inherit_metadata", len(found), strings.TrimSpace(text), w.env["python_version"])
	}
	if w.seen[found[0]] {
		return nil
	}
	w.seen[found[0]] = true
	w.chosen = append(w.chosen, found[0])
	for _, d := range found[0].Dependencies {
		if err := w.add(d, asked); err != nil {
			return err
		}
	}
	return nil
}

// pdmContent is the hash that pdm takes of a pyproject.toml (PyProject.content_hash);
// "" for a workspace, where other files count too.
func pdmContent(doc document) string {
	if doc.has("tool", "pdm", "workspace") {
		return ""
	}
	or := func(empty any, path ...string) any {
		if v := doc.at(path...); v != nil {
			return v
		}
		return empty
	}
	dev := map[string]any{}
	for _, path := range [][]string{{"dependency-groups"}, {"tool", "pdm", "dev-dependencies"}} {
		groups := doc.table(path...)
		for _, k := range slices.Sorted(maps.Keys(groups)) {
			name := strings.ToLower(notWord().ReplaceAllString(k, "-"))
			list, _ := groups[k].([]any)
			before, _ := dev[name].([]any)
			dev[name] = slices.Concat(before, list)
		}
	}
	text := pythonJSON(map[string]any{
		"sources":               or([]any{}, "tool", "pdm", "source"),
		"dependencies":          or([]any{}, "project", "dependencies"),
		"dev-dependencies":      dev,
		"optional-dependencies": or(map[string]any{}, "project", "optional-dependencies"),
		"requires-python":       or("", "project", "requires-python"),
		"resolution":            or(map[string]any{}, "tool", "pdm", "resolution"),
	}, ", ", ": ")
	if text == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
