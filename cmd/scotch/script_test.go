package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata/script drive the real program with the real git,
// ssh, nginx and uWSGI, on free ports of the loopback interface. Commands of
// their own:
//
//	serve              start scotch serve --standalone and wait until it is ready
//	stop [SIGNAL]      end it (SIGINT, SIGTERM, SIGKILL) and wait for its end
//	get [-status N] [-host H] PATH|APP PATH   a request through nginx; the body is the stdout
//	app DIR [TEXT]     a small WSGI app that answers TEXT, in a git repository with a remote
//	commit DIR MESSAGE git add and commit all
//	waitfor PATTERN CMD…   run a command again until its output matches
//	hold NAME CMD…     run a command in the background; release NAME [-fail] waits for its end
//
// "scotch" is the program with -c for the script's own server; "remote" makes
// a remote's URL.
func TestScript(t *testing.T) {
	if testing.Short() {
		t.Skip("the scripts start servers; run without -short")
	}
	for _, tool := range []string{"git", "ssh", "ssh-keygen", "nginx", "uwsgi", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: `make deps` installs it", tool)
		}
	}
	program := buildProgram(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(e *testscript.Env) error { return setupScript(e, program) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": cmdServe, "stop": cmdStop, "get": cmdGet, "app": cmdApp, "commit": cmdCommit,
			"waitfor": cmdWaitFor, "hold": cmdHold, "release": cmdRelease, "scotch": cmdScotch, "kill9": cmdKill9,
		},
	})
}

// buildProgram builds scotch, with the race detector as the tests have it.
func buildProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "scotch")
	args := []string{"build", "-o", program}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("building scotch: %v\n%s", err, out)
	}
	return program
}

// world is what one script works on.
type world struct {
	program   string
	dir       string // of the server; short, for the sake of socket paths
	ssh, http int
	env       []string

	mu     sync.Mutex
	server *exec.Cmd
	exited chan struct{}
	log    *lockedBuffer
	held   map[string]*held
}

type held struct {
	cmd  *exec.Cmd
	out  *lockedBuffer
	done chan error
}

type worldKey struct{}

func setupScript(e *testscript.Env, program string) error {
	dir, err := os.MkdirTemp("/tmp", "sc")
	if err != nil {
		return err
	}
	w := &world{program: program, dir: filepath.Join(dir, "v"), ssh: freePort(), http: freePort(), log: &lockedBuffer{}, held: map[string]*held{}}
	e.Values[worldKey{}] = w
	home := filepath.Join(dir, "home")
	sshDir := filepath.Join(home, ".ssh")
	if err := os.MkdirAll(sshDir, 0o700); err != nil {
		return err
	}
	for _, who := range []string{"id_ed25519", "stranger"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", who, "-f", filepath.Join(sshDir, who)).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w\n%s", err, out)
		}
	}
	// Only the first key is the admin's own; the other lies elsewhere.
	for _, f := range []string{"stranger", "stranger.pub"} {
		if err := os.Rename(filepath.Join(sshDir, f), filepath.Join(home, f)); err != nil {
			return err
		}
	}
	// ssh looks for the home directory in the user database, not in $HOME.
	sshCommand := fmt.Sprintf("ssh -F /dev/null -o IdentitiesOnly=yes -o UserKnownHostsFile=%s/known_hosts -o StrictHostKeyChecking=accept-new -o BatchMode=yes -p %d", home, w.ssh)
	e.Setenv("HOME", home)
	e.Setenv("TMPDIR", os.TempDir())
	e.Setenv("PATH", os.Getenv("PATH"))
	e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	e.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, "gitconfig"))
	e.Setenv("GIT_SSH_COMMAND", sshCommand+" -i "+filepath.Join(sshDir, "id_ed25519"))
	e.Setenv("AS_STRANGER", sshCommand+" -i "+filepath.Join(home, "stranger"))
	e.Setenv("STRANGER", filepath.Join(home, "stranger"))
	e.Setenv("SERVER", w.dir)
	e.Setenv("SSH_PORT", strconv.Itoa(w.ssh))
	e.Setenv("HTTP_PORT", strconv.Itoa(w.http))
	e.Setenv("REMOTE", fmt.Sprintf("ssh://scotch@127.0.0.1:%d", w.ssh))
	// What installers need on this machine, as a person's shell has it.
	for _, name := range []string{"PIP_CERT", "PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE", "UV_DEFAULT_INDEX", "https_proxy", "http_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			e.Setenv(name, v)
		}
	}
	config := "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[push]\n\tdefault = simple\n[protocol \"file\"]\n\tallow = always\n[advice]\n\tdetachedHead = false\n"
	if err := os.WriteFile(filepath.Join(home, "gitconfig"), []byte(config), 0o644); err != nil {
		return err
	}
	// ssh HOST for scripts: `exec sh -c "$SSH list"` would do; this is plainer.
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	for name, command := range map[string]string{"on": "$GIT_SSH_COMMAND", "on-as-stranger": "$AS_STRANGER"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s scotch@127.0.0.1 \"$@\"\n", command)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	e.Setenv("PATH", bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	w.env = e.Vars
	e.Defer(func() {
		w.cleanUp(e)
		os.RemoveAll(dir)
	})
	return nil
}

// freePort is a port of the loopback interface that nothing listens at, from
// below the range that the kernel gives to outgoing connections, so that none
// of those takes it meanwhile.
func freePort() int {
	for {
		port := 15000 + rand.IntN(15000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		if _, taken := takenPorts.LoadOrStore(port, true); !taken {
			return port
		}
	}
}

var takenPorts sync.Map

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// cleanUp ends the server, its apps and its nginx, and sees to it that no
// process of theirs is left.
func (w *world) cleanUp(e *testscript.Env) {
	for _, h := range w.held {
		h.cmd.Process.Kill()
		<-h.done
	}
	if w.server == nil {
		// A server of a script that ended it with SIGTERM or SIGKILL left its
		// apps running: the next one takes them over, and ends them.
		if _, err := os.Stat(filepath.Join(w.dir, "scotch.cfg")); err == nil && len(w.processes()) > 0 {
			w.start()
		}
	}
	if err := w.end(syscall.SIGINT); err != nil {
		e.T().Log(err)
	}
	if left := w.processes(); len(left) > 0 {
		e.T().Log("processes are left: ", left, "\n", w.log.String())
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		e.T().FailNow()
	}
}

// processes lists the processes whose environment or command line names the
// server's directory.
func (w *world) processes() []int {
	var left []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if pid == os.Getpid() {
			continue
		}
		for _, f := range []string{"environ", "cmdline"} {
			if data, err := os.ReadFile(filepath.Join(dir, f)); err == nil && bytes.Contains(data, []byte(w.dir+"/")) {
				left = append(left, pid)
				break
			}
		}
	}
	return left
}

func (w *world) start(args ...string) error {
	r, pw := io.Pipe()
	cmd := exec.Command(w.program, append([]string{"serve", "--standalone", w.dir,
		"--listen", fmt.Sprintf("127.0.0.1:%d", w.ssh), "--http", fmt.Sprintf("127.0.0.1:%d", w.http)}, args...)...)
	cmd.Env = w.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(w.log, pw), w.log
	if err := cmd.Start(); err != nil {
		return err
	}
	ready := make(chan struct{})
	go func() {
		var text []byte
		buf := make([]byte, 4096)
		for told := false; ; {
			n, err := r.Read(buf)
			text = append(text, buf[:n]...)
			if !told && (bytes.HasSuffix(text, []byte("\nready\n"))) {
				told = true
				close(ready)
			}
			if err != nil {
				return
			}
		}
	}()
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		pw.Close()
		close(exited)
	}()
	select {
	case <-ready:
		w.server, w.exited = cmd, exited
		return nil
	case <-exited:
		return fmt.Errorf("the server ended at once: %v\n%s", cmd.ProcessState, w.log.String())
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		<-exited
		return fmt.Errorf("the server is not ready after a minute:\n%s", w.log.String())
	}
}

// end ends the server by a signal and waits for it.
func (w *world) end(sig syscall.Signal) error {
	if w.server == nil {
		return nil
	}
	w.server.Process.Signal(sig)
	defer func() { w.server = nil }()
	select {
	case <-w.exited:
	case <-time.After(time.Minute):
		w.server.Process.Signal(syscall.SIGQUIT) // Go prints where it hangs
		<-w.exited
		return fmt.Errorf("the server did not end after %s:\n%s", sig, w.log.String())
	}
	if strings.Contains(w.log.String(), "DATA RACE") {
		return fmt.Errorf("the server has a data race:\n%s", w.log.String())
	}
	return nil
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	err := w.start(args...)
	if neg != (err != nil) {
		ts.Fatalf("serve: %v", err)
	}
	if err != nil {
		ts.Logf("%v", err)
	}
}

func cmdStop(ts *testscript.TestScript, neg bool, args []string) {
	sig := syscall.SIGTERM
	if len(args) == 1 {
		sig = map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL}[args[0]]
	}
	ts.Check(worldOf(ts).end(sig))
}

// cmdKill9 ends, with SIGKILL, each process whose command line matches.
func cmdKill9(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	re := regexp.MustCompile(args[0])
	n := 0
	for _, pid := range w.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if re.Match(bytes.ReplaceAll(line, []byte{0}, []byte(" "))) && (w.server == nil || pid != w.server.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL)
			n++
		}
	}
	if n == 0 {
		ts.Fatalf("no process matches %s", args[0])
	}
}

func cmdScotch(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	err := ts.Exec(w.program, append([]string{"-c", filepath.Join(w.dir, "scotch.cfg")}, args...)...)
	if neg == (err == nil) {
		ts.Fatalf("scotch %s: %v", strings.Join(args, " "), err)
	}
}

// cmdGet sends one request through nginx.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	want, host := 200, ""
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-status":
			want, _ = strconv.Atoi(args[1])
		case "-host":
			host = args[1]
		}
		args = args[2:]
	}
	if host == "" {
		host, args = args[0]+".localhost", args[1:]
	}
	path := "/"
	if len(args) > 0 {
		path = args[0]
	}
	status, body, header, err := w.request(host, path)
	if err != nil {
		ts.Fatalf("get %s%s: %v", host, path, err)
	}
	ts.Logf("%d %s", status, strings.TrimSpace(body))
	fmt.Fprint(ts.Stdout(), body)
	if loc := header.Get("Location"); loc != "" {
		fmt.Fprintf(ts.Stdout(), "Location: %s\n", loc)
	}
	if (status == want) == neg {
		ts.Fatalf("get %s%s: status %d, want %d (%v)\n%s", host, path, status, want, !neg, w.log.String())
	}
}

func (w *world) request(host, path string) (int, string, http.Header, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", w.http, path), nil)
	if err != nil {
		return 0, "", nil, err
	}
	req.Host = host
	if !strings.Contains(host, ":") {
		req.Host = fmt.Sprintf("%s:%d", host, w.http)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), resp.Header, err
}

const appSource = `def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [%q.encode()]
`

// cmdApp makes a project that answers a text.
func cmdApp(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	text := "hello"
	if len(args) > 1 {
		text = args[1]
	}
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "app.py"), fmt.Appendf(nil, appSource, text+"\n"), 0o644))
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		return
	}
	ts.Check(ts.Exec("git", "init", "-q", dir))
	ts.Check(ts.Exec("git", "-C", dir, "remote", "add", "scotch", ts.Getenv("REMOTE")+"/"+filepath.Base(dir)))
}

func cmdCommit(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(ts.Exec("git", "-C", dir, "add", "-A"))
	ts.Check(ts.Exec("git", "-C", dir, "commit", "-q", "--allow-empty", "-m", args[1]))
}

// cmdWaitFor runs a command until its output matches: for what becomes true by
// itself, a little later.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile(args[0])
	w := worldOf(ts)
	name, rest := args[1], args[2:]
	if name == "scotch" {
		name, rest = w.program, append([]string{"-c", filepath.Join(w.dir, "scotch.cfg")}, rest...)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		cmd := exec.Command(name, rest...)
		cmd.Env = w.scriptEnv(ts)
		out, _ := cmd.CombinedOutput()
		if re.Match(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v still prints\n%s\nserver:\n%s", args[1:], out, w.log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *world) scriptEnv(ts *testscript.TestScript) []string {
	env := append([]string(nil), w.env...)
	return append(env, "PATH="+ts.Getenv("PATH"))
}

// cmdHold runs a command in the background; its output grows in NAME.out.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	file, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	h := &held{cmd: exec.Command(args[1], args[2:]...), out: &lockedBuffer{}, done: make(chan error, 1)}
	h.cmd.Env, h.cmd.Dir = w.scriptEnv(ts), ts.MkAbs(".")
	h.cmd.Stdout = io.MultiWriter(h.out, file)
	h.cmd.Stderr = h.cmd.Stdout
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(h.cmd.Start())
	go func() {
		err := h.cmd.Wait()
		file.Close()
		h.done <- err
	}()
	w.held[args[0]] = h
}

// cmdRelease waits for a held command; -kill ends it (with its group) first.
func cmdRelease(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	h := w.held[args[0]]
	if h == nil {
		ts.Fatalf("nothing is held as %s", args[0])
	}
	delete(w.held, args[0])
	if len(args) > 1 && args[1] == "-kill" {
		syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
	}
	select {
	case err := <-h.done:
		fmt.Fprint(ts.Stdout(), h.out.String())
		ts.Logf("%s", h.out.String())
		if neg == (err == nil) {
			ts.Fatalf("%s: %v", args[0], err)
		}
	case <-time.After(2 * time.Minute):
		h.cmd.Process.Kill()
		ts.Fatalf("%s does not end:\n%s\nserver:\n%s", args[0], h.out.String(), w.log.String())
	}
}

// lockedBuffer is a bytes.Buffer for many.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
