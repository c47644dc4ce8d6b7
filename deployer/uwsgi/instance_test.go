package uwsgi

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"scotch/deployer"
)

// real is an instance on real parts, run by the plan of a real UWSGI.
type real struct {
	t    *testing.T
	u    *UWSGI
	i    *deployer.Instance
	plan *deployer.Plan
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  string
}

// system is a UWSGI with the distribution's program, and its interpreter.
func system(t *testing.T) (*UWSGI, deployer.Interpreter) {
	t.Helper()
	if _, err := exec.LookPath("uwsgi"); err != nil {
		t.Skip("there is no uwsgi: apt-get install uwsgi-core uwsgi-plugin-python3")
	}
	u := plain(t, &runner{})
	k, err := u.kind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in := deployer.Interpreter{Path: "/usr/bin/python3", Version: k.python}
	if !k.runs(in) {
		t.Skip("uwsgi has no plugin for /usr/bin/python3: apt-get install uwsgi-plugin-python3")
	}
	return u, in
}

func prepare(t *testing.T, u *UWSGI, in deployer.Interpreter) *real {
	t.Helper()
	dir := filepath.Join(shortDir(t), "blog", "000001")
	i := instance(dir)
	i.ID = "000001"
	i.App.User, i.App.Group = "", ""
	i.App.Timeout = 10 * time.Second
	i.Interpreter = in
	i.EntryPoint = deployer.EntryPoint{Module: "echo", Callable: "application"}
	marks := t.TempDir()
	i.Env = append(i.Env, "MARKS="+marks)
	for _, d := range []string{i.Source, i.Run} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	app, err := os.ReadFile("testdata/app/echo.py")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.Source+"/echo.py", app, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(in.Path, "-m", "venv", "--without-pip", i.Venv).CombinedOutput(); err != nil {
		t.Fatalf("making a virtualenv: %v\n%s", err, out)
	}
	return &real{t: t, u: u, i: i, log: filepath.Join(dir, "log")}
}

func (r *real) start() {
	r.t.Helper()
	plan, err := r.u.Plan(r.t.Context(), r.i, io.Discard)
	if err != nil {
		r.t.Fatal(err)
	}
	r.plan = plan
	for _, f := range plan.Files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(f.Path, f.Data, f.Mode); err != nil {
			r.t.Fatal(err)
		}
	}
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	p := plan.Process
	r.cmd = exec.Command(p.Args[0], p.Args[1:]...)
	r.cmd.Env, r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = p.Env, p.Dir, log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	cmd, done := r.cmd, make(chan struct{})
	r.done = done
	go func() { r.err = cmd.Wait(); close(done) }()
	r.t.Cleanup(func() { r.kill(cmd, done) })
}

func (r *real) kill(cmd *exec.Cmd, done chan struct{}) {
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-done
}

// wait polls until ok, the end of the process or the end of patience.
func (r *real) wait(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-r.done:
			if !ok() {
				r.t.Fatalf("waiting for %s: uWSGI ended: %v\n%s", what, r.err, r.text())
			}
			return
		case <-deadline:
			r.t.Fatalf("waiting for %s: it takes too long\n%s", what, r.text())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (r *real) ready() {
	r.t.Helper()
	r.wait("the app", func() bool { _, err := os.Stat(r.plan.Ready); return err == nil })
}

// settled waits until every worker has its threads: one that is told to end
// before may miss the signal, and is then killed when its mercy is over.
func (r *real) settled() {
	r.t.Helper()
	r.ready()
	master := strconv.Itoa(r.cmd.Process.Pid)
	r.wait("the threads of the workers", func() bool {
		workers, _ := os.ReadFile("/proc/" + master + "/task/" + master + "/children")
		n := 0
		for _, pid := range strings.Fields(string(workers)) {
			threads, _ := os.ReadDir("/proc/" + pid + "/task")
			n += len(threads)
		}
		return n == r.i.App.Workers*r.i.App.Threads
	})
}

func (r *real) text() string {
	b, _ := os.ReadFile(r.log)
	return string(b)
}

func (r *real) probe(path string) (int, error) {
	return r.u.Probe(r.t.Context(), r.plan.Socket, deployer.ProbeRequest{Path: path, Host: "blog.example.org", Scheme: "http"})
}

// ask sends a probe's packet and returns what the app says it got.
func (r *real) ask(req deployer.ProbeRequest) (said struct {
	Environ                          map[string]string
	Executable, Prefix, Library, Cwd string
}) {
	r.t.Helper()
	packet, err := request(req)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := net.Dial("unix", r.plan.Socket)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(packet); err != nil {
		r.t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatal(err)
	}
	_, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	if err := json.Unmarshal(body, &said); err != nil {
		r.t.Fatalf("%v in %q\n%s", err, answer, r.text())
	}
	return said
}
