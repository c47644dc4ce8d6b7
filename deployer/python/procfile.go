package python

import (
	"path"
	"strings"

	"scotch/deployer"
)

var (
	webLine    = pattern(`(?m)^web\s*:\s*(.+)$`)
	moduleName = pattern(`^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$`)
)

// fromProcfile is where an entry point of a Procfile comes from.
const fromProcfile = "detected: Procfile"

// procfile reads the web line of a Procfile. A line that it does not
// understand is passed over: other rules may do.
func (f *finder) procfile() (deployer.EntryPoint, bool, error) {
	text, ok := f.s.text("Procfile")
	if !ok {
		return deployer.EntryPoint{}, false, nil
	}
	m := webLine().FindStringSubmatch(text)
	if m == nil {
		return deployer.EntryPoint{}, false, nil
	}
	words := strings.Fields(m[1])
	for i, w := range words {
		words[i] = strings.Trim(w, `"'`)
	}
	for i, w := range words {
		switch path.Base(w) {
		case "gunicorn":
			return f.gunicorn(words[i+1:])
		case "uwsgi":
			return f.uwsgi(words[i+1:])
		}
	}
	return deployer.EntryPoint{}, false, nil
}

func (f *finder) gunicorn(args []string) (deployer.EntryPoint, bool, error) {
	for i, a := range args {
		if strings.HasPrefix(a, "--chdir") {
			return deployer.EntryPoint{}, false, nil // its modules are not at the top
		}
		if (a == "-k" || a == "--worker-class") && i+1 < len(args) && strings.Contains(args[i+1], "uvicorn") || strings.HasPrefix(a, "--worker-class=uvicorn") {
			f.asgi = "what the Procfile starts"
			return deployer.EntryPoint{}, false, nil
		}
	}
	for _, a := range args {
		if m := entryPattern().FindStringSubmatch(a); m != nil {
			return f.procfileEntry(m[1], m[2], m[3] != ""), true, nil
		}
	}
	// A module alone means its "application". A value of an option can look
	// like one too (gevent), so it must be in the source.
	for i := len(args) - 1; i >= 0; i-- {
		if moduleName().MatchString(args[i]) {
			if _, ok := f.moduleFile(args[i]); ok {
				return f.procfileEntry(args[i], "application", false), true, nil
			}
		}
	}
	return deployer.EntryPoint{}, false, nil
}

// uwsgi reads the options of https://uwsgi-docs.readthedocs.io/en/latest/Options.html
// that name an app.
func (f *finder) uwsgi(args []string) (deployer.EntryPoint, bool, error) {
	option := func(names ...string) string {
		for i, a := range args {
			for _, n := range names {
				if v, ok := strings.CutPrefix(a, n+"="); ok {
					return v
				}
				if a == n && i+1 < len(args) {
					return args[i+1]
				}
			}
		}
		return ""
	}
	module, callable := option("--module", "--wsgi", "-w"), option("--callable")
	if file, ok := strings.CutSuffix(option("--wsgi-file", "--file"), ".py"); ok && module == "" {
		module = strings.ReplaceAll(path.Clean(file), "/", ".")
	}
	if m := entryPattern().FindStringSubmatch(module); m != nil {
		return f.procfileEntry(m[1], m[2], m[3] != ""), true, nil
	}
	if callable == "" {
		callable = "application"
	}
	if !moduleName().MatchString(module) || !identifier().MatchString(callable) {
		return deployer.EntryPoint{}, false, nil
	}
	return f.procfileEntry(module, callable, false), true, nil
}

func (f *finder) procfileEntry(module, callable string, factory bool) deployer.EntryPoint {
	return deployer.EntryPoint{Module: module, Callable: callable, Factory: factory, Framework: f.framework(module), Why: fromProcfile, From: "the Procfile's web line"}
}
