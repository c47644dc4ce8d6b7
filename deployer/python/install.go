package python

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	d, err := t.declared(ctx, r.App, r.Source, r.Interpreter)
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
	end := &lastly{w: cmp.Or[io.Writer](r.Out, io.Discard)}
	out := newFilter(end, secrets(r.App), r.Interpreter)
	env := t.environment(r.App, r.Env, r.Dir, inst)
	run := func(list []step) error {
		for _, s := range list {
			c := deployer.Command{
				Args: s.args, Dir: r.Source, Env: env, User: r.App.User, Group: r.App.Group,
				Stdout: out, Stderr: out, Timeout: r.Timeout,
				App: r.App.Name, Limits: deployer.BuildLimits(r.App), Writes: r.Writes,
			}
			if s.indexed {
				// uv would ask these first.
				c.Env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
					k, _, _ := strings.Cut(kv, "=")
					return slices.Contains(indexVariables[:], k)
				})
			}
			if s.stdin != "" {
				c.Stdin = strings.NewReader(s.stdin)
			}
			err := t.run.Run(ctx, c)
			out.flush()
			if err == nil {
				continue
			}
			hints := out.blame(err, d, s, r, env)
			if s.recorded && errors.As(err, new(*deployer.ExitError)) {
				hints = slices.Concat(lost(r, string(end.tail)), hints, []string{afresh(r)})
			}
			return explain(err, s, hints)
		}
		return nil
	}
	c := commands{inst, r}
	switch {
	case len(r.Pinned) == 0:
		err = run(c.whole(c.declared(d)))
	case d.kind == lockedByUV, d.kind == exported:
		// A lock file says what is to be installed better than the list does:
		// with hashes, and the index of each package. The list adds the rest.
		if err := run(append(c.venv(true), c.declared(d)...)); err != nil {
			return nil, err
		}
		there, err := installed(r)
		if err != nil {
			return nil, err
		}
		rest := slices.DeleteFunc(slices.Clone(r.Pinned), func(p string) bool { return slices.Contains(there, p) })
		again, err := c.recorded(d, rest)
		if err != nil {
			return nil, err
		}
		if err := run(append(again, c.extra()...)); err != nil {
			return nil, err
		}
	default:
		again, rerr := c.recorded(d, r.Pinned)
		if rerr != nil {
			return nil, rerr
		}
		err = run(c.whole(again))
	}
	if err != nil {
		return nil, err
	}
	t.bound(ctx, r.App, env, inst)
	return installed(r)
}

func named(file string) string {
	if file == "" {
		return "no dependencies"
	}
	return file
}

// step is one command of an installation.
type step struct {
	name  string // of the program, for people
	what  string // "installing requirements.txt"
	args  []string
	stdin string
	// recorded tells that it installs what an earlier installation had.
	recorded bool
	// local tells that it asks no index, indexed that it names all that it asks.
	local, indexed bool
}

// commands are those that make a whole virtualenv.
type commands struct {
	inst installer
	r    deployer.InstallRequest
}

// Python never runs without -I: in the source, which is the working directory,
// the app's own logging.py would be found before Python's.
func (c commands) python() string { return filepath.Join(c.r.Dir, "bin", "python") }

// whole makes a virtualenv and what is installed into it.
func (c commands) whole(installs []step) []step {
	installs = append(installs, c.extra()...)
	return append(c.venv(len(installs) > 0), installs...)
}

// venv makes a virtualenv, with pip only where pip is to install something: that takes
// seconds, and where uv installs there is none either.
func (c commands) venv(installs bool) []step {
	const what = "making the virtualenv"
	if c.inst.uv != "" {
		return []step{{name: "uv", what: what, local: true, args: []string{c.inst.uv, "venv", "--no-project", "--no-config", "--python", c.r.Interpreter.Path, c.r.Dir}}}
	}
	args := []string{c.r.Interpreter.Path, "-I", "-m", "venv"}
	if !installs {
		args = append(args, "--without-pip")
	}
	return []step{{name: "venv", what: what, local: true, args: append(args, c.r.Dir)}}
}

func (c commands) install(what string, args ...string) step {
	if c.inst.uv != "" {
		return step{name: "uv", what: what, args: slices.Concat([]string{c.inst.uv, "pip", "install", "--python", c.python(), "--compile-bytecode"}, args)}
	}
	return step{name: "pip", what: what, args: slices.Concat([]string{c.python(), "-I", "-m", "pip", "install", "--no-warn-script-location"}, args)}
}

// declared installs what the source declares.
func (c commands) declared(d *declaration) []step {
	switch d.kind {
	case lockedByUV:
		// --no-editable: a virtualenv must not depend on where the source is.
		return []step{{name: "uv", what: "installing uv.lock", args: []string{c.inst.uv, "sync", "--frozen", "--no-dev", "--no-editable", "--python", c.r.Interpreter.Path, "--compile-bytecode"}}}
	case exported:
		return c.exported(d)
	case listed:
		return []step{c.install("installing "+d.from, "-r", d.from)}
	case project:
		return []step{c.install("installing the project", ".")}
	case projectsList:
		if len(d.needs) > 0 {
			return []step{c.install("installing the dependencies in pyproject.toml", append([]string{"--"}, d.needs...)...)}
		}
	}
	return nil
}

// exported installs what poetry, pdm or pipenv locked: nothing is resolved.
func (c commands) exported(d *declaration) []step {
	var out []step
	with := login(c.r.App, c.r.Env)
	for _, b := range d.lock.batches(c.r.Source) {
		args := []string{"--no-deps"}
		if b.hashed {
			args = append(args, "--require-hashes")
			if c.inst.uv != "" {
				// Of several indexes the first that knows a name is not always
				// the one; the hashes say which is.
				args = append(args, "--index-strategy", "unsafe-best-match")
			}
		}
		s := c.fromStdin("installing "+d.from, b.text(d.lock, with), args...)
		s.indexed = strings.HasPrefix(s.stdin, "--index-url ")
		out = append(out, s)
	}
	if d.root {
		out = append(out, c.install("installing the project", "--no-deps", "."))
	}
	return out
}

// fromStdin installs a requirements file that lies in no directory.
func (c commands) fromStdin(what, file string, args ...string) step {
	s := c.install(what, append(args, "-r", "-")...)
	if c.inst.uv == "" {
		s.args = slices.Concat([]string{c.python(), "-I", "-c", pipFromStdin, "install", "--no-warn-script-location"}, args)
	}
	s.stdin = file
	return s
}

// recorded installs what an earlier installation had, and resolves nothing.
func (c commands) recorded(d *declaration, pinned []string) ([]step, error) {
	hashed, rest, err := again(d, c.r, pinned)
	if err != nil {
		return nil, fmt.Errorf("install the recorded packages again: %w", err)
	}
	var out []step
	for _, file := range []string{hashed, rest} {
		if file == "" {
			continue
		}
		s := c.fromStdin("installing the recorded packages", file, "--no-deps")
		s.recorded = true
		out = append(out, s)
	}
	return out, nil
}

// extra installs what the server needs, by itself: in a file with hashes every
// requirement must have one.
func (c commands) extra() []step {
	if len(c.r.Extra) == 0 {
		return nil
	}
	return []step{c.install("installing what the server needs", append([]string{"--"}, c.r.Extra...)...)}
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
	// Five, each after twice the time, make ten seconds and more for each package that
	// an index which is down is asked for, before anybody is told.
	unless("PIP_RETRIES", "2")
	// Without it older ones run setup.py themselves, and record nowhere what the
	// package was made of. From 21.3 on that works for -e too.
	if v, err := parseVersion(strings.TrimPrefix(inst.name, "pip ")); err == nil && v.compare(version{release: []int{21, 3}}) >= 0 {
		unless("PIP_USE_PEP517", "1")
	}
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
		err = &deployer.ExitError{Name: s.name, Status: exit.Status, Signal: exit.Signal, Cause: exit.Cause}
	case errors.As(err, &timeout):
		err = &deployer.TimeoutError{Name: s.name, After: timeout.After}
	}
	err = fmt.Errorf("%w while %s", err, s.what)
	for _, h := range hints {
		err = fmt.Errorf("%w\n%s", err, h)
	}
	return err
}
