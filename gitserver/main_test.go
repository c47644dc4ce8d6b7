package gitserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
	"scotch/hooks"
)

// TestMain makes the test's own program the hooks of the repositories that it
// pushes to, as main does for scotch.
func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	if os.Getenv(suiteMark) != "" && name != "git-receive-pack" {
		syscall.Exit(hooks.Main(name, os.Stdin, os.Stdout, os.Stderr, os.Getenv))
	}
	switch name {
	case "git-receive-pack":
		syscall.Exit(receiveForSuite(os.Args))
	case "pre-receive", "post-receive":
		if name == "pre-receive" && os.Getenv("TEST_KILL_GIT") != "" {
			syscall.Kill(os.Getppid(), syscall.SIGKILL)
		}
		io.Copy(io.Discard, os.Stdin)
		syscall.Exit(0)
	case "proc-receive":
		if err := procReceive(); err != nil {
			fmt.Fprintln(os.Stderr, "proc-receive:", err)
			syscall.Exit(1)
		}
		syscall.Exit(0) // os.Exit waits for a second under the race detector
	}
	os.Exit(m.Run())
}

// repositories is a folder of bare repositories.
type repositories string

func (r repositories) Path(app string) string { return filepath.Join(string(r), app+".git") }
func (r repositories) Exists(app string) bool {
	_, err := os.Stat(filepath.Join(r.Path(app), "HEAD"))
	return err == nil
}

// fixture is a server with an admin, somebody who may push to blog, and
// somebody who may read blog.
type fixture struct {
	*Server
	t       *testing.T
	dir     string
	port    string
	keys    *access.Keyring
	repos   repositories
	pushes  *pusher
	log     *syncBuffer
	signers map[string]gossh.Signer
}

// start serves until the test is over. change may alter the server before that.
func start(t *testing.T, change func(f *fixture)) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{
		t: t, dir: dir,
		keys:    access.OpenKeyring(filepath.Join(dir, "authorized_keys")),
		repos:   repositories(filepath.Join(dir, "repositories")),
		pushes:  &pusher{},
		log:     &syncBuffer{},
		signers: map[string]gossh.Signer{},
	}
	hostKey, _, err := LoadOrCreateHostKey(filepath.Join(dir, "host_key"))
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(f.log)
	f.Server = &Server{
		HostKey: hostKey, Keys: f.keys, Repositories: f.repos, Pushes: f.pushes, Log: log,
		// Not the memory: a program with the race detector needs terabytes of it.
		Git: GitOptions{Dir: filepath.Join(dir, "git"), Limits: Limits{Memory: -1}},
		// Bad logins are what many tests are about.
		Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		CreateApp: func(ctx context.Context, app, by string) error {
			return exec.CommandContext(ctx, "git", "init", "-q", "--bare", "-b", "main", f.repos.Path(app)).Run()
		},
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Server.Git.Prepare(self); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(string(f.repos), 0o755); err != nil {
		t.Fatal(err)
	}
	f.addKey("alice", access.Admin, nil)
	f.addKey("bob", access.Push, []string{"blog"})
	f.addKey("carol", access.Read, []string{"blog"})
	if change != nil {
		change(f)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, f.port, _ = net.SplitHostPort(l.Addr().String())
	line := fmt.Sprintf("[127.0.0.1]:%s %s", f.port, gossh.MarshalAuthorizedKey(hostKey.PublicKey()))
	if err := os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
		closed := make(chan struct{})
		go func() { f.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			panic("Close does not return; log:\n" + f.log.String())
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", f.log)
		}
	})
	return f
}

// addKey makes a key pair in a file of that name, and lets it in.
func (f *fixture) addKey(name string, role access.Role, apps []string) {
	f.t.Helper()
	signer := f.newKey(name)
	if err := f.keys.Add(name, role, apps, string(gossh.MarshalAuthorizedKey(signer.PublicKey()))); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) newKey(name string) gossh.Signer {
	f.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(private, name)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
		f.t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		f.t.Fatal(err)
	}
	f.signers[name] = signer
	return signer
}

// app makes an app's repository.
func (f *fixture) app(name string) {
	f.t.Helper()
	if err := f.Server.CreateApp(f.t.Context(), name, ""); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) sshArgs(who string) []string {
	return []string{"-F", "/dev/null", "-i", filepath.Join(f.dir, who), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile=" + filepath.Join(f.dir, "known_hosts"), "-o", "StrictHostKeyChecking=yes",
		"-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-p", f.port}
}

// ssh runs the real client.
func (f *fixture) ssh(who string, command ...string) result {
	f.t.Helper()
	args := append(f.sshArgs(who), "scotch@127.0.0.1")
	return f.run(exec.Command("ssh", append(args, command...)...))
}

func (f *fixture) url(app string) string { return "ssh://scotch@127.0.0.1:" + f.port + "/" + app }

// gitCommand is the real git, going to the server as who, in a work tree of the test's.
func (f *fixture) gitCommand(who string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir = filepath.Join(f.dir, "work")
	cmd.Env = append(os.Environ(),
		"GIT_SSH_COMMAND=ssh "+strings.Join(f.sshArgs(who), " "),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@example.org", "GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@example.org")
	return cmd
}

func (f *fixture) git(who string, args ...string) result {
	f.t.Helper()
	return f.run(f.gitCommand(who, args...))
}

// commit makes the work tree if there is none, and a commit in it.
func (f *fixture) commit() string {
	f.t.Helper()
	work := filepath.Join(f.dir, "work")
	if _, err := os.Stat(work); err != nil {
		if err := os.Mkdir(work, 0o755); err != nil {
			f.t.Fatal(err)
		}
		f.git("alice", "init", "-q", "-b", "main").ok()
	}
	if err := os.WriteFile(filepath.Join(work, "app.py"), []byte(rand.Text()), 0o644); err != nil {
		f.t.Fatal(err)
	}
	f.git("alice", "add", ".").ok()
	f.git("alice", "commit", "-q", "-m", "a change").ok()
	return strings.TrimSpace(f.git("alice", "rev-parse", "HEAD").ok().out)
}

// ref is what a ref of an app points to, on the server.
func (f *fixture) ref(app, name string) string {
	out, _ := exec.Command("git", "-C", f.repos.Path(app), "rev-parse", "-q", "--verify", name).Output()
	return strings.TrimSpace(string(out))
}

// result is how a program ended.
type result struct {
	t        *testing.T
	what     string
	out, err string
	status   int
}

func (f *fixture) run(cmd *exec.Cmd) result {
	f.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		f.t.Fatal(err)
	}
	return result{t: f.t, what: strings.Join(cmd.Args[len(cmd.Args)-2:], " "), out: out.String(), err: errs.String(), status: cmd.ProcessState.ExitCode()}
}

func (r result) ok() result { r.t.Helper(); return r.exits(0) }

func (r result) exits(status int) result {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s: exit status %d, want %d\n%s%s", r.what, r.status, status, r.out, r.err)
	}
	return r
}

func (r result) says(text string) result {
	r.t.Helper()
	if !strings.Contains(r.out+r.err, text) {
		r.t.Errorf("%s: does not say %q:\n%s%s", r.what, text, r.out, r.err)
	}
	return r
}

// dial is a raw client.
func (f *fixture) dial(who string) *gossh.Client {
	f.t.Helper()
	c, err := f.tryDial(gossh.PublicKeys(f.signers[who]))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

func (f *fixture) tryDial(auth ...gossh.AuthMethod) (*gossh.Client, error) {
	return f.tryDialFrom("127.0.0.1", auth...)
}

// tryDialFrom is a raw client at an address of its own, 127.0.0.2 for instance.
func (f *fixture) tryDialFrom(from string, auth ...gossh.AuthMethod) (*gossh.Client, error) {
	nc, err := f.connect(from)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	conn, chans, reqs, err := gossh.NewClientConn(nc, "", &gossh.ClientConfig{
		User: "anybody", Auth: auth, HostKeyCallback: gossh.FixedHostKey(f.HostKey.PublicKey()),
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	return gossh.NewClient(conn, chans, reqs), nil
}

// connect connects and says nothing.
func (f *fixture) connect(from string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return d.Dial("tcp", "127.0.0.1:"+f.port)
}

type syncBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{} // closed at the next Write
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written != nil {
		close(s.written)
		s.written = nil
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// has waits until the text is there n times.
func (s *syncBuffer) has(t *testing.T, text string, n int) {
	t.Helper()
	for deadline := time.After(10 * time.Second); ; {
		s.mu.Lock()
		if strings.Count(s.b.String(), text) >= n {
			s.mu.Unlock()
			return
		}
		if s.written == nil {
			s.written = make(chan struct{})
		}
		written := s.written
		s.mu.Unlock()
		select {
		case <-written:
		case <-deadline:
			t.Fatalf("the log does not say %q %d times", text, n)
		}
	}
}

// wait fails the test when c does not get anything within 10 seconds.
func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("not reached")
	}
}

// eventually waits until something is true that nobody tells of.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
