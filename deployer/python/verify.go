package python

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// broughtAlong are the modules that are loaded before the first line of an app, by
// every CPython from 3.6 to 3.13 or by uWSGI: an import of one never looks for a file.
var broughtAlong = [...]string{
	"abc", "atexit", "builtins", "codecs", "encodings", "errno", "faulthandler", "gc", "genericpath", "io", "itertools",
	"marshal", "os", "posix", "posixpath", "pwd", "site", "stat", "sys", "time", "uwsgi", "zipimport",
}

func isHidden(module string) bool { return slices.Contains(broughtAlong[:], first(module)) }

func hiddenError(file, module string) error {
	whose := "Python"
	if first(module) == "uwsgi" {
		whose = "uWSGI"
	}
	return fmt.Errorf("%s is hidden by a module of that name that %s brings\nrename it, to web.py for example", file, whose)
}

// late are the words of a module that binds names in ways that can't be read.
var late = pattern(`import\s*\(?\s*\*|\b(globals|locals|vars|exec|eval|setattr|__getattr__)\b`)

// verify refuses an entry point that a file says can't be one, as far as it can be
// told by reading. What it can't tell, the app's own start does. from says who
// named the entry point.
func (f *finder) verify(a *config.App, e deployer.EntryPoint, from string) error {
	name, ok := f.moduleFile(e.Module)
	if isHidden(e.Module) {
		if !ok {
			name = e.Module
		}
		return hiddenError(name, e.Module)
	}
	if !ok {
		return nil // it may be installed
	}
	text, ok := f.s.text(name)
	if !ok {
		return nil
	}
	m := parseModule(text)
	free, isFunction := m.called[e.Callable]
	if what := f.async(name, m, e.Callable, e.Factory); what != "" {
		return asgiError(what)
	}
	switch {
	case isFunction && !free && e.Factory:
		return errors.New(wantsArguments(e.Callable, name))
	case isFunction && free && !e.Factory && slices.Contains(factories[:], e.Callable):
		return fmt.Errorf("%s in %s returns the app, and is not the app itself\nwrite %s:%s(), in %s", e.Callable, name, e.Module, e.Callable, from)
	case a.Build != "", late().MatchString(text), regexp.MustCompile(`\b` + e.Callable + `\b`).MatchString(text):
		return nil
	}
	has := f.callables(e.Module, m)
	if len(has) == 0 {
		has = f.wide()
	}
	next := "write another one, in " + from
	if len(has) > 0 {
		lines := entryLines(has)
		if from == "the Procfile" {
			lines = strings.ReplaceAll(lines, "entry_point = ", "web: gunicorn ")
		}
		next = fmt.Sprintf("what may be meant, in %s:\n%s", from, lines)
	}
	return fmt.Errorf("%s has no %q\n%s", name, e.Callable, next)
}

func asgiError(what string) error {
	return fmt.Errorf("%s is an ASGI app, and scotch runs WSGI apps\nif there is a WSGI app too, %sMODULE:CALLABLE", what, howTo)
}

func wantsArguments(function, file string) string {
	return fmt.Sprintf("%s() in %s takes arguments, which nobody gives\ngive each a default, or call it in a wsgi.py: application = %s(…)", function, file, function)
}

func entryLines(found []deployer.EntryPoint) string {
	var lines []string
	for _, e := range found[:min(len(found), 8)] {
		lines = append(lines, "  entry_point = "+e.String())
	}
	return strings.Join(lines, "\n")
}

// callables are the names of a module that may be apps.
func (f *finder) callables(module string, m module) []deployer.EntryPoint {
	var found []deployer.EntryPoint
	add := func(name string, factory bool) {
		found = append(found, deployer.EntryPoint{Module: module, Callable: name, Factory: factory})
	}
	for _, n := range sortedKeys(m.assigned) {
		v := m.assigned[n]
		if madeApp().MatchString(v) || (n == "app" || n == "application") && !notAnApp().MatchString(v) && !asyncApp().MatchString(v) {
			add(n, false)
		}
	}
	for _, n := range []string{"app", "application"} {
		if free, ok := m.called[n]; ok && !free {
			add(n, false)
		}
	}
	for _, n := range factories {
		if m.called[n] && !asyncApp().MatchString(m.returned[n]) {
			add(n, true)
		}
	}
	return found
}
