package python

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"scotch/config"
	"scotch/deployer"
)

// Changed implements deployer.Checker.
//
// A virtualenv keeps its packages in lib/python3.X and links to its
// interpreter. Another bug-fix release of the same 3.X finds them there, and runs
// extension modules and bytecode as they are (https://peps.python.org/pep-0387/,
// https://docs.python.org/3/c-api/stable.html): a distribution's security update is no
// reason to rebuild 500 apps. Another 3.X finds none of them. Before the first release of
// a 3.X that promise does not hold, so there any difference counts.
func (t *Toolchain) Changed(ctx context.Context, app *config.App, in deployer.Interpreter, venv string) (string, error) {
	python := filepath.Join(venv, "bin", "python")
	real, err := filepath.EvalSymlinks(python)
	if errors.Is(err, fs.ErrNotExist) {
		return missingLink(python), nil
	} else if err != nil {
		return "", fmt.Errorf("look at a virtualenv's interpreter: %w", err)
	}
	if why, err := t.differs(ctx, app, in.Path, in.Version); why != "" || err != nil {
		return why, err
	}
	// It may link to another name of the interpreter, python3.11, that stayed
	// when python3 went on. With copies it is a file of its own.
	if _, own := below(venv, real); !own {
		if why, err := t.differs(ctx, app, real, in.Version); why != "" || err != nil {
			return why, err
		}
	} else if !isProgram(real) {
		return fmt.Sprintf("%q is no program", real), nil
	}

	s, err := openSource(venv)
	if err != nil {
		return "", err
	}
	defer s.Close()
	b, err := s.read("pyvenv.cfg")
	if errors.Is(err, fs.ErrNotExist) {
		return "the virtualenv has lost its pyvenv.cfg", nil
	} else if err != nil {
		return "", err
	}
	home, made := venvConfig(string(b))
	if _, err := os.Stat(home); home != "" && errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%q, where the virtualenv's Python was, is gone", home), nil
	}
	if made != "" && otherVersion(in.Version, made) {
		return fmt.Sprintf("the virtualenv was made with Python %s, not %s", deployer.Neutral(made), in.Version), nil
	}
	return "", nil
}

// missingLink says which link of a virtualenv leads nowhere.
func missingLink(path string) string {
	last := path
	for range 40 { // as many as the kernel follows
		target, err := os.Readlink(last)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(last), target)
		}
		last = target
	}
	if last == path {
		return "the virtualenv has no bin/python"
	}
	return fmt.Sprintf("%q, which the virtualenv runs, is gone", last)
}

// venvConfig reads pyvenv.cfg (https://docs.python.org/3/library/site.html).
func venvConfig(s string) (home, version string) {
	for l := range strings.Lines(s) {
		k, v, _ := strings.Cut(l, "=")
		switch v = strings.TrimSpace(v); strings.ToLower(strings.TrimSpace(k)) {
		case "home":
			home = v
		case "version", "version_info": // venv's word, uv's and virtualenv's
			version = v
		}
	}
	return home, version
}

// differs says in which way the interpreter at path is not of version any more.
func (t *Toolchain) differs(ctx context.Context, app *config.App, path, version string) (string, error) {
	l, err := t.look(ctx, app, path)
	switch {
	case err != nil:
		return "", err
	case l.broken != "":
		return fmt.Sprintf("%q %s", path, l.broken), nil
	case otherVersion(version, l.version):
		return fmt.Sprintf("%q was Python %s and is %s now", path, version, l.version), nil
	}
	return "", nil
}

var threePart = pattern(`^\d+\.\d+(\.\d+)?`)

// otherVersion tells that packages of Python a are not there for Python b. What
// is no version differs from nothing.
func otherVersion(a, b string) bool {
	v, err1 := parseVersion(a)
	w, err2 := parseVersion(b)
	if err2 != nil { // virtualenv writes 3.11.2.final.0
		w, err2 = parseVersion(threePart().FindString(b))
	}
	if err1 != nil || err2 != nil {
		return false
	}
	if v.part(0) != w.part(0) || v.part(1) != w.part(1) {
		return true
	}
	return len(w.release) > 2 && (v.pre || w.pre) && a != b
}

// look is what an interpreter was found to be.
type look struct {
	version string // "3.11.2", or "3.11" where only its name says so
	broken  string // why it can't be used: "is gone"
}

// lookKey names one state of one file.
type lookKey struct {
	path     string // links resolved
	dev, ino uint64
	mtime    int64
	size     int64
	user     string // whom it was started as
}

// versionedName is what CPython is installed as: python3 is a link to it.
var versionedName = pattern(`^python(3\.\d+)$`)

// look returns what the interpreter at path is now. The program is started the
// first time only, and never with the server's rights: its path may come from an
// app's own source. One that others than root can change is started as the app is,
// for each app anew, or it would get out of what the app is confined to.
func (t *Toolchain) look(ctx context.Context, app *config.App, path string) (look, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return look{broken: "is gone"}, nil
	} else if err != nil {
		return look{}, fmt.Errorf("look at an interpreter: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return look{}, fmt.Errorf("look at an interpreter: %w", err)
	}
	if !isProgram(real) {
		return look{broken: "is no program"}, nil
	}
	as := &config.App{}
	if os.Geteuid() == 0 {
		as.User = "nobody"
		if app.User != "" && !roots(real) {
			as = app
		}
	}
	key := lookKey{user: as.User, path: real, mtime: info.ModTime().UnixNano(), size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		key.dev, key.ino = st.Dev, st.Ino
	}
	t.looking.Lock()
	defer t.looking.Unlock()
	if l, ok := t.looks[key]; ok {
		return l, nil
	}
	l, err := t.started(ctx, as, real)
	if err != nil {
		return look{}, err
	}
	if len(t.looks) > 1000 {
		clear(t.looks)
	}
	t.looks[key] = l
	return l, nil
}

// roots tells whether nobody but root, and whom it lets, can change what a path
// without links leads to.
func roots(path string) bool {
	for ; ; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if err != nil {
			return false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Uid != 0 || info.Mode()&0o002 != 0 {
			return false
		}
		if path == "/" {
			return true
		}
	}
}

func (t *Toolchain) started(ctx context.Context, as *config.App, path string) (look, error) {
	p, err := t.python(ctx, as, path)
	var exit *deployer.ExitError
	switch {
	case err == nil:
		return look{version: p.version}, nil
	case ctx.Err() != nil:
		return look{}, context.Cause(ctx)
	case errors.As(err, new(*deployer.TimeoutError)):
		return look{}, err
	// SIGKILL is memory that ran out, SIGTERM somebody who ends what is left of a server.
	case errors.As(err, &exit) && exit.Signal != "SIGKILL" && exit.Signal != "SIGTERM":
		return look{broken: "does not work: " + deployer.FirstLine(err.Error())}, nil
	}
	// It could not be started, as one in a home that only its owner may enter.
	if m := versionedName().FindStringSubmatch(filepath.Base(path)); m != nil {
		return look{version: m[1]}, nil
	}
	return look{}, err
}
