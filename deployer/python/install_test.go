package python_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/python"
)

// These tests talk to the real index.
func online(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the package index; not with -short")
	}
}

// installers are the PATHs with each installer.
func installers(t *testing.T) map[string]string {
	t.Helper()
	m := map[string]string{"pip": withoutUV}
	if uv, err := exec.LookPath("uv"); err == nil {
		m["uv"] = filepath.Dir(uv) + ":" + withoutUV
	} else {
		t.Log("no uv on the PATH: only pip is tested; python3 -m pip install uv")
	}
	return m
}

type result struct {
	deps deployer.Dependencies
	list []string
	out  string
	dir  string
}

func install(t *testing.T, tc *python.Toolchain, app *config.App, src string, extra ...string) (result, error) {
	t.Helper()
	return reinstall(t, tc, app, src, nil, extra...)
}

func reinstall(t *testing.T, tc *python.Toolchain, app *config.App, src string, pinned []string, extra ...string) (result, error) {
	t.Helper()
	in, err := tc.Interpreter(t.Context(), app, src)
	if err != nil {
		t.Fatal(err)
	}
	deps, err := tc.Dependencies(t.Context(), app, src, in, extra)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := result{deps: deps, dir: filepath.Join(t.TempDir(), "venv")}
	r.list, err = tc.Install(t.Context(), deployer.InstallRequest{
		App: app, Source: src, Dir: r.dir, Interpreter: in, Deps: deps, Extra: extra, Pinned: pinned,
		Env: []string{"PATH=" + withoutUV, "HOME=" + t.TempDir(), "LANG=C.UTF-8"}, Out: &out, Timeout: 3 * time.Minute,
	})
	r.out = out.String()
	return r, err
}

func python3(t *testing.T, r result, code string) string {
	t.Helper()
	b, err := exec.Command(filepath.Join(r.dir, "bin", "python"), "-I", "-c", code).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", code, err, b)
	}
	return strings.TrimSpace(string(b))
}

func TestInstall(t *testing.T) {
	online(t)
	t.Parallel()
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			tc, plain := toolchain(t, path), plainToolchain(t, path)
			app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}

			t.Run("requirements", func(t *testing.T) {
				t.Parallel()
				// The app has a module that is named like one of Python's own.
				src := tree(t, "requirements.txt", "-r more.txt\n", "more.txt", "six==1.16.0\n", "logging.py", "raise SystemExit('not that one')\n")
				r, err := install(t, plain, app, src, "iniconfig==2.0.0")
				if err != nil {
					t.Fatalf("%v\n%s", err, r.out)
				}
				if !strings.HasPrefix(r.deps.Installer, name+" ") {
					t.Errorf("installed by %q", r.deps.Installer)
				}
				got := slices.DeleteFunc(r.list, func(s string) bool { return strings.HasPrefix(s, "setuptools==") })
				if diff := cmp.Diff([]string{"iniconfig==2.0.0", "six==1.16.0"}, got); diff != "" {
					t.Error(diff)
				}
				python3(t, r, "import six, iniconfig")
				compiled, _ := filepath.Glob(filepath.Join(r.dir, "lib/python3*/site-packages/__pycache__/six.*.pyc"))
				if len(compiled) != 1 {
					t.Errorf("bytecode: %q", compiled)
				}
				if prefix := python3(t, r, "import sys; print(sys.prefix)"); prefix != r.dir {
					t.Errorf("the prefix is %q, not %q", prefix, r.dir)
				}
				// It must not change with anything else: no file is shared.
				files, _ := filepath.Glob(filepath.Join(r.dir, "lib/python3*/site-packages/six.py"))
				if len(files) != 1 || links(t, files[0]) != 1 {
					t.Errorf("%q is shared with the cache", files)
				}
				if !strings.Contains(r.out, "six") || strings.ContainsAny(r.out, "\x1b\r") {
					t.Errorf("output %q", r.out)
				}
			})
			t.Run("nothing", func(t *testing.T) {
				t.Parallel()
				r, err := install(t, plain, app, tree(t, "app.py", ""))
				if err != nil {
					t.Fatalf("%v\n%s", err, r.out)
				}
				if pips, _ := filepath.Glob(filepath.Join(r.dir, "bin/pip*")); len(pips) > 0 {
					t.Errorf("pip came, seconds for nothing: %q", pips)
				}
				python3(t, r, "pass")
			})
			t.Run("project", func(t *testing.T) {
				t.Parallel()
				src := tree(t, "pyproject.toml", "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n[project]\nname = 'tiny-blog'\nversion = '1.2'\ndependencies = ['six==1.16.0']\n",
					"src/tiny_blog/__init__.py", "app = 1\n")
				r, err := install(t, tc, app, src)
				if err != nil {
					t.Fatalf("%v\n%s", err, r.out)
				}
				if !slices.Contains(r.list, "tiny-blog @ ./") && !slices.Contains(r.list, "tiny_blog @ ./") || r.deps.Shareable {
					t.Errorf("%q %+v", r.list, r.deps)
				}
				if file := python3(t, r, "import tiny_blog, six; print(tiny_blog.__file__)"); !strings.HasPrefix(file, r.dir) {
					t.Errorf("the project is at %q", file)
				}
			})
			t.Run("list", func(t *testing.T) {
				t.Parallel()
				r, err := install(t, tc, app, tree(t, "pyproject.toml", "[project]\nname = 'x'\nversion = '1'\ndependencies = ['six==1.16.0']\n"))
				if err != nil || !slices.Contains(r.list, "six==1.16.0") {
					t.Fatalf("%v %q\n%s", err, r.list, r.out)
				}
			})
			t.Run("unknown package", func(t *testing.T) {
				t.Parallel()
				r, err := install(t, tc, app, tree(t, "requirements.txt", "scotch-has-no-such-package==99.98.97\n"))
				var exit *deployer.ExitError
				if !errors.As(err, &exit) || exit.Name != name || exit.Status != 1 || !strings.HasPrefix(err.Error(), name+" exited with 1 while installing requirements.txt") {
					t.Errorf("%v", err)
				}
				if !strings.Contains(r.out, "scotch-has-no-such-package") {
					t.Errorf("output %q", r.out)
				}
			})
			t.Run("missing header", func(t *testing.T) {
				t.Parallel()
				src := tree(t, project("", "x", "")...)
				backend := "import sys\nprint('x.c:1: fatal error: ffi.h: No such file or directory', file=sys.stderr)\nsys.exit(1)\n"
				if err := os.WriteFile(filepath.Join(src, "backend.py"), []byte(backend), 0o644); err != nil {
					t.Fatal(err)
				}
				_, err := install(t, tc, app, src)
				if err == nil || !strings.Contains(err.Error(), "\nthe headers of libffi are missing: apt install libffi-dev") {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func links(t *testing.T, path string) int {
	t.Helper()
	b, err := exec.Command("stat", "-c", "%h", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.TrimSpace(string(b))) * int(b[0]-'0')
}

func TestUVLock(t *testing.T) {
	online(t)
	t.Parallel()
	path := uvPath(t)
	tc := toolchain(t, path)
	app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}
	src := tree(t, "pyproject.toml", "[project]\nname = 'blog'\nversion = '1'\nrequires-python = '>=3.9'\ndependencies = ['six==1.16.0']\n[dependency-groups]\ndev = ['iniconfig']\n")
	lock := exec.Command("uv", "lock", "--python", "/usr/bin/python3")
	lock.Dir = src
	lock.Env = append(os.Environ(), "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
	if b, err := lock.CombinedOutput(); err != nil {
		t.Fatalf("uv lock: %v\n%s", err, b)
	}
	before, _ := os.ReadFile(filepath.Join(src, "uv.lock"))
	r, err := install(t, tc, app, src)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.out)
	}
	if diff := cmp.Diff([]string{"six==1.16.0"}, r.list); diff != "" || !r.deps.Shareable || r.deps.From != "uv.lock" {
		t.Errorf("%s%+v", diff, r.deps)
	}
	if after, _ := os.ReadFile(filepath.Join(src, "uv.lock")); !bytes.Equal(before, after) {
		t.Error("uv.lock was changed")
	}
	if _, err := os.Stat(filepath.Join(src, ".venv")); err == nil {
		t.Error("a virtualenv was made in the source")
	}
}

// System mode: everything that an app's source has a say in runs as its user.
func TestInstallAsUser(t *testing.T) {
	online(t)
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("switching users takes root")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	base, err := os.MkdirTemp("/var/tmp", "scotch-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	src, dir := filepath.Join(base, "src"), filepath.Join(base, "inst")
	for _, d := range []string{src, dir} {
		os.Mkdir(d, 0o755)
		if b, err := exec.Command("chown", nobody.Uid+":"+nobody.Gid, d).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, b)
		}
	}
	os.Chmod(base, 0o755)
	files := project(src, "x", "")
	files[3] += "open('who', 'a').write('%d\\n' % os.getuid())\n"
	for i := 0; i < len(files); i += 2 {
		os.WriteFile(files[i], []byte(files[i+1]), 0o644)
	}
	tc := python.New(direct.New(t.TempDir(), direct.Options{}), python.Options{Path: withoutUV})
	app := &config.App{Name: "blog", User: "nobody", Interpreter: "python3", InstanceID: "1"}
	in, err := tc.Interpreter(t.Context(), app, src)
	if err != nil {
		t.Fatal(err)
	}
	deps, err := tc.Dependencies(t.Context(), app, src, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	list, err := tc.Install(t.Context(), deployer.InstallRequest{
		App: app, Source: src, Dir: filepath.Join(dir, "venv"), Interpreter: in, Deps: deps,
		Env: []string{"PATH=" + withoutUV, "HOME=/nonexistent"}, Out: &out, Timeout: 3 * time.Minute,
	})
	if err != nil || !slices.Contains(list, "x @ ./") {
		t.Fatalf("%v %q\n%s", err, list, out.String())
	}
	who, _ := os.ReadFile(filepath.Join(src, "who"))
	if len(who) == 0 || strings.Trim(strings.ReplaceAll(string(who), nobody.Uid, ""), "\n") != "" {
		t.Errorf("the build ran as %q", who)
	}
}

func TestInterpreter(t *testing.T) {
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip(err)
	}
	tc := toolchain(t, os.Getenv("PATH"))
	find := func(app config.App, files ...string) (deployer.Interpreter, error) {
		t.Helper()
		app.Name = "blog"
		if app.Interpreter == "" {
			app.Interpreter = "python3"
		}
		return tc.Interpreter(t.Context(), &app, tree(t, files...))
	}
	def, err := find(config.App{})
	if err != nil || def.Path != "/usr/bin/python3" || def.Why != "default" || !strings.HasPrefix(def.Version, "3.") {
		t.Fatalf("%+v %v", def, err)
	}
	minor := strings.Join(strings.Split(def.Version, ".")[:2], ".")
	for name, c := range map[string]struct {
		app   config.App
		files []string
		why   string
	}{
		"requires-python": {files: []string{"pyproject.toml", "[project]\nrequires-python = '>=3.4'\n"}, why: "requires-python >=3.4"},
		".python-version": {files: []string{".python-version", "# c\n" + minor + "\n", "runtime.txt", "python-2.7"}, why: ".python-version " + minor},
		"runtime.txt":     {files: []string{"runtime.txt", "python-" + def.Version}, why: "runtime.txt " + def.Version},
		"absolute":        {app: config.App{Interpreter: "/usr/bin/python3", InterpreterSet: true}, files: []string{".python-version", "2.7"}, why: "[app] interpreter"},
		"version":         {app: config.App{Interpreter: minor, InterpreterSet: true}, why: "[app] interpreter " + minor},
	} {
		in, err := find(c.app, c.files...)
		if err != nil || in.Path != def.Path || in.Why != c.why {
			t.Errorf("%s: %+v %v", name, in, err)
		}
	}
	for name, c := range map[string]struct {
		app   config.App
		files []string
		err   string
	}{
		"unknown version":      {files: []string{".python-version", "3.98"}, err: "no Python 3.98 on this server, which .python-version asks for\nthis server has:\n"},
		"pypy":                 {files: []string{".python-version", "pypy3.10"}, err: "no version of CPython"},
		"unsatisfiable":        {files: []string{"pyproject.toml", "[project]\nrequires-python = '<3'\n"}, err: "requires-python asks for"},
		"unknown name":         {app: config.App{Interpreter: "snake", InterpreterSet: true}, err: "\"snake\" on the server's PATH"},
		"unknown path":         {app: config.App{Interpreter: "/opt/python", InterpreterSet: true}, err: "no such program"},
		"relative path":        {app: config.App{Interpreter: "bin/python", InterpreterSet: true}, err: "absolute path"},
		"something else":       {app: config.App{Interpreter: "/bin/true", InterpreterSet: true}, err: "no Python 3"},
		"something that lists": {app: config.App{Interpreter: "/bin/ls", InterpreterSet: true}, err: "exited with 2\ngive the path of a Python 3"},
		"something that fails": {app: config.App{Interpreter: "/bin/false", InterpreterSet: true}, err: "exited with 1"},
	} {
		if in, err := find(c.app, c.files...); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %+v %v", name, in, err)
		}
	}
}

// A second Python: pyenv's, where the test machine has one.
func TestInterpreterOfPyenv(t *testing.T) {
	t.Parallel()
	home, _ := os.UserHomeDir()
	found, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions/3.12.*/bin/python3"))
	if len(found) == 0 {
		t.Skip("no Python 3.12 of pyenv")
	}
	tc := toolchain(t, withoutUV)
	for _, asked := range []string{"3.12", "3.12.99"} {
		in, err := tc.Interpreter(t.Context(), &config.App{Name: "blog", Interpreter: "python3"}, tree(t, ".python-version", asked))
		if err != nil || !strings.HasPrefix(in.Version, "3.12.") || !strings.Contains(in.Path, ".pyenv/versions/3.12") {
			t.Errorf("%s: %+v %v", asked, in, err)
		}
		if strings.Contains(in.Why, "nearest") != (asked == "3.12.99") {
			t.Errorf("why: %q", in.Why)
		}
	}
}

// A shim of pyenv's that has no such version chosen was taken for the interpreter,
// and the last line that it says for the reason.
func TestInterpreterBehindAShimThatFails(t *testing.T) {
	def, err := toolchain(t, "/usr/bin:/bin").Interpreter(t.Context(), &config.App{Name: "blog", Interpreter: "python3"}, t.TempDir())
	if err != nil || def.Path != "/usr/bin/python3" {
		t.Skip(def, err)
	}
	minor := strings.Join(strings.Split(def.Version, ".")[:2], ".")
	shims, behind := t.TempDir(), t.TempDir()
	const shim = "#!/bin/sh\necho \"pyenv: ${0##*/}: command not found\n\nThe command exists in these Python versions:\n  3.9.1\n\nNote: see 'pyenv help global' for tips on allowing both\n      Python versions to be found at the same time.\" >&2\nexit 127\n"
	for _, name := range []string{"python3", "python", "python" + minor, "python3.98", "pypy3"} {
		if err := os.WriteFile(filepath.Join(shims, name), []byte(shim), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(def.Path, filepath.Join(behind, "python"+minor)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want, why string }{
		{"python" + minor, shims, def.Path, "[app] interpreter " + minor},
		{"python3", shims, def.Path, "[app] interpreter 3"},
		{"python" + minor, shims + ":" + behind, filepath.Join(behind, "python"+minor), "[app] interpreter"},
		{"python", shims + ":/usr/bin", def.Path, "[app] interpreter"},
	} {
		in, err := toolchain(t, c.path).Interpreter(t.Context(), &config.App{Name: "blog", Interpreter: c.name, InterpreterSet: true}, t.TempDir())
		if err != nil || in.Path != c.want || in.Why != c.why {
			t.Errorf("%s: %+v %v", c.name, in, err)
		}
	}
	for _, c := range []struct{ name, want string }{
		{"python3.98", "no Python 3.98 on this server, which [app] interpreter asks for\n"},
		{"python3.98", "\nof that name there is only what fails: ask \"" + shims + "/python3.98\" for its version: python3.98 exited with 127: pyenv: python3.98: command not found"},
		{"pypy3", "exited with 127: pyenv: pypy3: command not found\ngive the path of a Python 3"},
		{filepath.Join(shims, "python3.98"), "exited with 127: pyenv: python3.98: command not found\ngive"},
	} {
		in, err := toolchain(t, shims).Interpreter(t.Context(), &config.App{Name: "blog", Interpreter: c.name, InterpreterSet: true}, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v %v", c.name, in, err)
		}
	}
}
