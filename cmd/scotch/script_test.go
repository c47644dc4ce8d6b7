package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
//	serve [VAR=V…] [FLAG…] start scotch serve --standalone and wait until it is ready; variables stay
//	end [SIGNAL]           end it (SIGTERM, or SIGINT, SIGKILL) and wait for its end
//	signal [SIGNAL]        only send it; end waits for it
//	scotch ARG…            the program, with -c for the script's own server
//	get [-status N] [-host H] APP [PATH]   a request through nginx; its body is the stdout
//	app DIR [TEXT]         a small WSGI app that answers TEXT, in a git repository with a remote
//	commit DIR MESSAGE     git add and commit all
//	exits N CMD…           run a command whose exit status must be N
//	waitfor PATTERN CMD…   run a command again until its output matches; `! waitfor …`: until it does not
//	hold NAME CMD…         run a command in the background; its output grows in NAME.out
//	release NAME [-kill]   wait for the end of what is held; its output is the stdout
//	pid APP VAR            put the pid of an app's live process into a variable
//	kill9 PATTERN          SIGKILL for the server's processes whose command line matches
//	hammer APP, rest APP   ask an app all the time, and stop: each answer must have been 200
//	serverlog              what the server wrote, as the stdout
//
// CMD is a program, or scotch, get. Programs in the PATH of a script: on ARG…
// runs a command over ssh as the admin, on-as-stranger with the key $STRANGER,
// which nobody knows at first. GIT_SSH_COMMAND is the admin's; `env
// GIT_SSH_COMMAND=$AS_STRANGER` makes git be the other.
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
		Condition:           scriptCondition,
		Cmds: withTerminals(map[string]func(*testscript.TestScript, bool, []string){
			"serve": cmdServe, "end": cmdEnd, "signal": cmdSignal, "get": cmdGet, "app": cmdApp, "commit": cmdCommit,
			"waitfor": cmdWaitFor, "hold": cmdHold, "release": cmdRelease, "scotch": cmdScotch, "kill9": cmdKill9,
			"exits": cmdExits, "pid": cmdPID, "hammer": cmdHammer, "rest": cmdRest, "serverlog": cmdServerLog, "harmless": cmdHarmless,
		}),
	})
}

// scriptCondition knows [second-python]: the machine has a Python 3.12 of pyenv's
// beside its own; $PYTHON312 is its path. [compiler]: extensions in C can be built.
func scriptCondition(name string) (bool, error) {
	switch name {
	case "second-python":
		return secondPython() != "", nil
	case "compiler":
		if _, err := exec.LookPath("gcc"); err != nil {
			return false, nil
		}
		dir, err := exec.Command("/usr/bin/python3", "-I", "-c", "import sysconfig; print(sysconfig.get_path('include'))").Output()
		if err != nil {
			return false, nil
		}
		_, err = os.Stat(filepath.Join(strings.TrimSpace(string(dir)), "Python.h"))
		return err == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

func secondPython() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions/3.12.*/bin/python3.12"))
	if len(found) == 0 {
		return ""
	}
	return found[0]
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
	bin       string // programs for scripts
	ssh, http int
	env       []string

	server *exec.Cmd
	exited chan struct{}
	ending bool // it was sent its signal
	log    *lockedBuffer
	held   map[string]*held
	loads  map[string]*load
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
	w := &world{program: program, dir: filepath.Join(dir, "v"), ssh: freePort(), http: freePort(), log: &lockedBuffer{}, held: map[string]*held{}, loads: map[string]*load{}}
	e.Values[worldKey{}] = w
	e.Values[screensKey{}] = screens{}
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
	sshCommand := fmt.Sprintf("ssh -F /dev/null -o IdentitiesOnly=yes -o UserKnownHostsFile=%s/known_hosts -o StrictHostKeyChecking=accept-new -o BatchMode=yes -o LogLevel=ERROR -p %d", home, w.ssh)
	e.Setenv("HOME", home)
	e.Setenv("TMPDIR", os.TempDir())
	e.Setenv("PATH", os.Getenv("PATH"))
	e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	e.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, "gitconfig"))
	e.Setenv("GIT_SSH_COMMAND", sshCommand+" -i "+filepath.Join(sshDir, "id_ed25519"))
	e.Setenv("AS_ADMIN", sshCommand+" -i "+filepath.Join(sshDir, "id_ed25519"))
	e.Setenv("AS_STRANGER", sshCommand+" -i "+filepath.Join(home, "stranger"))
	e.Setenv("STRANGER", filepath.Join(home, "stranger"))
	e.Setenv("SERVER", w.dir)
	// The race detector makes each program sleep a second at its end.
	e.Setenv("GORACE", quickRace)
	e.Setenv("SSH_PORT", strconv.Itoa(w.ssh))
	e.Setenv("HTTP_PORT", strconv.Itoa(w.http))
	e.Setenv("FREE_PORT", strconv.Itoa(freePort()))
	e.Setenv("SCOTCH", program)
	e.Setenv("PYTHON312", secondPython())
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
	w.bin = filepath.Join(dir, "bin")
	if err := os.Mkdir(w.bin, 0o755); err != nil {
		return err
	}
	for name, command := range map[string]string{"on": "$AS_ADMIN", "on-as-stranger": "$AS_STRANGER"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s scotch@127.0.0.1 \"$@\"\n", command)
		if err := os.WriteFile(filepath.Join(w.bin, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	e.Setenv("PATH", w.bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
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
	for _, l := range w.loads {
		l.end()
	}
	for _, h := range w.held {
		syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL) // with its ssh, which holds the output open
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

const quickRace = "atexit_sleep_ms=0"

// quickHooks makes git's hooks set GORACE for themselves: scotch gives git and
// its hooks an environment of its own, and three hooks make three seconds.
func (w *world) quickHooks() error {
	if !raceEnabled {
		return nil
	}
	hooks, err := filepath.Glob(filepath.Join(w.dir, "run", "git", "hooks", "*-receive"))
	if err != nil {
		return err
	}
	for _, h := range hooks {
		text := fmt.Sprintf("#!/bin/sh\nGORACE=%s exec %s hook %s\n", quickRace, w.program, filepath.Base(h))
		if err := os.Remove(h); err != nil {
			return err
		}
		if err := os.WriteFile(h, []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
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
		return w.quickHooks()
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
	if !w.ending { // a second signal would end it at once
		w.server.Process.Signal(sig)
	}
	defer func() { w.server, w.ending = nil, false }()
	select {
	case <-w.exited:
	case <-time.After(30 * time.Second):
		w.server.Process.Signal(syscall.SIGQUIT) // Go prints where it hangs
		<-w.exited
		return fmt.Errorf("the server did not end after %s:\n%s", sig, w.log.String())
	}
	if strings.Contains(w.log.String(), "DATA RACE") {
		return fmt.Errorf("the server has a data race:\n%s", w.log.String())
	}
	return nil
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
