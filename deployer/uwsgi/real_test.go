package uwsgi

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"scotch/deployer"
)

func TestServes(t *testing.T) {
	u, in := system(t)
	r := prepare(t, u, in)
	// A file left by a killed predecessor must not pass for readiness.
	if err := os.WriteFile(filepath.Join(r.i.Run, "ready"), []byte("stale"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.wait("a fresh mark of readiness", func() bool {
		b, _ := os.ReadFile(r.plan.Ready)
		return string(b) == "ready"
	})

	for path, want := range map[string]int{"/": 200, "/?302+Found": 302, "/?503+Busy": 503} {
		if got, err := r.probe(path); err != nil || got != want {
			t.Errorf("%s gives %d, %v; want %d", path, got, err, want)
		}
	}
	if _, err := r.probe("/raise"); !errors.Is(err, deployer.ErrEmptyReply) {
		t.Errorf("an exception gives %v", err)
	}
	// A worker logs a request when it has hung up.
	r.wait("the log of the exception", func() bool {
		return strings.Contains(r.text(), "RuntimeError: as asked") && strings.Contains(r.text(), "GET /raise")
	})
	if strings.Contains(r.text(), "GET / ") {
		t.Errorf("the log should have the failed requests alone:\n%s", r.text())
	}

	said := r.ask(deployer.ProbeRequest{Path: "/shop/caf%C3%A9?q=1", Prefix: "/shop", Host: "blog.example.org:8443", Scheme: "https"})
	for k, want := range map[string]string{
		"SCRIPT_NAME": "/shop", "PATH_INFO": "/caf\u00c3\u00a9", // bytes as latin-1, by PEP 3333
		"QUERY_STRING": "q=1", "REQUEST_URI": "/shop/caf%C3%A9?q=1", "HTTP_HOST": "blog.example.org:8443",
		"SERVER_NAME": "blog.example.org", "SERVER_PORT": "8443", "SERVER_PROTOCOL": "HTTP/1.1", "HTTPS": "on",
		"wsgi.url_scheme": "https", "REMOTE_ADDR": "127.0.0.1", "HTTP_USER_AGENT": "scotch", "HTTP_X_FORWARDED_PROTO": "https",
	} {
		if got := said.Environ[k]; got != want {
			t.Errorf("%s is %q, want %q", k, got, want)
		}
	}
	if said.Executable != r.i.Venv+"/bin/python" || said.Prefix != r.i.Venv || said.Cwd != r.i.Source || !strings.HasPrefix(said.Library, "/usr/lib/") {
		t.Errorf("it runs as %+v", said)
	}
	if fi, err := os.Stat(r.plan.Socket); err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", fi.Mode(), err)
	}

	// A worker counts a request when it has hung up.
	r.wait("the counts of five requests", func() bool {
		s, err := u.Stats(t.Context(), r.i.Run, "")
		return err == nil && s.Requests == 5 && s.Exceptions == 1 && s.Workers == 2 && s.Busy == 0 && s.RSS > 1<<20
	})
}

// An app can put a link to another app's socket in the place of its own: nginx
// then asked that other app, past what guards it there.
func TestRequestForAnotherApp(t *testing.T) {
	u, in := system(t)
	r := prepare(t, u, in)
	r.i.App.Values = open(t, "[uwsgi_config]\nroute-uri = ^/operator break:418 Teapot\n").Values
	r.start()
	r.ready()
	ask := func(app, path string) int {
		t.Helper()
		status, err := u.Probe(t.Context(), r.plan.Socket, deployer.ProbeRequest{App: app, Path: path, Host: "blog.example.org", Scheme: "http"})
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	for _, tt := range []struct {
		app, path string
		want      int
	}{
		{"blog", "/", 200},
		{"", "/", 200}, // a web server of the operator's, which knows no app
		{"blo", "/", 421}, {"blogs", "/", 421}, {"shop", "/operator", 421},
		{"blog", "/operator", 418}, // an operator's own rules come after
	} {
		if got := ask(tt.app, tt.path); got != tt.want {
			t.Errorf("a request for %q at %s gives %d, want %d", tt.app, tt.path, got, tt.want)
		}
	}
}

// SIGTERM finishes what is under way: the answer of a slow request arrives.
func TestStopsWithoutLoss(t *testing.T) {
	u, in := system(t)
	r := prepare(t, u, in)
	r.start()
	r.settled()
	type answer struct {
		status int
		err    error
	}
	slow := make(chan answer, 1)
	go func() {
		status, err := r.probe("/slow")
		slow <- answer{status, err}
	}()
	marks := strings.TrimPrefix(r.i.Env[len(r.i.Env)-1], "MARKS=")
	r.wait("the slow request", func() bool { _, err := os.Stat(marks + "/slow"); return err == nil })
	if s, err := u.Stats(t.Context(), r.i.Run, ""); err != nil || s.Busy != 1 {
		t.Errorf("with a request under way: %+v, %v", s, err)
	}
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.wait("the end to begin", func() bool { return strings.Contains(r.text(), "Gracefully killing worker 2") })
	if err := os.WriteFile(marks+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if a := <-slow; a.err != nil || a.status != 200 {
		t.Errorf("the slow request got %d, %v\n%s", a.status, a.err, r.text())
	}
	select {
	case <-r.done:
	case <-time.After(20 * time.Second):
		t.Errorf("uWSGI does not end:\n%s", r.text())
	}
	// A successor's socket would have this path.
	if _, err := os.Lstat(r.plan.Socket); err != nil {
		t.Errorf("the old master removed the socket: %v", err)
	}
}

func TestStartsAgainAfterKill(t *testing.T) {
	u, in := system(t)
	r := prepare(t, u, in)
	r.start()
	r.ready()
	r.kill(r.cmd, r.done)
	r.start()
	// The first start's mark may be there still: the answer is the proof.
	r.wait("an answer", func() bool { status, err := r.probe("/"); return err == nil && status == 200 })
}

func TestFactory(t *testing.T) {
	u, in := system(t)
	r := prepare(t, u, in)
	r.i.EntryPoint = deployer.EntryPoint{Module: "echo", Callable: "create_app", Factory: true}
	r.start()
	r.ready()
	if got, err := r.probe("/"); err != nil || got != 200 {
		t.Errorf("a factory's app gives %d, %v\n%s", got, err, r.text())
	}
}

// What operators set wins over scotch's own, and means what it says.
func TestOperatorsOptions(t *testing.T) {
	u, in := system(t)
	r := prepare(t, u, in)
	r.i.App.Values = open(t, "[uwsgi_config]\nlog-format = asked %(method) %(uri)\ndisable-logging = false\nlog-date = false\n").Values
	r.start()
	r.ready()
	if _, err := r.probe("/here"); err != nil {
		t.Fatal(err)
	}
	r.wait("the log of the request", func() bool { return strings.Contains(r.text(), "\nasked GET /here\n") })

	r = prepare(t, u, in)
	r.i.App.Values = open(t, "[uwsgi_config]\nno-such-option = 1\n").Values
	r.start()
	<-r.done
	if !strings.Contains(r.text(), "no-such-option") {
		t.Errorf("an option that uWSGI does not know is not named:\n%s", r.text())
	}
}

func TestImportFails(t *testing.T) {
	u, in := system(t)
	for text, want := range map[string]string{
		"import nosuchmodule\n":      "ModuleNotFoundError: No module named 'nosuchmodule'",
		"def application(:\n":        "SyntaxError",
		"something_else = 1\n":       "callable not found",
		"raise SystemExit('done')\n": "done",
	} {
		r := prepare(t, u, in)
		if err := os.WriteFile(r.i.Source+"/echo.py", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		r.start()
		select {
		case <-r.done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%q: uWSGI goes on\n%s", text, r.text())
		}
		var exit *exec.ExitError
		if !errors.As(r.err, &exit) || exit.ExitCode() != 22 && exit.ExitCode() != 1 || !strings.Contains(r.text(), want) {
			t.Errorf("%q ends with %v and the log\n%s", text, r.err, r.text())
		}
		if _, err := os.Stat(r.plan.Ready); err == nil {
			t.Errorf("%q passes for ready", text)
		}
	}
}

// Debian's package uwsgi starts every ini file in /etc/uwsgi/apps-enabled: a
// second master would take the socket of the first.
func TestOthersDoNotStartIt(t *testing.T) {
	u, in := system(t)
	u.configPath = t.TempDir()
	r := prepare(t, u, in)
	r.start()
	r.ready()
	if err := os.Symlink(r.i.ID, filepath.Join(filepath.Dir(r.i.Dir), "current")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(u.configPath, "blog.ini"), filepath.Join(r.i.Run, "uwsgi.ini")} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		cmd := exec.CommandContext(ctx, "uwsgi", "--ini", path)
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 78 {
			t.Errorf("%s, started by somebody else, ends with %v\n%s", path, err, out)
		}
	}
	if got, err := r.probe("/"); err != nil || got != 200 {
		t.Errorf("then the app gives %d, %v", got, err)
	}
}

// With a Python that is not the distribution's the wheel runs the app, with
// that Python's own library.
func TestWheelServes(t *testing.T) {
	if testing.Short() {
		t.Skip("installs a package from the index")
	}
	u := plain(t, &runner{})
	in, ok := otherPython(t, u)
	if !ok {
		t.Skip("there is no Python but the distribution's")
	}
	need, err := u.Requires(t.Context(), in)
	if err != nil || len(need) != 1 {
		t.Fatalf("for %+v it requires %q, %v", in, need, err)
	}
	r := prepare(t, u, in)
	if out, err := exec.Command(in.Path, "-m", "pip", "--python", r.i.Venv+"/bin/python", "install", "-q", need[0]).CombinedOutput(); err != nil {
		t.Skipf("the wheel can't be installed: %v\n%s", err, out)
	}
	r.start()
	r.settled()
	said := r.ask(deployer.ProbeRequest{Path: "/", Host: "blog.example.org", Scheme: "http"})
	if said.Executable != r.i.Venv+"/bin/python" || said.Prefix != r.i.Venv || strings.HasPrefix(said.Library, "/usr/lib/") {
		t.Errorf("it runs as %+v", said)
	}
	if _, err := r.probe("/raise"); !errors.Is(err, deployer.ErrEmptyReply) {
		t.Errorf("an exception gives %v", err)
	}
	r.wait("the counts of two requests", func() bool {
		s, err := u.Stats(t.Context(), r.i.Run, "")
		return err == nil && s.Requests == 2 && s.Exceptions == 1
	})
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(20 * time.Second):
		t.Errorf("uWSGI does not end:\n%s", r.text())
	}
}

// otherPython is a Python 3 of the PATH that the distribution's uWSGI does not run.
func otherPython(t *testing.T, u *UWSGI) (deployer.Interpreter, bool) {
	t.Helper()
	k, err := u.kind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		out, err := exec.Command(filepath.Join(dir, "python3"), "-c", "import sys, platform; print(sys.executable, platform.python_version())").Output()
		path, version, ok := strings.Cut(strings.TrimSpace(string(out)), " ")
		if in := (deployer.Interpreter{Path: path, Version: version}); err == nil && ok && !k.runs(in) {
			return in, true
		}
	}
	return deployer.Interpreter{}, false
}
