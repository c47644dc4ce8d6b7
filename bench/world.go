package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// world is a server, scotch serve --standalone, and a person with a key, both
// below a temporary directory.
type world struct {
	program   string
	home, dir string // the person's; the server's
	ssh, http int
	env       []string
	key       string
	client    *http.Client

	server *exec.Cmd
	exited chan struct{}
	log    buffer
}

// patience bounds each program that is run.
const patience = 5 * time.Minute

func newWorld(program string) (*world, error) {
	home, err := os.MkdirTemp("/tmp", "sb") // short, for the sake of socket paths
	if err != nil {
		return nil, err
	}
	w := &world{program: program, home: home, dir: filepath.Join(home, "v"), key: filepath.Join(home, ".ssh", "id_ed25519")}
	w.client = &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	for _, port := range []*int{&w.ssh, &w.http} {
		if *port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(filepath.Dir(w.key), 0o700); err != nil {
		return nil, err
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", w.key).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ssh-keygen: %w\n%s", err, out)
	}
	config := "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n[gc]\n\tauto = 0\n"
	if err := os.WriteFile(filepath.Join(home, "gitconfig"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	w.env = append(os.Environ(), "HOME="+home, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C.UTF-8",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+filepath.Join(home, "gitconfig"), "GIT_SSH_COMMAND="+w.sshCommand(w.key))
	return w, nil
}

// sshCommand is ssh with a key and nothing of this machine's own configuration.
func (w *world) sshCommand(key string) string {
	return fmt.Sprintf("ssh -F /dev/null -o IdentitiesOnly=yes -o UserKnownHostsFile=%s/known_hosts -o StrictHostKeyChecking=accept-new -o BatchMode=yes -o LogLevel=ERROR -i %s", w.home, key)
}

// freePort is a port of the loopback interface that nothing listens at, from
// below the range that the kernel gives to outgoing connections.
func freePort() (int, error) {
	for range 100 {
		port := 15000 + rand.IntN(15000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}

// start starts the server and waits until it is ready.
func (w *world) start(ctx context.Context) error {
	cmd := exec.Command(w.program, "serve", "--standalone", w.dir,
		"--listen", fmt.Sprintf("127.0.0.1:%d", w.ssh), "--http", fmt.Sprintf("127.0.0.1:%d", w.http))
	cmd.Env = w.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	ready := &watched{to: &w.log, want: "\nready\n", seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = ready, &w.log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	w.server, w.exited = cmd, exited
	select {
	case <-ready.seen:
		return nil
	case <-exited:
		w.server = nil
		return fmt.Errorf("the server ended at once: %v\n%s", cmd.ProcessState, &w.log)
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("the server is not ready after two minutes\n%s", &w.log)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// interrupt ends the server with all its apps.
const interrupt = syscall.SIGINT

// end ends the server by a signal and waits for it.
func (w *world) end(sig syscall.Signal) error {
	if w.server == nil {
		return nil
	}
	defer func() { w.server = nil }()
	w.server.Process.Signal(sig)
	select {
	case <-w.exited:
		return nil
	case <-time.After(90 * time.Second):
		syscall.Kill(-w.server.Process.Pid, syscall.SIGKILL)
		<-w.exited
		return fmt.Errorf("the server did not end after %s\n%s", sig, &w.log)
	}
}

// close ends the server with all its apps, and removes what was made. In a hurry,
// because the run was interrupted, nothing is waited for.
func (w *world) close(ctx context.Context) error {
	if ctx.Err() != nil && w.server != nil {
		w.server.Process.Kill()
	}
	err := w.end(interrupt)
	for range 3 { // what ends now may have been starting others
		for _, pid := range w.processes() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return errors.Join(err, os.RemoveAll(w.home))
}

// processes are those whose environment or command line names the world's directory.
func (w *world) processes() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if pid == os.Getpid() {
			continue
		}
		for _, f := range []string{"environ", "cmdline"} {
			if data, err := os.ReadFile(filepath.Join(dir, f)); err == nil && bytes.Contains(data, []byte(w.home+"/")) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// run runs a program to its end and returns what it wrote. One that fails is an
// error with the end of that.
func (w *world) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	var out buffer
	err := w.runTo(ctx, &out, dir, name, args...)
	return out.String(), err
}

func (w *world) runTo(ctx context.Context, out io.Writer, dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, w.env
	var text buffer
	cmd.Stdout = io.MultiWriter(out, &text)
	cmd.Stderr = cmd.Stdout
	// With ssh, which holds the output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, lastLines(text.String(), 20))
	}
	return nil
}

// scotch runs a command on the server.
func (w *world) scotch(ctx context.Context, args ...string) (string, error) {
	return w.run(ctx, w.home, w.program, append([]string{"-c", filepath.Join(w.dir, "scotch.cfg")}, args...)...)
}

// appFile writes an app's own file; it counts from the next operation on.
func (w *world) appFile(app, text string) error {
	return os.WriteFile(filepath.Join(w.dir, "apps-enabled", app+".cfg"), []byte(text), 0o600)
}

// get asks an app through nginx.
func (w *world) get(ctx context.Context, app, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", w.http, path), nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = fmt.Sprintf("%s.localhost:%d", app, w.http)
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// answers asks an app until it answers with a text, and is an error after a while.
func (w *world) answers(ctx context.Context, app, text string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		status, body, err := w.get(ctx, app, "/")
		if err == nil && status == http.StatusOK && strings.Contains(body, text) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s answers %d %.100q (%v), want %q", app, status, body, err, text)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, or returns why ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// buffer is a bytes.Buffer for many.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// watched tells when a text has come by.
type watched struct {
	to   *buffer
	want string
	seen chan struct{}
	told bool
	text []byte
}

func (w *watched) Write(p []byte) (int, error) {
	if w.text = append(w.text, p...); !w.told && bytes.Contains(w.text, []byte(w.want)) {
		w.told = true
		close(w.seen)
	}
	return w.to.Write(p)
}
