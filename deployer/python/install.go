package python

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// Install implements deployer.Toolchain.
func (t *Toolchain) Install(ctx context.Context, r deployer.InstallRequest) ([]string, error) {
	if there, err := os.ReadDir(r.Dir); err == nil && len(there) > 0 {
		return nil, fmt.Errorf("make the virtualenv: %q is there already and not empty", r.Dir)
	}
	// Read again, not passed on: what is installed is what the source says.
	d, err := declared(r.Source)
	if err != nil {
		return nil, err
	}
	inst, err := t.installer(ctx, r.App, r.Interpreter)
	if err != nil {
		return nil, err
	}
	if inst.name != r.Deps.Installer || d.from != r.Deps.From {
		return nil, fmt.Errorf("install %s by %s: it was %s by %s a moment ago\ndeploy again", named(d.from), inst.name, named(r.Deps.From), r.Deps.Installer)
	}
	out := newFilter(r.Out, secrets(r.App), r.Interpreter)
	env := t.environment(r.App, r.Env, r.Dir, inst)
	for _, s := range steps(d, inst, r) {
		err := t.run.Run(ctx, deployer.Command{
			Args: s.args, Dir: r.Source, Env: env, User: r.App.User, Group: r.App.Group,
			Stdout: out, Stderr: out, Timeout: r.Timeout,
		})
		out.flush()
		if err != nil {
			return nil, explain(err, s, out.hints())
		}
	}
	return installed(r.Dir)
}

func named(file string) string {
	if file == "" {
		return "no dependencies"
	}
	return file
}

// step is one command of an installation.
type step struct {
	name string // of the program, for people
	what string // "installing requirements.txt"
	args []string
}

// steps are the commands that make a whole virtualenv.
func steps(d *declaration, inst installer, r deployer.InstallRequest) []step {
	python := filepath.Join(r.Dir, "bin", "python")
	var out []step
	var install []string
	tool := "pip"
	if inst.uv != "" {
		tool = "uv"
		out = append(out, step{tool, "making the virtualenv", []string{inst.uv, "venv", "--no-project", "--no-config", "--python", r.Interpreter.Path, r.Dir}})
		install = []string{inst.uv, "pip", "install", "--python", python, "--compile-bytecode"}
	} else {
		out = append(out, step{"venv", "making the virtualenv", []string{r.Interpreter.Path, "-m", "venv", r.Dir}})
		install = []string{python, "-m", "pip", "install", "--no-warn-script-location"}
	}
	add := func(what string, args ...string) {
		out = append(out, step{tool, what, slices.Concat(install, args)})
	}
	switch d.kind {
	case lockedByUV:
		// --no-editable: a virtualenv must not depend on where the source is.
		out = append(out, step{tool, "installing uv.lock", []string{inst.uv, "sync", "--frozen", "--no-dev", "--no-editable", "--python", r.Interpreter.Path, "--compile-bytecode"}})
	case listed:
		add("installing "+d.from, "-r", d.from)
	case project:
		add("installing the project", ".")
	case projectsList:
		if len(d.needs) > 0 {
			add("installing the dependencies in pyproject.toml", append([]string{"--"}, d.needs...)...)
		}
	}
	if len(r.Extra) > 0 {
		// By itself: in a file with hashes every requirement must have one.
		add("installing what the server needs", append([]string{"--"}, r.Extra...)...)
	}
	return out
}

// environment is that of the installers: the caller's, and what makes them
// silent, keeps to the given interpreter and to caches of the app's own.
func (t *Toolchain) environment(app *config.App, env []string, dir string, inst installer) []string {
	have := map[string]bool{}
	for _, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		have[k] = true
	}
	out := slices.Clone(env)
	must := func(k, v string) {
		out = slices.DeleteFunc(out, func(kv string) bool { return strings.HasPrefix(kv, k+"=") })
		out = append(out, k+"="+v)
	}
	unless := func(k, v string) {
		if !have[k] {
			out = append(out, k+"="+v)
		}
	}
	must("VIRTUAL_ENV", dir)
	unless("NO_COLOR", "1")
	var cache string
	if t.opts.Cache != nil {
		cache = t.opts.Cache(app)
	}
	certs := t.opts.CertFile
	if _, err := os.Stat(certs); err != nil {
		certs = ""
	}
	if certs != "" {
		unless("SSL_CERT_FILE", certs)
	}
	if inst.uv != "" {
		must("UV_PROJECT_ENVIRONMENT", dir)
		must("UV_PYTHON_DOWNLOADS", "never")
		must("UV_NO_PROGRESS", "1")
		// Virtualenvs that share inodes with the cache, and so with each other,
		// would all change when one is written to or given to another user.
		must("UV_LINK_MODE", "copy")
		if cache != "" {
			must("UV_CACHE_DIR", filepath.Join(cache, "uv"))
		} else {
			must("UV_NO_CACHE", "1")
		}
		return out
	}
	must("PIP_NO_INPUT", "1")
	must("PIP_DISABLE_PIP_VERSION_CHECK", "1")
	must("PIP_PROGRESS_BAR", "off")
	must("PIP_ROOT_USER_ACTION", "ignore")
	if certs != "" {
		unless("PIP_CERT", certs)
	}
	if cache != "" {
		must("PIP_CACHE_DIR", filepath.Join(cache, "pip"))
	} else {
		must("PIP_NO_CACHE_DIR", "1")
	}
	return out
}

// explain says what was being done, by which program, and how to mend it.
func explain(err error, s step, hints []string) error {
	var exit *deployer.ExitError
	var timeout *deployer.TimeoutError
	switch {
	case errors.As(err, &exit):
		// "python -m pip" is pip to a person.
		err = &deployer.ExitError{Name: s.name, Status: exit.Status, Signal: exit.Signal}
	case errors.As(err, &timeout):
		err = &deployer.TimeoutError{Name: s.name, After: timeout.After}
		hints = append(hints, "the index may be slow or down; a longer time is set by timeout in [deploy]")
	}
	err = fmt.Errorf("%w while %s", err, s.what)
	for _, h := range hints {
		err = fmt.Errorf("%w\n%s", err, h)
	}
	return err
}

var (
	distName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	distVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.!+_-]*$`)
)

// installed lists what is in a virtualenv, by the metadata that each installer
// leaves (https://packaging.python.org/en/latest/specifications/recording-installed-packages/),
// without pip itself. It is what "pip freeze --all" says, without a process.
func installed(dir string) ([]string, error) {
	s, err := openSource(dir)
	if err != nil {
		return nil, fmt.Errorf("list what was installed: %w", err)
	}
	defer s.Close()
	out := []string{}
	for _, lib := range []string{"lib", "lib64"} {
		if info, err := s.Lstat(lib); err != nil || !info.IsDir() { // lib64 is a link to lib
			continue
		}
		for _, python := range s.list(lib) {
			packages := lib + "/" + python.Name() + "/site-packages"
			for _, e := range s.list(packages) {
				meta := packages + "/" + e.Name()
				switch {
				case strings.HasSuffix(e.Name(), ".dist-info"):
					meta += "/METADATA"
				case strings.HasSuffix(e.Name(), ".egg-info"):
					if e.IsDir() {
						meta += "/PKG-INFO"
					}
				default:
					continue
				}
				b, err := s.read(meta)
				if err != nil {
					return nil, fmt.Errorf("list what was installed: %w", err)
				}
				name, version := header(string(b), "Name"), header(string(b), "Version")
				if !distName.MatchString(name) || !distVersion.MatchString(version) {
					return nil, fmt.Errorf("list what was installed: %q names no package and version", meta)
				}
				if normal(name) != "pip" {
					out = append(out, name+"=="+version)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return slices.Compact(out), nil
}

// header returns a field of the part of a message before its body.
func header(s, name string) string {
	for l := range strings.Lines(s) {
		l = strings.TrimRight(l, "\r\n")
		if l == "" {
			return ""
		}
		if k, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(k, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
