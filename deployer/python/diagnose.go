package python

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

var (
	// The words of CPython, the same from 3.6 on.
	noModule = pattern(`^ModuleNotFoundError: No module named '([\w.]+)'`)
	keyError = pattern(`^KeyError: '([A-Za-z_][A-Za-z0-9_]*)'$`)
	environ  = pattern(`\benviron\b|<frozen os>|/os\.py"`)
	// Those of python-decouple and django-environ.
	unsetVariable = pattern(`UndefinedValueError: (\w+) not found|ImproperlyConfigured: Set the (\w+) environment variable`)
	// An ASGI app that is called as PEP 3333 has it, with two arguments.
	noSend = pattern(`^TypeError: \S+\(\) missing (1 required positional argument: |2 required positional arguments: 'receive' and )'send'$`)
	// Those of SQLite, PostgreSQL and MySQL, by way of Django.
	noTable = pattern(`OperationalError: no such table: |ProgrammingError: relation "\S+" does not exist|ProgrammingError: \(1146, `)
	// What Flask (Werkzeug), Bottle and Django say when their own server runs, or can't.
	ownServer = pattern(`^ ?\* (Running on http|Serving Flask app)|^Bottle v\S+ server starting|^Listening on http://|^Port \d+ is in use by another program|^Starting development server at http`)
)

// Diagnose implements deployer.Diagnoser.
func (t *Toolchain) Diagnose(f deployer.Failure) string {
	// The last exception is the one that ended it.
	for i := len(f.Lines) - 1; i >= 0; i-- {
		l := strings.TrimSpace(f.Lines[i])
		if m := noModule().FindStringSubmatch(l); m != nil {
			return missingModule(f, m[1])
		}
		if noSend().MatchString(l) {
			return asgiError(f.EntryPoint.String()).Error()
		}
		if f.EntryPoint.Framework == "Django" && noTable().MatchString(l) {
			return fmt.Sprintf("its database lacks a table: have each release make them, in scotch.cfg, and %s:\n  [app]\n  release = python manage.py migrate --noinput", f.Again)
		}
		name := ""
		if m := keyError().FindStringSubmatch(l); m != nil && slices.ContainsFunc(f.Lines[max(0, i-6):i], environ().MatchString) {
			name = m[1]
		} else if m := unsetVariable().FindStringSubmatch(l); m != nil {
			name = m[1] + m[2]
		}
		if name != "" {
			return fmt.Sprintf("the app wants the variable %s: %s env %s set %s=VALUE\nthen %s", name, f.SSH, f.App, name, f.Again)
		}
	}
	if slices.ContainsFunc(f.Lines, ownServer().MatchString) {
		return "it starts a server of its own while it is imported, such as by app.run(): put that below this line, and " + f.Again + ":\n  if __name__ == \"__main__\":"
	}
	return ""
}

// missingModule is the next step where an import finds no module.
func missingModule(f deployer.Failure, module string) string {
	name := first(module)
	if name == "encodings" { // Python's own library is not where the virtualenv says
		return damaged(f)
	}
	s, err := openSource(f.Source)
	if err == nil {
		defer s.Close()
	}
	finder := finder{s: s, app: f.App}
	// Where the entry point's own module is not found, nothing of the app has run.
	wrong := err == nil && (f.EntryPoint.Module == module || strings.HasPrefix(f.EntryPoint.Module, module+"."))
	if wrong {
		_, there := finder.moduleFile(f.EntryPoint.Module)
		wrong = !there
	}
	if err == nil && !wrong {
		if _, ok := finder.moduleFile(name); ok || s.isDir(name) {
			return "" // a part of the app: the traceback says it
		}
	}
	for _, p := range f.Packages {
		project, _, _ := strings.Cut(p, "==")
		project, _, _ = strings.Cut(project, " @ ")
		if (module == name || !wrong) && normal(project) == normal(name) {
			return fmt.Sprintf("%s was installed, and the virtualenv lacks it now\n%s", p, damaged(f))
		}
	}
	if wrong {
		return finder.wrongModule(f)
	}
	if f.Dependencies == "" {
		return fmt.Sprintf("no dependencies are declared; if %q is of a package, name that in a requirements.txt or pyproject.toml and %s", name, f.Again)
	}
	return fmt.Sprintf("if %q is of a package, %s has to name that too; mend it and %s", name, f.Dependencies, f.Again)
}

// wrongModule is the next step where the entry point's module is nowhere.
func (f *finder) wrongModule(failed deployer.Failure) string {
	e := failed.EntryPoint
	names := fmt.Sprintf("%s names the module %q, ", e.From, e.Module)
	if e.From == "" {
		names = fmt.Sprintf("the entry point's module is %q, ", e.Module)
	}
	if module, file := f.nearModule(e.Module); module != "" {
		e.Module = module
		return fmt.Sprintf("%sand the source has %s: write %s, and %s", names, file, e, failed.Again)
	}
	next := names + "which is neither in the source nor installed"
	declared := failed.Dependencies
	if declared == "" {
		declared = "a requirements.txt or pyproject.toml"
	}
	return fmt.Sprintf("%s\nif it is of a package, %s has to name that; mend it and %s", next, declared, failed.Again)
}

// nearModule is the module of the source that is spelled most alike: one part of
// its name is another, and there is such a file. "" where there is none. Names of files
// are looked at and no file is read: this is in the server itself.
func (f *finder) nearModule(module string) (near, file string) {
	parts := strings.Split(module, ".")
	for _, root := range f.roots() {
		dir := root
		for i, part := range parts {
			var names []string
			for _, entry := range f.s.list(dir) {
				name := strings.TrimSuffix(entry.Name(), ".py")
				if len(names) < maxLooked && max(len(name)-len(part), len(part)-len(name)) <= 2 && identifier().MatchString(name) && (name != entry.Name() || f.s.isDir(path.Join(dir, name))) {
					names = append(names, name)
				}
			}
			if slices.Contains(names, part) {
				dir = path.Join(dir, part)
				continue
			}
			if name := config.Nearest(part, names); name != "" {
				near = strings.Join(slices.Concat(parts[:i], []string{name}, parts[i+1:]), ".")
				if file, ok := f.moduleFile(near); ok {
					return near, file
				}
			}
			break
		}
	}
	return "", ""
}

func damaged(f deployer.Failure) string {
	if f.Deploy {
		return fmt.Sprintf("this makes the virtualenv anew: git push -o clean, or %s deploy %s --clean", f.SSH, f.App)
	}
	return fmt.Sprintf("this makes the virtualenv anew: %s rebuild %s", f.SSH, f.App)
}
