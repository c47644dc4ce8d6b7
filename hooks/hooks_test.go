package hooks_test

import (
	"bytes"
	"context"
	"errors"
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
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org")
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
	receive := "git -c core.hooksPath=" + s.hooks + " -c receive.procReceiveRefs=refs -c receive.advertisePushOptions=true" +
		" -c receive.shallowUpdate=true -c transfer.hideRefs=refs/releases -c transfer.hideRefs=refs/scotch -c receive.autogc=false receive-pack"
	cmd = s.command(dir, append([]string{"push", "--receive-pack=" + receive}, args...)...)
	cmd.Env = append(cmd.Env, hooks.FDVariable+"=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	theirs.Close()
	return cmd, func() int {
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

func TestPushDeploys(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, []string{"remote: -----> blog: deploying " + one[:7], "remote: -----> live at http://", "* [new branch]      main -> main"}, "main")
	s.wantRef("refs/heads/main", one)
	two := s.commit("two")
	s.push(0, []string{one[:7] + ".." + two[:7] + "  main -> main"}, "main")
	s.wantRef("refs/heads/main", two)
	s.push(0, []string{"Everything up-to-date"}, "main")
	s.deploys(2)
	r := s.deployer.requests[1]
	if r.App != "blog" || r.By != "ada" || r.Old != one || r.Commit != two || r.Ref != "refs/heads/main" || r.Clean {
		t.Errorf("%+v", r)
	}
	if s.deployer.requests[0].Old != zero {
		t.Errorf("%+v", s.deployer.requests[0])
	}
	// Fetch and clone see what is live, and no releases.
	if out := s.run(s.work, "-c", "transfer.hideRefs=refs/releases", "ls-remote", "scotch", "HEAD"); !strings.HasPrefix(out, two) {
		t.Errorf("HEAD is %q", out)
	}
	s.run(s.git.Path("blog"), "fsck", "--strict")
}

func TestDeployFails(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, nil, "main")
	s.deployer.run = func(_ context.Context, _ deployer.Request, out io.Writer) error {
		fmt.Fprint(out, "ERROR: no matching\x1b[2J distribution\nunfinished line")
		return &deployer.StageError{Stage: "checkout", Err: &deployer.ExitError{Name: "pip", Status: 1}}
	}
	s.commit("two")
	s.push(1, []string{
		"! [remote rejected] main -> main (deploy failed in checkout: pip exited with 1)",
		`remote: ERROR: no matching\x1b[2J distribution`, "remote: unfinished line",
	}, "main")
	s.wantRef("refs/heads/main", one)

	s.deployer.run = func(context.Context, deployer.Request, io.Writer) error {
		return &deployer.RefusedError{Reason: `"blog" is locked by bob since Monday: release night`, Hint: "to unlock it: ssh scotch@host unlock blog\nor ask bob"}
	}
	s.push(1, []string{
		`! [remote rejected] main -> main ("blog" is locked by bob since Monday: release night)`,
		"remote:        to unlock it: ssh scotch@host unlock blog", "remote:        or ask bob",
	}, "main")

	s.deployer.run = func(context.Context, deployer.Request, io.Writer) error {
		return errors.New("disk full\nsecond line\x1b")
	}
	said := s.push(1, []string{"(deploy failed: disk full)"}, "main")
	if strings.Contains(said, "\x1b[2J") || strings.Contains(said, "\x1b\n") {
		t.Errorf("%q", said)
	}
	s.wantRef("refs/heads/main", one)
	s.deployer.run = nil
	s.push(0, nil, "main") // the same push works
}

func TestOthersAreStored(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, []string{
		"remote:        stored dev, not deployed: blog deploys from main",
		"remote:        to deploy it: ssh scotch@host deploy blog --ref dev", "[new branch]      main -> dev",
	}, "main:dev")
	s.wantRef("refs/heads/dev", one)
	s.deploys(0)
	s.run(s.work, "tag", "-a", "-m", "x", "v1.0")
	s.push(0, []string{"stored v1.0, not deployed", "[new tag]         v1.0 -> v1.0"}, "v1.0")
	s.wantRef("refs/tags/v1.0", s.run(s.work, "rev-parse", "v1.0"))
	s.push(0, []string{`--ref 'x;$(id)'`}, "main:x;$(id)")
	s.push(0, []string{`deleted "dev"`, "- [deleted]         dev"}, ":dev")
	s.wantRef("refs/heads/dev", "")
	// Many are not all named.
	args := []string{}
	for i := range 9 {
		args = append(args, fmt.Sprintf("main:b%d", i))
	}
	s.push(0, []string{"stored b4,", "and 4 more, not deployed"}, args...)
	s.deploys(0)
}

func TestSeveralRefs(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.deployer.run = func(context.Context, deployer.Request, io.Writer) error {
		return &deployer.StageError{Stage: "register", Err: errors.New("no answer")}
	}
	s.push(1, []string{"[remote rejected] main -> main (deploy failed in register: no answer)", "[new branch]      main -> dev"}, "main", "main:dev")
	s.wantRef("refs/heads/main", "")
	s.wantRef("refs/heads/dev", one)
	s.deployer.run = nil
	s.deploys(1)

	// git can't take a live switch back.
	s.push(1, []string{
		`! [remote rejected] main -> main ("main" goes live and can't be part of an atomic push)`,
		`! [remote rejected] main -> dev2 ("main" goes live and can't be part of an atomic push)`, "leave out --atomic",
	}, "--atomic", "main", "main:dev2")
	s.deploys(1)
	s.wantRef("refs/heads/dev2", "")
	s.push(0, nil, "--atomic", "main:dev2", "main:dev3")
	s.wantRef("refs/heads/dev3", one)
	s.push(1, []string{"(atomic push: another ref was refused)"}, "--atomic", "main:dev4", "main:refs/notes/x")
	s.wantRef("refs/heads/dev4", "")
	s.push(0, nil, "--atomic", "main")
	s.wantRef("refs/heads/main", one)
}

func TestForce(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	two := s.commit("two")
	s.push(0, nil, "main", "main:dev")
	s.run(s.work, "reset", "-q", "--hard", "HEAD^")
	other := s.commit("other")
	s.denied = []string{"force"}
	s.push(1, []string{`(fetch first: "main" would lose commits, and key "ada" may not force)`, "git pull --rebase"}, "--force", "main")
	s.push(1, []string{`(fetch first: "dev" would lose commits`}, "--force", "main:dev")
	s.wantRef("refs/heads/main", two)
	s.denied = nil
	s.push(1, []string{"[rejected]", "non-fast-forward"}, "main") // git's own
	s.push(0, []string{"+ " + two[:7] + "..." + other[:7] + " main -> main (forced update)"}, "--force", "main")
	s.wantRef("refs/heads/main", other)
	s.denied = []string{"push"}
	s.commit("more")
	s.push(1, []string{`(key "ada" may not push to "blog")`}, "main")
	s.deploys(2)
}

func TestRefused(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, nil, "main")
	s.push(1, []string{`! [remote rejected] main ("main" is the branch that "blog" is deployed from and can't be deleted)`, "ssh scotch@host destroy blog --force"}, ":main")
	s.wantRef("refs/heads/main", one)
	s.push(1, []string{"(only branches and tags can be pushed)"}, "main:refs/notes/x")
	s.push(1, []string{"[remote rejected]"}, "main:refs/releases/v9")
	s.push(1, []string{"[remote rejected]"}, "main:refs/scotch/source/HEAD")
	s.push(1, []string{"(bad name: "}, "main:refs/heads/HEAD")
	s.push(1, []string{"(bad name: it begins with a dash"}, "main:refs/heads/-x")
	s.push(1, []string{"(bad name: it holds characters"}, "main:refs/heads/x\xff")
	s.push(1, []string{`("main/x" can't stand beside "main", the branch that deploys)`}, "main:refs/heads/main/x")
	// git's own client refuses a tree as a branch unless the name is whole.
	s.push(1, []string{"(a branch must be a commit, this is a tree)"}, "main^{tree}:refs/heads/tree")
	s.push(1, []string{`(unknown push option "ci.skip")`, "git config --show-origin"}, "-o", "ci.skip", "main:dev")
	s.handler.Limits = hooks.MaxRefs(2)
	s.push(1, []string{"the push has 3 refs, at most 2 are taken at once", "(pre-receive hook declined)"}, "main:a", "main:b", "main:c")
	s.handler.Limits = nil
	s.handler.Branch = func(string) (string, bool, error) { return "", false, errors.New("blog.cfg:3: bad key") }
	s.push(1, []string{"(the server failed while looking for the app's branch: blog.cfg:3: bad key)"}, "main:dev")
	s.deploys(1)
	if refs := s.run(s.git.Path("blog"), "for-each-ref", "--format=%(refname)"); refs != "refs/heads/main\nrefs/releases/v1" {
		t.Errorf("refs: %s", refs)
	}
}

func TestPushOptions(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	s.push(0, []string{"`-o wait` can't be had yet"}, "-o", "clean", "-o", "wait", "main")
	if !s.deployer.requests[0].Clean {
		t.Error("clean did not arrive")
	}
}

func TestDryRun(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	s.push(0, []string{"main -> main"}, "--dry-run", "main")
	s.deploys(0)
	s.wantRef("refs/heads/main", "")
}

func TestWhichBranchDeploys(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, []string{"stored prod"}, "main:prod")
	s.push(0, []string{"live at"}, "main:master") // whichever comes first
	s.wantRef("refs/heads/master", one)
	s.push(0, []string{"stored main, not deployed: blog deploys from master"}, "main")
	s.deploys(1)
	s.branch, s.set = "prod", true
	s.commit("two")
	s.push(0, []string{"stored master, not deployed: blog deploys from prod"}, "main:master")
	s.push(0, []string{"live at"}, "main:prod")
	s.deploys(2)

	s = newServer(t)
	one = s.commit("one")
	s.push(0, []string{"stored master"}, "main", "main:master") // both at once
	s.deploys(1)
	s.wantRef("refs/heads/main", one)
	s.wantRef("refs/heads/master", one)
}

func TestShallow(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	s.commit("two")
	clone := filepath.Join(t.TempDir(), "clone")
	s.run("", "clone", "-q", "--depth=1", "file://"+s.work, clone)
	s.run(clone, "remote", "add", "scotch", s.git.Path("blog"))
	for _, ref := range []string{"main", "main:dev"} {
		var out bytes.Buffer
		_, wait := s.start(clone, &out, "scotch", ref)
		if status := wait(); status != 1 {
			t.Errorf("exit status %d", status)
		}
		for _, want := range []string{"(this clone is shallow: part of the history is missing)", "git fetch --unshallow", "fetch-depth: 0"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in:\n%s", want, &out)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(s.git.Path("blog"), "shallow")); err == nil {
		t.Error("the repository became shallow")
	}
	s.deploys(0)
	s.run(clone, "fetch", "-q", "--unshallow")
	var out bytes.Buffer
	if _, wait := s.start(clone, &out, "scotch", "main"); wait() != 0 {
		t.Errorf("after --unshallow:\n%s", &out)
	}
	s.deploys(1)
	s.run(s.git.Path("blog"), "fsck", "--strict")
}

// What can't be deployed is refused for the branch that deploys, and may be
// stored elsewhere.
func TestNotDeployable(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, nil, "main")
	s.run(s.work, "update-index", "--add", "--cacheinfo", "160000,"+one+",vendor/lib")
	s.run(s.work, "commit", "-q", "-m", "submodule")
	s.push(1, []string{`(submodules are not supported yet: "vendor/lib")`, "remote:        commit their files instead"}, "main")
	s.push(0, nil, "main:dev")
	s.run(s.work, "reset", "-q", "--hard", one)
	if err := os.Symlink("/etc/passwd", filepath.Join(s.work, "pw")); err != nil {
		t.Fatal(err)
	}
	s.run(s.work, "add", "-A")
	s.run(s.work, "commit", "-q", "-m", "link")
	s.push(1, []string{`(symbolic links leave the tree: "pw")`}, "main")
	s.deploys(1)
}
