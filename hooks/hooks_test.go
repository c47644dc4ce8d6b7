package hooks_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/git"
	"scotch/hooks"
)

// The test binary is also the hooks that git runs, by symbolic links to it.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case hooks.PreReceive, hooks.ProcReceive, hooks.PostReceive:
		os.Exit(hooks.Main(name, os.Stdin, os.Stdout, os.Stderr, os.Getenv))
	}
	os.Exit(m.Run())
}

const zero = "0000000000000000000000000000000000000000"

// fake is a Deployer that moves refs as the real one does, and nothing else.
type fake struct {
	git *git.Git

	mu       sync.Mutex
	requests []deployer.Request
	// run, where set, is the deploy; its error fails it.
	run func(ctx context.Context, r deployer.Request, out io.Writer) error
}

func (f *fake) Deploy(ctx context.Context, r deployer.Request, out io.Writer) (deployer.Result, error) {
	f.mu.Lock()
	f.requests = append(f.requests, r)
	n := len(f.requests)
	run := f.run
	f.mu.Unlock()
	fmt.Fprintf(out, "-----> %s: deploying %.7s\n", r.App, r.Commit)
	if run != nil {
		if err := run(ctx, r, out); err != nil {
			return deployer.Result{}, err
		}
	}
	ctx = context.WithoutCancel(ctx)
	head := strings.TrimPrefix(r.Ref, "refs/heads/")
	if err := f.git.Create(ctx, r.App, head); err != nil {
		return deployer.Result{}, err
	}
	tx, err := f.git.Prepare(ctx, r.App, []deployer.RefUpdate{
		{Ref: r.Ref, Old: r.Old, New: r.Commit},
		{Ref: fmt.Sprintf("refs/releases/v%d", n), Old: zero, New: r.Commit},
	})
	if err != nil {
		return deployer.Result{}, err
	}
	if err := tx.Commit(); err != nil {
		return deployer.Result{}, err
	}
	fmt.Fprintf(out, "-----> live at http://blog.example.org/\n")
	return deployer.Result{Release: n}, nil
}

// server is an app's repository with hooks, and a clone beside it.
type server struct {
	t        *testing.T
	git      *git.Git
	deployer *fake
	handler  *hooks.Handler
	hooks    string // folder
	work     string
	branch   string // [git] branch
	set      bool
	denied   []string // verbs that the pusher may not
	gone     chan struct{}
}

func newServer(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, hooks: filepath.Join(dir, "hooks"), work: filepath.Join(dir, "work"), branch: "main"}
	s.git = git.New(filepath.Join(dir, "repositories"), direct.New(filepath.Join(dir, "run"), direct.Options{}), git.Options{})
	s.deployer = &fake{git: s.git}
	s.handler = &hooks.Handler{
		Repository: s.git, Deployer: s.deployer, SSH: "ssh scotch@host",
		Branch: func(string) (string, bool, error) { return s.branch, s.set, nil },
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{hooks.PreReceive, hooks.ProcReceive, hooks.PostReceive} {
		if err := os.Symlink(exe, filepath.Join(s.hooks, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.git.Create(t.Context(), "blog", "main"); err != nil {
		t.Fatal(err)
	}
	s.run("", "init", "-q", "-b", "main", s.work)
	s.run(s.work, "remote", "add", "scotch", s.git.Path("blog"))
	return s
}

func (s *server) command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org",
		"GORACE=atexit_sleep_ms=0") // else each hook sleeps for a second under -race
	return cmd
}

func (s *server) run(dir string, args ...string) string {
	s.t.Helper()
	out, err := s.command(dir, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *server) commit(subject string) string {
	s.t.Helper()
	s.run(s.work, "commit", "-q", "--allow-empty", "-m", subject)
	return s.run(s.work, "rev-parse", "HEAD")
}

// start begins a push from dir, its output going to out. wait returns when the
// push and its handler have ended.
func (s *server) start(dir string, out io.Writer, args ...string) (cmd *exec.Cmd, wait func() int) {
	s.t.Helper()
	return s.startAs(dir, out, nil, args...)
}

// startGroup is start in a process group of its own, from the work tree.
func (s *server) startGroup(out io.Writer, args ...string) (cmd *exec.Cmd, wait func() int) {
	s.t.Helper()
	return s.startAs(s.work, out, &syscall.SysProcAttr{Setpgid: true}, args...)
}

func (s *server) startAs(dir string, out io.Writer, attr *syscall.SysProcAttr, args ...string) (cmd *exec.Cmd, wait func() int) {
	s.t.Helper()
	cmd = s.command(dir, append([]string{"push", "--receive-pack=git " + strings.Join(s.receivePack(), " ")}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = attr
	return cmd, s.handle(cmd)
}

// receivePack are git's words to receive a push.
func (s *server) receivePack() []string {
	words := []string{"-c", "core.hooksPath=" + s.hooks}
	for _, c := range []string{"receive.procReceiveRefs=refs", "receive.advertisePushOptions=true", "receive.shallowUpdate=true",
		"transfer.hideRefs=refs/releases", "transfer.hideRefs=refs/scotch", "receive.autogc=false"} {
		words = append(words, "-c", c)
	}
	return append(words, "receive-pack")
}

// raw is a push of commits that no git would send: the updates as they are written.
func (s *server) raw(updates []string, commits ...string) (said string) {
	s.t.Helper()
	pack := s.command(s.work, "pack-objects", "--stdout", "--revs", "-q")
	pack.Stdin = strings.NewReader(strings.Join(commits, "\n") + "\n")
	data, err := pack.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	var in, out bytes.Buffer
	for i, u := range updates {
		if i == 0 {
			u += "\x00report-status"
		}
		fmt.Fprintf(&in, "%04x%s", len(u)+4, u)
	}
	in.WriteString("0000")
	in.Write(data)
	cmd := s.command("", append(s.receivePack(), s.git.Path("blog"))...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &out
	s.handle(cmd)()
	return out.String()
}

// handle starts a push, with a handler for its hooks. wait returns when both have ended.
func (s *server) handle(cmd *exec.Cmd) (wait func() int) {
	s.t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "hooks")
	ours := os.NewFile(uintptr(fds[0]), "server")
	conn, err := net.FileConn(ours)
	if err != nil {
		s.t.Fatal(err)
	}
	ours.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.handler.Handle(context.WithoutCancel(s.t.Context()), conn, hooks.Push{
			App: "blog", By: "ada", Dir: s.git.Path("blog"), Gone: s.gone,
			May: func(verb string) bool { return !slices.Contains(s.denied, verb) },
		})
	}()
	cmd.Env = append(cmd.Env, hooks.FDVariable+"=3")
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	theirs.Close()
	return func() int {
		cmd.Wait()
		<-done
		return cmd.ProcessState.ExitCode()
	}
}

// push pushes from the work tree and checks the exit status and what is said.
func (s *server) push(status int, want []string, args ...string) string {
	s.t.Helper()
	var out bytes.Buffer
	_, wait := s.start(s.work, &out, append([]string{"scotch"}, args...)...)
	got := wait()
	if got != status {
		s.t.Errorf("git push %s exited with %d, want %d", strings.Join(args, " "), got, status)
	}
	said := out.String()
	for _, w := range want {
		if !strings.Contains(said, w) {
			s.t.Errorf("git push %s does not say %q", strings.Join(args, " "), w)
		}
	}
	if s.t.Failed() {
		s.t.Log("git push says:\n" + said)
	}
	return said
}

func (s *server) ref(name string) string {
	s.t.Helper()
	id, err := s.git.Ref(s.t.Context(), "blog", name)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *server) wantRef(name, want string) {
	s.t.Helper()
	if got := s.ref(name); got != want {
		s.t.Errorf("%s is %q, want %q", name, got, want)
	}
}

func (s *server) deploys(want int) {
	s.t.Helper()
	if got := len(s.deployer.requests); got != want {
		s.t.Errorf("%d deploys, want %d", got, want)
	}
}
