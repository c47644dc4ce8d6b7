package python

import (
	"fmt"
	"slices"
	"strings"

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
	// What Flask (Werkzeug), Bottle and Django say when their own server runs, or can't.
	ownServer = pattern(`^ ?\* (Running on http|Serving Flask app)|^Bottle v\S+ server starting|^Listening on http://|^Port \d+ is in use by another program|^Starting development server at http`)
)

// Diagnose implements deployer.Diagnoser.
func (t *Toolchain) Diagnose(f deployer.Failure) string {
	// The last exception is the one that ended it.
	for i := len(f.Lines) - 1; i >= 0; i-- {
		l := strings.TrimSpace(f.Lines[i])
		if m := noModule().FindStringSubmatch(l); m != nil {
			return missingModule(f, first(m[1]))
		}
		if noSend().MatchString(l) {
			return asgiError(f.EntryPoint.String()).Error()
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
func missingModule(f deployer.Failure, name string) string {
	if name == "encodings" { // Python's own library is not where the virtualenv says
		return damaged(f)
	}
	if s, err := openSource(f.Source); err == nil {
		defer s.Close()
		finder := finder{s: s}
		if _, ok := finder.moduleFile(name); ok || s.isDir(name) {
			return "" // a part of the app: the traceback says it
		}
	}
	for _, p := range f.Packages {
		project, _, _ := strings.Cut(p, "==")
		project, _, _ = strings.Cut(project, " @ ")
		if normal(project) == normal(name) {
			return fmt.Sprintf("%s was installed, and the virtualenv lacks it now\n%s", p, damaged(f))
		}
	}
	if f.Dependencies == "" {
		return fmt.Sprintf("no dependencies are declared; if %q is of a package, name that in a requirements.txt or pyproject.toml and %s", name, f.Again)
	}
	return fmt.Sprintf("if %q is of a package, %s has to name that too; mend it and %s", name, f.Dependencies, f.Again)
}

func damaged(f deployer.Failure) string {
	if f.Deploy {
		return fmt.Sprintf("this makes the virtualenv anew: git push -o clean, or %s deploy %s --clean", f.SSH, f.App)
	}
	return fmt.Sprintf("this makes the virtualenv anew: %s rebuild %s", f.SSH, f.App)
}
