package python

import (
	"path"
	"slices"
	"strings"

	"scotch/deployer"
)

// maxLooked bounds the directories that are looked through where no rule finds
// an entry point.
const maxLooked = 500

// walk calls look for each directory that may hold an app, at most three levels
// down, the nearer ones first. look tells whether to go deeper.
func (f *finder) walk(from []string, look func(dir string) bool) {
	level, looked := from, 0
	for range 3 {
		var next []string
		for _, parent := range level {
			for _, entry := range f.s.list(parent) {
				name, dir := entry.Name(), path.Join(parent, entry.Name())
				// Links are not followed: they could lead round and round.
				if !entry.IsDir() || strings.HasPrefix(name, ".") || slices.Contains(noApp[:], name) {
					continue
				}
				if looked++; looked > maxLooked {
					return
				}
				if look(dir) {
					next = append(next, dir)
				}
			}
		}
		level = next
	}
}

// wide looks for what may be an app in any module of the packages.
func (f *finder) wide() []deployer.EntryPoint {
	var found []deployer.EntryPoint
	for _, root := range f.roots() {
		f.walk([]string{root}, func(dir string) bool {
			if !identifier().MatchString(path.Base(dir)) || root == "." && !f.s.isFile(dir+"/__init__.py") {
				return false
			}
			rel := strings.TrimPrefix(dir, "src/")
			for _, entry := range f.s.list(dir) {
				name, ok := strings.CutSuffix(entry.Name(), ".py")
				if !ok || !identifier().MatchString(name) || strings.HasPrefix(name, "test_") {
					continue
				}
				text, _ := f.s.text(path.Join(dir, entry.Name()))
				module := strings.ReplaceAll(rel, "/", ".")
				if name != "__init__" {
					module += "." + name
				}
				found = append(found, f.callables(module, parseModule(text))...)
			}
			return true
		})
	}
	return found
}

// below finds the directories that hold an app of their own, as those of a
// repository with several projects do: candidates for [app] root.
func (f *finder) below() []string {
	var found []string
	f.walk([]string{"."}, func(dir string) bool {
		if f.s.isFile(dir + "/__init__.py") {
			return false // a package: its modules are imported from above
		}
		sub, err := f.s.OpenRoot(dir)
		if err != nil {
			return false
		}
		inner := finder{s: source{sub}, app: f.app}
		defer inner.s.Close()
		for _, look := range []func() (deployer.EntryPoint, bool, error){inner.django, inner.rootFiles} {
			if _, ok, _ := look(); ok {
				found = append(found, dir)
				return false
			}
		}
		return true
	})
	return found[:min(len(found), 5)]
}
