package python

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// Options say where things are on this server.
type Options struct {
	// Path is the PATH in which interpreters and installers are looked up: the
	// server's own, never an app's.
	Path string
	// Home is where pyenv's and uv's interpreters are looked for, in .pyenv and
	// .local/share/uv. Empty: nowhere.
	Home string
	// Pyenvs and UVPythons are more directories of those two: what $PYENV_ROOT
	// and $UV_PYTHON_INSTALL_DIR say. /opt/pyenv, /usr/local/pyenv and /opt/uv/python
	// are looked into anyway.
	Pyenvs, UVPythons []string
	// Downloads is a directory, which need not exist, that uv may download
	// interpreters into, when an app asks for one that is not there. All apps' users
	// must be able to read it, and only the server to write. Empty: never.
	Downloads string
	// DownloadEnv is what such a download gets besides: proxies, UV_PYTHON_DOWNLOADS
	// (https://docs.astral.sh/uv/reference/environment/), a mirror.
	DownloadEnv []string
	// Reader is the command that reads sources: this program, with Arg. Empty: they
	// are read by this process.
	Reader []string
	// ReaderLimits are those of such a reader. Zero: a gigabyte of memory and 20
	// seconds of processor time.
	ReaderLimits deployer.ProcessLimits
	// Files records what was downloaded; nil is good.
	Files *deployer.Files
	// Cache returns an existing directory for the installers' caches that the
	// app's user may write. It must not be shared by users that don't trust
	// each other: who writes it decides what the others install. A nil Cache or
	// an empty path: nothing is cached.
	Cache func(app *config.App) string
	// MaxCache is the size, in bytes, that an app's cache is cut back below after an
	// installation. 0 means DefaultMaxCache.
	MaxCache int64
	// CertFile is the machine's trust store, that installers get where their
	// environment does not name one. Empty: that of Debian, if it is there.
	CertFile string
}

// debianCerts is what update-ca-certificates(8) writes. uv has a list of its
// own built in, which knows no authority of a company's proxy.
const debianCerts = "/etc/ssl/certs/ca-certificates.crt"

// systemPython is the one that a distribution's uWSGI plugin is built for.
const systemPython = "/usr/bin/python3"

// probeTimeout is how long a program may take to tell its version.
const probeTimeout = 20 * time.Second

// Toolchain implements deployer.Toolchain. Its methods may be called at the same time.
type Toolchain struct {
	run  deployer.Runner
	opts Options

	mu      sync.Mutex
	probes  map[probeKey]probe
	readers map[string]*reader // prepared, by app

	downloading sync.Mutex // held while uv downloads an interpreter

	looking sync.Mutex // held while an interpreter is looked at
	looks   map[lookKey]look
}

var (
	_ deployer.Toolchain = (*Toolchain)(nil)
	_ deployer.Checker   = (*Toolchain)(nil)
)

// New returns a toolchain that starts programs with run.
func New(run deployer.Runner, opts Options) *Toolchain {
	if opts.ReaderLimits == (deployer.ProcessLimits{}) {
		opts.ReaderLimits = deployer.ProcessLimits{Memory: readerMemory, CPU: readerCPU}
	}
	if opts.MaxCache == 0 {
		opts.MaxCache = DefaultMaxCache
	}
	if opts.CertFile == "" {
		opts.CertFile = debianCerts
	}
	return &Toolchain{run: run, opts: opts, probes: map[probeKey]probe{}, readers: map[string]*reader{}, looks: map[lookKey]look{}}
}

// probeKey names one state of one program, as one user finds it.
type probeKey struct {
	path, user string
	mtime      int64
	size       int64
}

// probe is what a program says of itself.
type probe struct {
	version    string // of Python or uv
	executable string // sys.executable
	pip        string // version that ensurepip brings, "" where there is none
	libc       string // "glibc 2.36", which compiled extensions are built for
}

// probeScript must be understood by every Python 3.
const probeScript = `
import json, platform, sys
try:
    import ensurepip, venv
    pip = ensurepip.version()
except Exception:
    pip = ""
print(json.dumps([platform.python_implementation(), platform.python_version(), sys.executable, pip, " ".join(platform.libc_ver())]))
`

// python asks an interpreter. It runs as the app's user: the path may come
// from the app's own source.
func (t *Toolchain) python(ctx context.Context, app *config.App, path string) (probe, error) {
	return t.probe(ctx, app, path, []string{path, "-I", "-c", probeScript}, func(out string) (probe, error) {
		var said []string
		if err := json.Unmarshal([]byte(out), &said); err != nil || len(said) != 5 {
			return probe{}, fmt.Errorf("%q is no Python 3: it says %q", path, deployer.FirstLine(out))
		}
		if v, err := parseVersion(said[1]); err != nil || v.release[0] != 3 {
			return probe{}, fmt.Errorf("%q is Python %s, and it takes Python 3", path, deployer.Neutral(said[1]))
		}
		return probe{version: said[1], executable: said[2], pip: said[3], libc: said[4]}, nil
	})
}

func (t *Toolchain) probe(ctx context.Context, app *config.App, path string, args []string, read func(string) (probe, error)) (probe, error) {
	info, err := os.Stat(path)
	if err != nil {
		return probe{}, err
	}
	key := probeKey{path, app.User, info.ModTime().UnixNano(), info.Size()}
	t.mu.Lock()
	known, ok := t.probes[key]
	t.mu.Unlock()
	if ok {
		return known, nil
	}
	var out, errs bytes.Buffer
	err = t.run.Run(ctx, deployer.Command{
		Args: args, Dir: "/", User: app.User, Group: app.Group,
		Env:    []string{"PATH=" + t.opts.Path, "HOME=" + t.opts.Home, "LANG=C.UTF-8"},
		Stdout: &limited{w: &out, left: 64 << 10}, Stderr: &limited{w: &errs, left: 64 << 10},
		Timeout: probeTimeout, App: app.Name, Limits: deployer.BuildLimits(app),
	})
	if err != nil {
		// What is no Python may take the script for the name of a file, and show it.
		if said := errs.String(); !strings.Contains(said, "import json, platform, sys") {
			if why := reasonIn(said); why != "" {
				err = fmt.Errorf("%w: %s", err, why)
			}
		}
		return probe{}, fmt.Errorf("ask %q for its version: %w", path, err)
	}
	p, err := read(strings.TrimSpace(out.String()))
	if err != nil {
		return probe{}, err
	}
	if !script(path) { // what stands behind a script may change without it
		t.mu.Lock()
		if len(t.probes) > 1000 {
			clear(t.probes)
		}
		t.probes[key] = p
		t.mu.Unlock()
	}
	return p, nil
}

// reasonIn is the line that says why a program failed: the first, where a
// traceback does not say it at its end, nor Python itself further down.
func reasonIn(said string) string {
	said = strings.TrimSpace(said)
	lines := strings.Split(said, "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "Fatal Python error: ") {
			return deployer.FirstLine(l)
		}
	}
	if strings.HasPrefix(said, "Traceback (") {
		return deployer.FirstLine(lines[len(lines)-1])
	}
	return deployer.FirstLine(said)
}

// uv finds uv and its version, "" where it is not there for the app's user.
func (t *Toolchain) uv(ctx context.Context, app *config.App) (path, version string, err error) {
	path = lookPath(t.opts.Path, "uv")
	if path == "" {
		return "", "", nil
	}
	p, err := t.probe(ctx, app, path, []string{path, "--version"}, func(out string) (probe, error) {
		f := strings.Fields(out) // "uv 0.9.1 (…)"
		if len(f) < 2 || f[0] != "uv" {
			return probe{}, fmt.Errorf("%q is no uv: it says %q", path, deployer.FirstLine(out))
		}
		return probe{version: f[1]}, nil
	})
	if err != nil {
		return "", "", err
	}
	return path, p.version, nil
}

// lookPath returns "" for a program that is nowhere.
func lookPath(path, name string) string {
	for p := range lookPaths(path, name) {
		return p
	}
	return ""
}

// lookPaths yields the programs of that name, those that count first.
func lookPaths(path, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, dir := range filepath.SplitList(path) {
			if p := filepath.Join(dir, name); filepath.IsAbs(dir) && isProgram(p) && !yield(p) {
				return
			}
		}
	}
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// script tells a script, as pyenv's shims are, from a program.
func script(path string) bool {
	// The app may have put a pipe in its place meanwhile.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [2]byte
	n, _ := f.Read(b[:])
	return string(b[:n]) == "#!"
}

// limited drops what is too much.
type limited struct {
	w    *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.w.Write(p[:n])
	return len(p), nil
}
