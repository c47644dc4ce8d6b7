package python

import (
	"errors"
	"fmt"
	"strings"

	"scotch/deployer"
)

// poetryRoot tells whether the project can be installed itself, for Poetry: it has a
// build system, and the package that it is named for is there.
func poetryRoot(s source, doc document) (module string, there bool) {
	name, _ := doc.text("project", "name")
	if name == "" {
		name, _ = doc.text("tool", "poetry", "name")
	}
	module = strings.ReplaceAll(normal(name), "-", "_")
	there = doc.has("tool", "poetry", "packages") || doc.has("tool", "poetry", "include")
	for _, dir := range []string{"", "src/"} {
		there = there || module != "" && (s.isDir(dir+module) || s.isFile(dir+module+".py"))
	}
	return module, there
}

// notPackaged tells whether [tool.poetry] says that the project is no package.
func notPackaged(doc document) bool {
	mode, ok := doc.at("tool", "poetry", "package-mode").(bool)
	return ok && !mode
}

// needsPoetryLock refuses a project of Poetry's that has no lock and can't be installed
// itself: what it needs would stand nowhere else.
func needsPoetryLock(s source, doc document) error {
	backend, _ := doc.text("build-system", "build-backend")
	switch _, there := poetryRoot(s, doc); {
	case !doc.has("tool", "poetry"), s.isFile("setup.py"):
		return nil
	case !doc.has("build-system") && doc.has("project"):
		return nil // setuptools, which then builds it, reads that
	case notPackaged(doc), !doc.has("build-system"), strings.HasPrefix(backend, "poetry.") && !there:
		return errors.New("poetry.lock is missing, and the project can't be installed by itself\nmake the lock, and push it too: poetry lock")
	}
	return nil
}

// readRoot decides whether the project itself is installed, for Poetry.
func (d *declaration) readRoot(s source, doc document) {
	module, there := poetryRoot(s, doc)
	switch {
	case !doc.has("build-system"):
		return
	case !there:
		d.notes = append(d.notes, fmt.Sprintf("the project itself is not installed: there is no package %q (package-mode = false in [tool.poetry] says that it is none)", deployer.Neutral(module)))
		return
	}
	d.installRoot()
}

func (d *declaration) installRoot() {
	d.root = true
	if d.mutable == "" {
		d.mutable = d.from + " installs the source itself"
	}
}
