package gitserver

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPushFetchClone(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	f.pushes.answer = func(_ context.Context, p *received, ref string) string { return "say hello " + p.By + "\nstore" }
	id := f.commit()
	f.git("bob", "push", "-o", "clean", f.url("blog"), "main").ok().says("remote: hello bob").says("main -> main")
	if got := f.ref("blog", "refs/heads/main"); got != id {
		t.Errorf("main is %q, want %q", got, id)
	}
	p := f.pushes.all()[0]
	if p.App != "blog" || p.By != "bob" || p.Dir != f.repos.Path("blog") || p.Created || !slices.Equal(p.options, []string{"clean"}) {
		t.Errorf("handler got %+v", p)
	}
	if !p.May("push") || !p.May("force") || p.May("keys") {
		t.Error("May is wrong")
	}
	for _, name := range []string{"blog", "blog.git", "/blog/"} {
		dst := filepath.Join(t.TempDir(), "clone")
		f.git("carol", "-c", "protocol.version=2", "clone", "-q", f.url(name), dst).ok()
		if _, err := os.Stat(filepath.Join(dst, "app.py")); err != nil {
			t.Error(err)
		}
	}
	f.git("carol", "ls-remote", "scotch@127.0.0.1:blog").ok().says(id) // scp's form
	id = f.commit()
	f.git("alice", "push", f.url("blog"), "main", "HEAD:refs/heads/other", "HEAD:refs/tags/v1").ok()
	f.git("carol", "fetch", "-q", f.url("blog"), "other").ok()
	if got := f.ref("blog", "refs/tags/v1"); got != id {
		t.Errorf("the tag is %q, want %q", got, id)
	}
}

// What a hook sees must come from us and git alone: gliderlabs/ssh hands on
// any variable that a client sends.
func TestEnvironmentOfGitIsBuiltFromNothing(t *testing.T) {
	t.Setenv("SECRET_OF_THE_SERVER", "x")
	t.Setenv("GIT_DIR", "/nowhere")
	f := start(t, nil)
	os.Unsetenv("GIT_DIR")
	f.app("blog")
	f.commit()
	cmd := f.gitCommand("alice", "push", f.url("blog"), "main")
	cmd.Env = append(cmd.Env, "LD_PRELOAD_X=evil", "LC_EVIL=x", "GIT_PROTOCOL=version=1")
	for i, kv := range cmd.Env {
		if v, ok := strings.CutPrefix(kv, "GIT_SSH_COMMAND="); ok {
			cmd.Env[i] = "GIT_SSH_COMMAND=" + v + " -o SendEnv=LC_* -o SendEnv=LD_PRELOAD_X -o SetEnv=GIT_EXEC_PATH=/evil"
		}
	}
	f.run(cmd).ok()
	allowed := []string{"PATH", "HOME", "LANG", "LC_ALL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_GLOBAL", "GIT_ATTR_NOSYSTEM", "GIT_NO_REPLACE_OBJECTS", "GIT_TERMINAL_PROMPT", "GIT_PROTOCOL", "SCOTCH_HOOK_FD",
		// git's own
		"GIT_DIR", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_EXEC_PATH", "GIT_PUSH_OPTION_COUNT"}
	for _, kv := range f.pushes.all()[0].env {
		name, value, _ := strings.Cut(kv, "=")
		if !slices.Contains(allowed, name) || strings.Contains(value, "evil") || strings.Contains(value, "/nowhere") {
			t.Errorf("the hook sees %q", kv)
		}
	}
}

func TestPlantedHookAndConfigDoNotRun(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	mark := filepath.Join(t.TempDir(), "ran")
	script := "#!/bin/sh\ntouch " + mark + "\n"
	evil := filepath.Join(f.repos.Path("blog"), "evil")
	if err := os.Mkdir(evil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"hooks", "evil"} {
		for _, name := range []string{"pre-receive", "update", "post-receive", "post-update", "reference-transaction", "fsmonitor"} {
			if err := os.WriteFile(filepath.Join(f.repos.Path("blog"), dir, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, kv := range [][2]string{{"core.hooksPath", evil}, {"core.fsmonitor", filepath.Join(evil, "fsmonitor")}, {"receive.procReceiveRefs", ""}} {
		if out, err := exec.Command("git", "-C", f.repos.Path("blog"), "config", kv[0], kv[1]).CombinedOutput(); err != nil {
			t.Fatal(string(out))
		}
	}
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	f.git("alice", "fetch", f.url("blog")).ok()
	if _, err := os.Stat(mark); err == nil {
		t.Error("a planted hook ran")
	}
	if len(f.pushes.all()) != 1 {
		t.Error("our own hook did not run")
	}
}

// Refs of scotch's own are neither shown to pushes nor moved by them. Others go
// to the policy, which must know of every ref of an atomic push.
func TestHiddenRefs(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	f.pushes.answer = func(_ context.Context, _ *received, ref string) string {
		if strings.HasPrefix(ref, "refs/backup/") {
			return "ng not this one"
		}
		return "store"
	}
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	for _, ref := range []string{"refs/releases/v1", "refs/scotch/x"} {
		if out, err := exec.Command("git", "-C", f.repos.Path("blog"), "update-ref", ref, "refs/heads/main").CombinedOutput(); err != nil {
			t.Fatal(string(out))
		}
		f.commit()
		f.git("alice", "push", f.url("blog"), "+HEAD:"+ref, "main").exits(1).says("[remote rejected]").says("main -> main")
	}
	r := f.ssh("alice", "git-receive-pack blog </dev/null")
	if strings.Contains(r.out, "refs/releases") || strings.Contains(r.out, "refs/scotch") {
		t.Errorf("shown to a push:\n%s", r.out)
	}
	f.git("alice", "push", "--atomic", f.url("blog"), "+HEAD:refs/backup/x", "main:other").exits(1).says("not this one")
	all := f.pushes.all()
	if p := all[len(all)-1]; len(p.refs) != 2 {
		t.Errorf("the policy was told of %q", p.refs)
	}
}

func TestFirstPush(t *testing.T) {
	f := start(t, nil)
	f.pushes.answer = func(_ context.Context, p *received, ref string) string {
		if strings.Contains(ref, "refs/heads/main") {
			return "say made\nstore"
		}
		return "ng not this one"
	}
	id := f.commit()
	f.git("alice", "push", "--dry-run", f.url("blog"), "main").ok().says("[new branch]")
	f.git("alice", "ls-remote", f.url("blog")).exits(128).says(`there is no app "blog"`)
	if f.repos.Exists("blog") {
		t.Fatal("a dry run made the app")
	}
	f.git("alice", "push", "-o", "clean", "-o", "x y", f.url("blog"), "main", "HEAD:refs/heads/other").exits(1).
		says("remote: made").says("main -> main").says("not this one")
	p := f.pushes.all()[0]
	if !p.Created || p.By != "alice" || !slices.Equal(p.options, []string{"clean", "x y"}) {
		t.Errorf("handler got %+v", p)
	}
	if got := f.ref("blog", "refs/heads/main"); got != id {
		t.Errorf("main is %q, want %q", got, id)
	}
	// Protocol version 1 has a line of its own before the refs.
	f.git("alice", "-c", "protocol.version=1", "push", "--atomic", f.url("shop"), "main").ok().says("main -> main")
	if got := f.ref("shop", "refs/heads/main"); got != id {
		t.Errorf("main of shop is %q, want %q", got, id)
	}
	f.git("alice", "push", f.url("shop"), "main").ok().says("up-to-date")
}

func TestFirstPushThatCanNotBeMade(t *testing.T) {
	f := start(t, func(f *fixture) {
		f.CreateApp = func(context.Context, string, string) error {
			return errors.New("the disk is full\nfree some room: prune")
		}
	})
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").exits(128).says(`making the app "blog": the disk is full`)
}

// 'No such app' and 'not yours' must be one answer, or a key of one team could
// be used to learn the names of the others' apps.
func TestUnknownAndForbiddenLookTheSame(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	f.app("secret")
	f.commit()
	for _, who := range []string{"bob", "carol"} {
		for _, verb := range []string{"push", "fetch"} {
			var said []string
			for _, app := range []string{"secret", "nosuch"} {
				r := f.git(who, verb, f.url(app), "main").exits(128)
				said = append(said, strings.ReplaceAll(r.out+r.err, app, "APP"))
			}
			if said[0] != said[1] || !strings.Contains(said[0], `no app "APP" that your key may use`) {
				t.Errorf("%s %s: %q and %q", who, verb, said[0], said[1])
			}
			r1, r2 := f.ssh(who, "git-receive-pack secret"), f.ssh(who, "git-receive-pack nosuch")
			if r1.status != 1 || r2.status != 1 {
				t.Errorf("exit status %d and %d", r1.status, r2.status)
			}
		}
	}
	f.git("carol", "push", f.url("blog"), "main").exits(128).says("may read")
	if f.repos.Exists("nosuch") || len(f.pushes.all()) > 0 {
		t.Error("something happened all the same")
	}
}

func TestPathsAreBuiltNotTaken(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	for _, path := range []string{"../blog", "/etc", "blog/../blog", "~alice/blog", "-blog", "--upload-pack=x", "Blog", "blog.git.git", "", "/", ".git", "blog\\", "bl og", "$(id)", strings.Repeat("a", 41)} {
		r := f.ssh("alice", "git-upload-pack '"+path+"'")
		if r.status != 1 || !strings.Contains(r.err, "scotch: ") || strings.Contains(r.err, "fatal") {
			t.Errorf("%q: status %d: %s", path, r.status, r.err)
		}
	}
	f.ssh("alice", "git-upload-pack blog --x").exits(1).says("nothing else")
	f.ssh("alice", "git-upload-archive 'blog'").exits(1).says("git archive")
}

func TestClientLeavesWhileDeploying(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	deploying, finish, gone := make(chan bool), make(chan bool), make(chan bool, 1)
	f.pushes.answer = func(ctx context.Context, p *received, _ string) string {
		deploying <- true
		select {
		case <-p.Gone:
			gone <- true
			<-finish
		case <-ctx.Done():
		}
		return "say finished\nstore"
	}
	id := f.commit()
	cmd := f.gitCommand("bob", "push", f.url("blog"), "main")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the deploy", deploying)
	syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) // Ctrl-C: git and its ssh
	cmd.Wait()
	wait(t, "the handler hears that the client left", gone)
	finish <- true
	if err := f.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.ref("blog", "refs/heads/main"); got != id {
		t.Errorf("the ref that was granted is %q, want %q", got, id)
	}
	if left, _ := filepath.Glob(f.repos.Path("blog") + "/objects/tmp_objdir*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestCloseEndsGitAndHandlers(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	deploying := make(chan bool)
	f.pushes.answer = func(ctx context.Context, _ *received, _ string) string {
		deploying <- true
		<-ctx.Done()
		return "ng the server ends"
	}
	f.commit()
	cmd := f.gitCommand("bob", "push", f.url("blog"), "main")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the deploy", deploying)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v", err)
	}
	cmd.Wait()
	if cmd.ProcessState.Success() {
		t.Error("the push succeeded")
	}
	// Every git of the server is gone with its socket to the hooks; Close waited for it.
	if left, _ := filepath.Glob(f.repos.Path("blog") + "/objects/tmp_objdir*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestMayIsAskedAnew(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	f.pushes.answer = func(_ context.Context, p *received, _ string) string {
		if _, err := f.keys.Remove("bob"); err != nil {
			t.Error(err)
		}
		if p.May("push") {
			return "store"
		}
		return "ng your key was taken out"
	}
	f.commit()
	f.git("bob", "push", f.url("blog"), "main").exits(1).says("your key was taken out")
}
