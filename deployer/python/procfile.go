package python

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"scotch/config"
	"scotch/deployer"
)

var (
	webLine    = pattern(`(?m)^web\s*:\s*(.+)$`)
	moduleName = pattern(`^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$`)
)

// fromProcfile is where an entry point of a Procfile comes from.
const fromProcfile = "detected: Procfile"

// web is the web line of a Procfile.
type web struct {
	line   string
	server string   // that scotch knows, "" for anything else
	args   []string // of the server
	before []string // what stands before it
}

// asgiServers run apps that scotch does not.
var asgiServers = [...]string{"uvicorn", "hypercorn", "daphne"}

// web reads the web line, nothing where there is none.
func (f *finder) web() (w web, ok bool) {
	text, ok := f.s.text("Procfile")
	if !ok {
		return web{}, false
	}
	m := webLine().FindStringSubmatch(text)
	if m == nil {
		return web{}, false
	}
	w.line = strings.TrimSpace(m[1])
	words := strings.Fields(w.line)
	for i, word := range words {
		words[i] = strings.Trim(word, `"'`)
	}
	for i, word := range words {
		if name := path.Base(word); name == "gunicorn" || name == "uwsgi" || slices.Contains(asgiServers[:], name) {
			w.server, w.args, w.before = name, words[i+1:], words[:i]
			break
		}
	}
	return w, true
}

// procfile takes the entry point from the web line of a Procfile. A line that it does not
// understand is passed over: other rules may do.
func (f *finder) procfile() (deployer.EntryPoint, bool, error) {
	w, _ := f.web()
	switch {
	case slices.Contains(w.before, "cd") && w.server != "":
		// Which module is meant depends on a directory that nobody goes to here.
	case w.server == "gunicorn":
		return f.gunicorn(w.args)
	case w.server == "uwsgi":
		return f.uwsgi(w.args)
	case w.server != "":
		f.asgi = "what the Procfile starts"
	}
	return deployer.EntryPoint{}, false, nil
}

// passedOver says why no entry point was taken from a web line.
func (w web) passedOver() string {
	line := []rune(w.line)
	if len(line) > 60 {
		line = append(line[:59], '…')
	}
	why := "starts no Python server that scotch knows (gunicorn, uwsgi)"
	switch {
	case slices.Contains(w.before, "cd"):
		why = "changes its directory first, which is [app] root here"
	case slices.Contains(asgiServers[:], w.server), w.server == "gunicorn" && workerASGI(w.args):
		why = "starts an ASGI server, and scotch runs WSGI apps"
	case w.server != "":
		why = "names no module that scotch can tell"
	}
	return fmt.Sprintf("the Procfile's web line, %q, %s", string(line), why)
}

// keyOf is the key of [app] that says the same as an option of a server, "" for none
// (https://docs.gunicorn.org/en/stable/settings.html).
func keyOf(server, option string) string {
	switch server + " " + option {
	case "gunicorn -w", "gunicorn --workers", "uwsgi -p", "uwsgi --processes", "uwsgi --workers":
		return "workers"
	case "gunicorn --threads", "uwsgi --threads":
		return "threads"
	case "gunicorn -t", "gunicorn --timeout", "uwsgi -t", "uwsgi --harakiri":
		return "timeout"
	}
	return ""
}

// adviseWeb tells what of a web line has no effect.
func (f *finder) adviseWeb(app *config.App, e deployer.EntryPoint) []string {
	w, ok := f.web()
	switch {
	case !ok || app.EntryPoint != "":
		return nil
	case e.Why != fromProcfile:
		return []string{fmt.Sprintf("%s; what runs is %s (%s)", w.passedOver(), e, e.Why)}
	}
	now := map[string]string{"workers": strconv.Itoa(app.Workers), "threads": strconv.Itoa(app.Threads), "timeout": strconv.Itoa(int(app.Timeout / time.Second))}
	var unused, keys []string
	for _, word := range w.before {
		if !slices.Contains([]string{"exec", "env", "python", "python3", "-m", "poetry", "pipenv", "uv", "run", "&&"}, word) {
			unused = append(unused, word)
		}
	}
	for i, a := range w.args {
		name, value, _ := strings.Cut(a, "=")
		if len(a) < 2 || a[0] != '-' || w.server == "uwsgi" && slices.Contains(uwsgiModule[:], name) {
			continue
		}
		switch {
		case a[1] != '-' && len(a) > 2: // -w4
			name, value = a[:2], a[2:]
		case value == "" && i+1 < len(w.args):
			value = w.args[i+1]
		}
		key := keyOf(w.server, name)
		if key != "" && value == now[key] {
			continue
		}
		unused = append(unused, name)
		if n, err := strconv.Atoi(value); err != nil || n < 1 {
			value = "NUMBER"
		}
		if key != "" {
			keys = append(keys, "  "+key+" = "+value)
		}
	}
	if len(unused) == 0 {
		return nil
	}
	note := "of the Procfile's web line the entry point is used, and uWSGI runs it; not used: " + strings.Join(unused, ", ")
	if len(keys) > 0 {
		note += "\nwhat says the same, in apps-enabled/" + app.Name + ".cfg on the server:\n  [app]\n" + strings.Join(keys, "\n")
	}
	return []string{note}
}

// workerASGI tells whether gunicorn is to run ASGI apps.
func workerASGI(args []string) bool {
	for i, a := range args {
		if (a == "-k" || a == "--worker-class") && i+1 < len(args) && strings.Contains(args[i+1], "uvicorn") || strings.HasPrefix(a, "--worker-class=uvicorn") {
			return true
		}
	}
	return false
}

func (f *finder) gunicorn(args []string) (deployer.EntryPoint, bool, error) {
	for _, a := range args {
		if strings.HasPrefix(a, "--chdir") {
			return deployer.EntryPoint{}, false, nil // its modules are not at the top
		}
	}
	if workerASGI(args) {
		f.asgi = "what the Procfile starts"
		return deployer.EntryPoint{}, false, nil
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

// uwsgiModule are the options of uwsgi that name an app.
var uwsgiModule = [...]string{"--module", "--wsgi", "-w", "--wsgi-file", "--file", "--callable"}

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
