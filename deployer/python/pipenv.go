package python

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"scotch/config"
)

// pipfileLock is Pipfile.lock, pipfile-spec 6
// (https://pipenv.pypa.io/en/latest/pipfile.html).
type pipfileLock struct {
	Meta struct {
		Hash    map[string]string `json:"hash"`
		Spec    int               `json:"pipfile-spec"`
		Sources []struct {
			Name   string `json:"name"`
			URL    string `json:"url"`
			Verify *bool  `json:"verify_ssl"`
		} `json:"sources"`
	} `json:"_meta"`
	Default map[string]pipfilePackage `json:"default"`
}

type pipfilePackage struct {
	Version      string   `json:"version"`
	Hashes       []string `json:"hashes"`
	Markers      string   `json:"markers"`
	Index        string   `json:"index"`
	Git          string   `json:"git"`
	Hg           string   `json:"hg"`
	Svn          string   `json:"svn"`
	Bzr          string   `json:"bzr"`
	Ref          string   `json:"ref"`
	Subdirectory string   `json:"subdirectory"`
	File         string   `json:"file"`
	Path         string   `json:"path"`
}

func (d *declaration) readPipenv(s source, app *config.App, b []byte) error {
	var lock pipfileLock
	if err := readJSON("Pipfile.lock", b, &lock); err != nil {
		return err
	}
	if lock.Meta.Spec != 6 {
		return pipenv.refuse("its pipfile-spec is %d, and 6 is known\nlock again: pipenv lock; or export it: pipenv requirements > requirements.txt, and remove Pipfile.lock", lock.Meta.Spec)
	}
	// "pipenv sync" goes on, so do we.
	p, err := s.read("Pipfile")
	if err == nil {
		doc, err := parseTOML("Pipfile", p)
		if err != nil {
			return err
		}
		if want := pipfileContent(doc); want != "" && lock.Meta.Hash["sha256"] != want {
			d.notes = append(d.notes, "Pipfile.lock is older than Pipfile, and is what counts: pipenv lock makes a new one")
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := pipenv.fits(len(lock.Default)); err != nil {
		return err
	}
	d.lock = &lockfile{name: "Pipfile.lock"}
	for _, x := range lock.Meta.Sources {
		if x.Verify != nil && !*x.Verify {
			return pipenv.refuse("the source %q has verify_ssl = false, so anybody on the way could change what is installed\nput its authority's certificate into /usr/local/share/ca-certificates, run update-ca-certificates, and lock again without it", x.Name)
		}
		d.lock.indexes = append(d.lock.indexes, index{x.Name, x.URL})
	}
	if d.lock.indexes, err = pipenv.indexes(d.lock.indexes); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(lock.Default)) {
		l, err := lock.Default[name].locked(app, name)
		if err != nil {
			return err
		}
		if l.index != "" && !d.lock.knows(l.index) {
			return pipenv.refuse("%s is from the index %q, which is none of its sources\nlock again: pipenv lock", name, l.index)
		}
		if l.index == "" && len(d.lock.indexes) > 0 { // pipenv's default is the first
			l.index = d.lock.indexes[0].name
		}
		d.lock.packages = append(d.lock.packages, l)
	}
	return nil
}

func (p pipfilePackage) locked(app *config.App, name string) (locked, error) {
	version, _ := strings.CutPrefix(p.Version, "==")
	l := locked{name: name, version: version, marker: p.Markers, hashes: p.Hashes, index: p.Index}
	var err error
	for _, v := range []struct{ kind, repo string }{{"git", p.Git}, {"hg", p.Hg}, {"svn", p.Svn}, {"bzr", p.Bzr}} {
		if v.repo != "" {
			l.at, err = pipenv.commit(name, v.kind, v.repo, p.Ref, p.Subdirectory)
			return l, err
		}
	}
	switch {
	case strings.Contains(p.File, "://") && !strings.HasPrefix(p.File, "file:"):
		l.at, err = pipenv.archive(name, p.File, p.Subdirectory)
	case p.File != "":
		l.local, err = pipenv.path(app, name, p.File)
	case p.Path != "":
		l.local, err = pipenv.path(app, name, p.Path)
	case version == p.Version:
		err = pipenv.refuse("%s has no exact version: %q\nlock again: pipenv lock", name, p.Version)
	}
	return l, err
}

// pipfileContent is the hash that pipenv takes of a Pipfile (plette's
// Pipfile.get_hash).
func pipfileContent(doc document) string {
	or := func(key string) any {
		if v := doc.at(key); v != nil {
			return v
		}
		return map[string]any{}
	}
	sources := doc.at("source")
	if sources == nil {
		sources = []any{map[string]any{"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": true}}
	}
	data := map[string]any{
		"_meta":   map[string]any{"sources": sources, "requires": or("requires")},
		"default": or("packages"),
		"develop": or("dev-packages"),
	}
	known := []string{"source", "packages", "dev-packages", "requires", "scripts", "pipfile", "pipenv", "default", "develop"}
	for k, v := range doc {
		if !slices.Contains(known, k) {
			data[k] = v
		}
	}
	text := pythonJSON(data, ",", ":")
	if text == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
