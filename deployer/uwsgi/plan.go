package uwsgi

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"scotch/config"
	"scotch/deployer"
)

//go:embed instance.ini app.ini
var templates embed.FS

// What may be written into an ini file: nothing with % or $ or @(, no white
// space (the hooks take words), and no ":" in a path, which would make the
// socket's an address of TCP.
var (
	appName    = pattern(`\A[a-z][a-z0-9_-]{0,39}\z`)
	pathName   = pattern(`\A/[\p{L}\p{N}._+@=/-]*\z`)
	idName     = pattern(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z`)
	pluginName = pattern(`\A[a-z0-9_]{1,40}\z`)
	moduleName = pattern(`\A[\p{L}_][\p{L}\p{N}_]*(\.[\p{L}_][\p{L}\p{N}_]*)*\z`)
	callable   = pattern(`\A[\p{L}_][\p{L}\p{N}_]*\z`)
	optionName = pattern(`\A[a-z0-9][a-z0-9-]*\z`)
)

// socketMax is the length of sun_path in bytes, without the NUL that ends it
// (unix(7)).
const socketMax = 107

// grace is how much longer than a request's own timeout each next step waits:
// the web server gives up first, then uWSGI ends the worker, then the runner
// the whole group.
const grace = 5 * time.Second

type instanceData struct {
	App, Instance, Plugin       string
	Workers, Threads, Listen    int
	Socket, Stats, Venv, Source string
	Module, Ready               string
	SourceLayout                bool // the module is below src
	Routes                      bool // uWSGI was built with its router
	Timeout, Mercy, Harakiri    int
	Options                     []option
}

// option is a line of [uwsgi_config].
type option struct{ Name, Value string }

// Plan renders the instance's ini file and names its process. The process's
// Record and Log are the caller's to choose; its user and group are the app's.
func (u *UWSGI) Plan(ctx context.Context, i *deployer.Instance, out io.Writer) (*deployer.Plan, error) {
	d, err := u.instanceData(i)
	if err != nil {
		return nil, err
	}
	if d.Options, err = options(i.App); err != nil {
		return nil, err
	}
	program, err := u.program(ctx, i)
	if err != nil {
		return nil, err
	}
	if program.why != "" {
		fmt.Fprintf(out, "uwsgi: %s\n", program.why)
	} else {
		d.Plugin = u.plugin
	}
	d.Routes = program.routes
	ini, err := d.render()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(i.Run, "uwsgi.ini")
	p := &deployer.Plan{
		Files:  []deployer.File{{Path: path, Data: ini, Mode: u.mode}},
		Socket: d.Socket,
		Ready:  d.Ready,
		Process: deployer.Process{
			Name: i.App.Name + "/" + i.ID, Args: append(program.args, "--ini", path), Dir: i.Run,
			Env: environment(i, out), User: i.App.User, Group: i.App.Group, Umask: u.umask,
			Grace: time.Duration(d.Mercy)*time.Second + grace,
		},
	}
	if u.configPath != "" {
		f, err := u.lookAt(i)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, f)
	}
	return p, nil
}

// environment is the app's, with the variable that the ini file asks for.
// uWSGI takes each variable UWSGI_NAME for an option NAME: those are left out,
// because options are for operators alone ([uwsgi_config]).
func environment(i *deployer.Instance, out io.Writer) []string {
	env := make([]string, 0, len(i.Env)+1)
	named := false
	for _, v := range i.Env {
		if strings.HasPrefix(v, "UWSGI_") {
			name, _, _ := strings.Cut(v, "=")
			fmt.Fprintf(out, "note: %s of [env] does not reach the app: uWSGI would take it for an option\n", name)
			continue
		}
		named = named || strings.HasPrefix(v, "SCOTCH_APP=")
		env = append(env, v)
	}
	if !named {
		env = append(env, "SCOTCH_APP="+i.App.Name)
	}
	return env
}

func (u *UWSGI) instanceData(i *deployer.Instance) (*instanceData, error) {
	a := i.App
	var errs []error
	if !appName().MatchString(a.Name) {
		errs = append(errs, fmt.Errorf("%q is no name of an app", a.Name))
	}
	if !idName().MatchString(i.ID) {
		errs = append(errs, fmt.Errorf("%q is no id of an instance", i.ID))
	}
	for _, p := range [][2]string{{"the instance's directory", i.Dir}, {"[app] src_path", i.Source}, {"[app] venv_path", i.Venv}, {"[app] run_path", i.Run}} {
		if err := checkPath(p[1]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p[0], err))
		}
	}
	e := i.EntryPoint
	if !moduleName().MatchString(e.Module) || !callable().MatchString(e.Callable) {
		errs = append(errs, fmt.Errorf("uWSGI can't take the entry point %q\nwrite it as MODULE:CALLABLE, such as shop.wsgi:application, or as MODULE:FACTORY()", e))
	}
	if a.Workers < 1 {
		errs = append(errs, fmt.Errorf("[app] workers is %d: an app needs one at least", a.Workers))
	}
	if a.Threads < 1 {
		errs = append(errs, fmt.Errorf("[app] threads is %d: a worker needs one at least", a.Threads))
	}
	if a.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("[app] timeout %s is too short", a.Timeout))
	}
	timeout := int((a.Timeout + time.Second - 1) / time.Second)
	d := &instanceData{
		App: a.Name, Instance: i.ID, Workers: a.Workers, Threads: a.Threads, Listen: u.backlog(),
		Socket: u.Socket(i.Run), Stats: statsSocket(i.Run), Venv: i.Venv, Source: i.Source,
		Module: e.String(), Ready: filepath.Join(i.Run, "ready"), SourceLayout: sourceLayout(i),
		Timeout: timeout, Mercy: timeout + int(grace.Seconds()), Harakiri: timeout + int(grace.Seconds()),
	}
	if len(d.Socket) > socketMax {
		errs = append(errs, fmt.Errorf("the path of a unix socket has at most %d bytes, and %q has %d\nset a shorter [paths] instances", socketMax, d.Socket, len(d.Socket)))
	}
	return d, errors.Join(errs...)
}

// sourceLayout tells whether the entry point's module has to be looked for in
// the folder src: it lies there, not beside it, and is not installed. An
// installed one is left alone, since it may have compiled parts.
func sourceLayout(i *deployer.Instance) bool {
	top, _, _ := strings.Cut(i.EntryPoint.Module, ".")
	has := func(dir string) bool {
		for _, name := range []string{top, top + ".py"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return true
			}
		}
		return false
	}
	if has(i.Source) || !has(filepath.Join(i.Source, "src")) {
		return false
	}
	libraries, _ := filepath.Glob(filepath.Join(i.Venv, "lib", "python*", "site-packages"))
	return !slices.ContainsFunc(libraries, has)
}

func checkPath(p string) error {
	if !pathName().MatchString(p) {
		return fmt.Errorf("uWSGI can't take the path %q\nuse an absolute path of letters, digits and . _ + @ = - alone", p)
	}
	return nil
}

// backlog is [uwsgi] listen, at most what the kernel allows: uWSGI does not
// start with more.
func (u *UWSGI) backlog() int {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return min(u.listen, 128) // the kernel's default before Linux 5.4
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || most < 1 {
		return min(u.listen, 128)
	}
	return min(u.listen, most)
}

// render fills the template. An option of [uwsgi_config] takes the place of
// scotch's line where there is one.
func (d *instanceData) render() ([]byte, error) {
	text, err := execute("instance.ini", d)
	if err != nil || len(d.Options) == 0 {
		return text, err
	}
	own, theirs, _ := strings.Cut(string(text), "\n\n# [uwsgi_config]\n")
	lines := strings.Split(own, "\n")
	for i, l := range lines {
		name, _, ok := strings.Cut(l, " =")
		if ok && !many(name) && slices.ContainsFunc(d.Options, func(o option) bool { return o.Name == name }) {
			lines[i] = "# " + name + " is set below"
		}
	}
	return []byte(strings.Join(lines, "\n") + "\n\n# [uwsgi_config]\n" + theirs), nil
}

// many tells whether uWSGI takes an option of ours more than once.
func many(name string) bool {
	return strings.HasPrefix(name, "hook-") || strings.HasPrefix(name, "if-") || strings.HasPrefix(name, "route-") || name == "end-if" || name == "pythonpath" || name == "plugin"
}

func execute(name string, data any) ([]byte, error) {
	t, err := template.ParseFS(templates, name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// reserved are the options that scotch stands on.
func reserved() []string {
	return []string{
		"socket", "uwsgi-socket", "http-socket", "protocol", "chmod-socket", "chown-socket", "stats", "stats-server", "master",
		"need-app", "strict", "daemonize", "daemonize2", "pidfile", "pidfile2", "uid", "gid", "chroot", "module", "wsgi", "wsgi-file",
		"callable", "mount", "virtualenv", "venv", "home", "pyhome", "vacuum", "die-on-term", "emperor", "ini",
		"include", "config", "if-env", "if-not-env", "logto", "logto2", "log-master", "py-sys-executable",
	}
}

// checkOptions checks [uwsgi_config] as part of an app's configuration, so that
// what is wrong has its file and line.
func checkOptions(a *config.App, fail func(section, key string, err error)) {
	for _, key := range a.Keys("uwsgi_config") {
		value, err := a.Get("uwsgi_config", key)
		if err != nil {
			continue // reported with its file and line already
		}
		for line := range strings.SplitSeq(value, "\n") {
			if err := newOption(key, line).check(); err != nil {
				fail("uwsgi_config", key, err)
				break
			}
		}
	}
}

// newOption takes a key as people write it: uWSGI's own files take need_app
// for need-app.
func newOption(key, line string) option {
	return option{strings.ReplaceAll(key, "_", "-"), strings.TrimSpace(line)}
}

// options reads [uwsgi_config]. A value of several lines is an option that is
// given several times.
func options(a *config.App) ([]option, error) {
	if a.Values == nil {
		return nil, nil
	}
	var (
		all  []option
		errs []error
	)
	for _, name := range a.Keys("uwsgi_config") {
		value, err := a.Get("uwsgi_config", name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for line := range strings.SplitSeq(value, "\n") {
			o := newOption(name, line)
			if err := o.check(); err != nil {
				errs = append(errs, fmt.Errorf("[uwsgi_config] %s: %w", name, err))
				break
			}
			if o.Value != "" || value == "" {
				all = append(all, o)
			}
		}
	}
	return all, errors.Join(errs...)
}

func (o option) check() error {
	if !optionName().MatchString(o.Name) {
		return fmt.Errorf("%q is no option of uWSGI", o.Name)
	}
	if slices.Contains(reserved(), o.Name) {
		return errors.New("can't be set: scotch sets it itself\nremove the line")
	}
	if p := o.pythonPlugin(); p != "" {
		return fmt.Errorf("would load the Python plugin %q beside the one that scotch chooses\nremove it; [uwsgi] plugin, in a site file, names the one to use", p)
	}
	for i, r := range o.Value {
		next := o.Value[i:]
		switch {
		case r < ' ' || r == 0x7f,
			strings.HasPrefix(next, "$("), strings.HasPrefix(next, "@("),
			// %(name) is a variable of log-format; every other % is a magic one.
			r == '%' && !strings.HasPrefix(next, "%("):
			return fmt.Errorf("uWSGI would expand %q in its value %q\nwrite the value itself", firstRunes(next, 2), o.Value)
		}
	}
	return nil
}

// pythonPlugin is the plugin for Python that the option loads, "" for none. Two
// of them in one process are two Pythons; other plugins do no harm.
func (o option) pythonPlugin() string {
	if !slices.Contains([]string{"plugin", "plugins", "need-plugin", "need-plugins"}, o.Name) {
		return ""
	}
	for name := range strings.FieldsFuncSeq(o.Value, func(r rune) bool { return r == ',' || r == ' ' }) {
		// A number and a colon before the name choose a modifier.
		_, name = path.Split(name[strings.LastIndexByte(name, ':')+1:])
		if strings.HasPrefix(name, "python") || strings.HasPrefix(name, "pypy") {
			return name
		}
	}
	return ""
}

func firstRunes(s string, n int) string {
	r := []rune(s)
	return string(r[:min(n, len(r))])
}

// lookAt is the file in [uwsgi] config_path. It never changes: it leads to the
// ini file of what is live.
func (u *UWSGI) lookAt(i *deployer.Instance) (deployer.File, error) {
	live := filepath.Join(filepath.Dir(i.Dir), "current", "run", "uwsgi.ini")
	data, err := execute("app.ini", map[string]string{"App": i.App.Name, "Live": live})
	return deployer.File{Path: filepath.Join(u.configPath, i.App.Name+".ini"), Data: data, Mode: u.mode}, err
}

// executable is the uWSGI that runs an instance.
type executable struct {
	args   []string
	why    string // it is the one in the virtualenv, "" where it is the distribution's
	routes bool
}

// program chooses the instance's uWSGI.
func (u *UWSGI) program(ctx context.Context, i *deployer.Instance) (executable, error) {
	k, err := u.kind(ctx)
	if err != nil {
		return executable{}, err
	}
	var why string
	if !k.runs(i.Interpreter) {
		why = k.whyNot(i.Interpreter)
	} else if home, err := venvHome(i.Venv); err == nil && !distribution(home) && !distributions(filepath.Join(i.Venv, "bin", "python")) {
		// The virtualenv was made by another Python than the one recorded.
		why = fmt.Sprintf("the virtualenv stands on %s", home)
	} else {
		return executable{args: []string{k.path}, routes: k.routes}, nil
	}
	script := filepath.Join(i.Venv, "bin", "pyuwsgi")
	if _, err := os.Stat(script); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("uWSGI is missing in the virtualenv of %q, which %s can't run: %s\nbuild it again: scotch rebuild %s", i.App.Name, u.settings.program, why, i.App.Name)
		}
		return executable{}, err
	}
	// By way of the interpreter: a script's first line holds 255 bytes at most
	// (execve(2)), less than a path may have. The wheels have the router.
	return executable{[]string{filepath.Join(i.Venv, "bin", "python"), script}, "from the virtualenv: " + why, true}, nil
}
