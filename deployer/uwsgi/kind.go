package uwsgi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"scotch/deployer"
)

// searchPath is where the distribution's uWSGI is looked for.
const searchPath = "/usr/local/bin:/usr/bin:/bin"

// wheel is uWSGI for virtualenvs, with Python's plugin built in. Older ones
// than Debian 12's uWSGI have not been tried.
const wheel = "pyuwsgi>=2.0.21,<2.1"

// kind is what is known of the distribution's uWSGI.
type kind struct {
	path   string // "" where there is none
	plugin string // of [uwsgi]
	python string // version of its plugin's Python, "" where it has none
	routes bool   // it was built with the router, which takes PCRE
}

// kinds remembers the answer of one uWSGI until its program changes.
type kinds struct {
	mu   sync.Mutex
	of   string // path, time and size
	last kind
}

// Requires returns the packages that a virtualenv with this interpreter needs
// so that uWSGI can run it.
func (u *UWSGI) Requires(ctx context.Context, in deployer.Interpreter) ([]string, error) {
	k, err := u.kind(ctx)
	if err != nil {
		return nil, err
	}
	if k.runs(in) {
		return nil, nil
	}
	return []string{wheel}, nil
}

// runs tells whether the distribution's uWSGI runs virtualenvs of that
// interpreter: the plugin is linked to the distribution's libpython, so it
// must be that very Python, not another build of the same version.
func (k kind) runs(in deployer.Interpreter) bool {
	if k.path == "" || k.python == "" || minor(k.python) != minor(in.Version) {
		return false
	}
	return distributions(in.Path)
}

// distributions tells whether a path leads to the distribution's Python.
func distributions(python string) bool {
	path, err := filepath.EvalSymlinks(python)
	return err == nil && distribution(filepath.Dir(path)) && distributionName().MatchString(filepath.Base(path))
}

// distributionName is the distribution's Python once links are resolved.
var distributionName = pattern(`\Apython3(\.[0-9]+)?\z`)

func distribution(bin string) bool { return bin == "/usr/bin" || bin == "/bin" }

func (k kind) whyNot(in deployer.Interpreter) string {
	switch {
	case k.path == "":
		return "the server has no uwsgi of its own"
	case k.python == "":
		return fmt.Sprintf("%s has no plugin %s", k.path, k.plugin)
	case minor(k.python) != minor(in.Version):
		return fmt.Sprintf("%s runs Python %s, this app has %s", k.path, k.python, in.Version)
	}
	return fmt.Sprintf("%s runs the distribution's Python, this app has %s", k.path, in.Path)
}

// minor is "3.11" of "3.11.2".
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return version
	}
	return parts[0] + "." + parts[1]
}

// kind asks the distribution's uWSGI which Python it has.
func (u *UWSGI) kind(ctx context.Context) (kind, error) {
	path, stamp := find(u.settings.program, u.plugin)
	if path == "" {
		return kind{plugin: u.plugin}, nil
	}
	u.kinds.mu.Lock()
	defer u.kinds.mu.Unlock()
	if u.kinds.of == stamp {
		return u.kinds.last, nil
	}
	k := kind{path: path, plugin: u.plugin}
	help, err := u.answer(ctx, path, "--help")
	if err != nil {
		return kind{}, err
	}
	k.routes = strings.Contains(help, "--route-label")
	// uWSGI says on standard error that it can't load a plugin, and nothing else:
	// then the wheel does it. --python-version makes it print the version and end.
	python, err := u.answer(ctx, path, "--plugin", u.plugin, "--python-version")
	if err != nil {
		return kind{}, err
	}
	k.python = version(python)
	u.kinds.of, u.kinds.last = stamp, k
	return k, nil
}

// answer is what a uWSGI prints, "" where it exits with an error.
func (u *UWSGI) answer(ctx context.Context, path string, args ...string) (string, error) {
	var out bytes.Buffer
	err := u.run.Run(ctx, deployer.Command{
		Args: append([]string{path}, args...), Dir: "/",
		Env: []string{"PATH=" + searchPath, "LANG=C.UTF-8"}, Umask: -1, Stdout: &out, Timeout: 20 * time.Second,
	})
	var exit *deployer.ExitError
	switch {
	case err == nil:
		return out.String(), nil
	case errors.As(err, &exit):
		return "", nil
	}
	return "", fmt.Errorf("asking %q what it can do: %w", path, err)
}

var versionLine = pattern(`(?m)^([0-9]+\.[0-9]+\.[0-9]+[a-z0-9+]*)\s*$`)

func version(out string) string {
	if m := versionLine().FindStringSubmatch(out); m != nil {
		return m[1]
	}
	return ""
}

// find looks a program up, and makes a stamp that changes with it and with the
// folder of its plugins.
func find(program, plugin string) (path, stamp string) {
	if strings.Contains(program, "/") {
		return look(program, plugin)
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		if path, stamp := look(filepath.Join(dir, program), plugin); path != "" {
			return path, stamp
		}
	}
	return "", ""
}

func look(path, plugin string) (string, string) {
	fi, err := os.Stat(path)
	if err != nil || fi.IsDir() || fi.Mode()&0o111 == 0 {
		return "", ""
	}
	stamp := fmt.Sprintf("%s %d %d", path, fi.ModTime().UnixNano(), fi.Size())
	// Installing or upgrading the plugin leaves the program as it is.
	if fi, err := os.Stat("/usr/lib/uwsgi/plugins/" + plugin + "_plugin.so"); err == nil {
		stamp += fmt.Sprintf(" %d %d", fi.ModTime().UnixNano(), fi.Size())
	}
	return path, stamp
}

// venvHome is where the interpreter of a virtualenv lies, by its pyvenv.cfg
// (PEP 405).
//
// An installation has had it in its hands, so it may be anything: a pipe, or a link
// to what has no end.
func venvHome(venv string) (string, error) {
	root, err := os.OpenRoot(venv)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.OpenFile("pyvenv.cfg", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "", errors.Join(err, fmt.Errorf("%q is no regular file", f.Name()))
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "home" {
			return filepath.Clean(strings.TrimSpace(value)), nil
		}
	}
	return "", fmt.Errorf("%q names no home", filepath.Join(venv, "pyvenv.cfg"))
}
