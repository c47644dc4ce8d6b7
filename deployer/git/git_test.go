package git_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/git"
)

var _ interface {
	deployer.Source
	deployer.Repositories
} = (*git.Git)(nil)

const zero = "0000000000000000000000000000000000000000"

// site is a Git on a new root, and a clone to commit in.
type site struct {
	*git.Git
	t    *testing.T
	root string
	work string
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, root: filepath.Join(dir, "repositories"), work: filepath.Join(dir, "work")}
	s.Git = git.New(s.root, direct.New(filepath.Join(dir, "run"), direct.Options{}), git.Options{})
	if err := s.Create(t.Context(), "blog", "main"); err != nil {
		t.Fatal(err)
	}
	s.run("", "init", "-q", "-b", "main", s.work)
	return s
}

// run runs the stock git as a user would, in dir.
func (s *site) run(dir string, args ...string) string {
	s.t.Helper()
	out, err := s.try(dir, args...)
	if err != nil {
		s.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *site) try(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org",
		"GIT_ALLOW_PROTOCOL=file")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *site) write(path, content string) {
	s.t.Helper()
	p := filepath.Join(s.work, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// commit commits all of the work tree and brings the object into blog.git,
// where no ref names it yet.
func (s *site) commit(subject string) string {
	s.t.Helper()
	s.run(s.work, "add", "-A")
	s.run(s.work, "commit", "-q", "--allow-empty", "-m", subject)
	s.run(s.Path("blog"), "fetch", "-q", "--no-write-fetch-head", s.work, "HEAD")
	return s.run(s.work, "rev-parse", "HEAD")
}

func (s *site) update(updates ...deployer.RefUpdate) {
	s.t.Helper()
	tx, err := s.Prepare(s.t.Context(), "blog", updates)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) ref(name string) string {
	s.t.Helper()
	id, err := s.Ref(s.t.Context(), "blog", name)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func TestCreate(t *testing.T) {
	s := newSite(t)
	if !s.Exists("blog") || s.Exists("blo") || s.Exists("../blog") {
		t.Error("Exists is wrong about what there is")
	}
	if out := s.run(s.Path("blog"), "symbolic-ref", "HEAD"); out != "refs/heads/main" {
		t.Errorf("HEAD names %q", out)
	}
	if out := s.run(s.Path("blog"), "config", "core.bare"); out != "true" {
		t.Errorf("core.bare is %q", out)
	}
	s.run(s.Path("blog"), "fsck", "--strict")
	// Again, with another branch: only HEAD changes.
	id := s.commit("one")
	s.update(deployer.RefUpdate{Ref: "refs/heads/main", Old: zero, New: id})
	if err := s.Create(t.Context(), "blog", "prod"); err != nil {
		t.Fatal(err)
	}
	head, err := s.Head(t.Context(), "blog")
	if err != nil || head != "refs/heads/prod" {
		t.Errorf("Head is %q, %v", head, err)
	}
	if got := s.ref("refs/heads/main"); got != id {
		t.Errorf("main is %q", got)
	}
	for _, bad := range []string{"", "a..b", "-x y", "x.lock"} {
		if err := s.Create(t.Context(), "shop", bad); err == nil {
			t.Errorf("branch %q was taken", bad)
		}
	}
	if err := s.Create(t.Context(), "../x", "main"); err == nil {
		t.Error("an app named ../x was made")
	}
	left, _ := filepath.Glob(filepath.Join(s.root, ".create-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestTransaction(t *testing.T) {
	s := newSite(t)
	one := s.commit("one")
	two := s.commit("two")

	// First deploy: neither ref is there yet.
	s.update(deployer.RefUpdate{Ref: "refs/heads/main", Old: zero, New: one},
		deployer.RefUpdate{Ref: "refs/releases/v1", Old: zero, New: one})
	if got := s.ref("refs/releases/v1"); got != one {
		t.Fatalf("v1 is %q", got)
	}

	// A wrong old value is found by Prepare, and nothing moves.
	_, err := s.Prepare(t.Context(), "blog", []deployer.RefUpdate{{Ref: "refs/heads/main", Old: two, New: two}})
	if err == nil || !strings.Contains(err.Error(), "is at "+one) {
		t.Errorf("error %v", err)
	}
	_, err = s.Prepare(t.Context(), "blog", []deployer.RefUpdate{{Ref: "refs/heads/main", Old: zero, New: two}})
	if err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("error %v", err)
	}

	// While one is prepared, nobody else can move the ref; Abort lets go.
	tx, err := s.Prepare(t.Context(), "blog", []deployer.RefUpdate{{Ref: "refs/heads/main", Old: one, New: two}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.try(s.Path("blog"), "update-ref", "refs/heads/main", two); err == nil {
		t.Errorf("the ref could be moved: %s", out)
	}
	if err := tx.Abort(); err != nil {
		t.Fatal(err)
	}
	if got := s.ref("refs/heads/main"); got != one {
		t.Fatalf("main is %q after an abort", got)
	}

	s.update(deployer.RefUpdate{Ref: "refs/heads/main", Old: one, New: two}, deployer.RefUpdate{Ref: "refs/releases/v1"})
	if got, gone := s.ref("refs/heads/main"), s.ref("refs/releases/v1"); got != two || gone != "" {
		t.Errorf("main is %q, v1 %q", got, gone)
	}

	for _, u := range []deployer.RefUpdate{
		{Ref: "refs/heads/main\ndelete refs/heads/main", New: one},
		{Ref: "HEAD", New: one},
		{Ref: "refs/heads/x", New: "main"},
		{Ref: "refs/heads/x", New: one, Old: one + "\ncommit"},
	} {
		if _, err := s.Prepare(t.Context(), "blog", []deployer.RefUpdate{u}); err == nil {
			t.Errorf("%+v was taken", u)
		}
	}
}

// A git that was killed left its locks: each deploy was refused until the next
// start of the server.
func TestLockLeftByAKilledGit(t *testing.T) {
	s := newSite(t)
	one := s.commit("one")
	for _, name := range []string{"refs/heads/main.lock", "HEAD.lock"} {
		path := filepath.Join(s.Path("blog"), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.update(deployer.RefUpdate{Ref: "refs/heads/main", Old: zero, New: one})
	if got := s.ref("refs/heads/main"); got != one {
		t.Errorf("main is %q", got)
	}
}

// The deploy under way is finished when its asker leaves, so a transaction must
// outlive the context that prepared it.
func TestTransactionOutlivesContext(t *testing.T) {
	s := newSite(t)
	id := s.commit("one")
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := s.Prepare(ctx, "blog", []deployer.RefUpdate{{Ref: "refs/heads/main", Old: zero, New: id}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := s.ref("refs/heads/main"); got != id {
		t.Errorf("main is %q", got)
	}
	_, err = s.Prepare(ctx, "blog", []deployer.RefUpdate{{Ref: "refs/heads/main", Old: id, New: id}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestRecover(t *testing.T) {
	s := newSite(t)
	id := s.commit("one")
	s.update(deployer.RefUpdate{Ref: "refs/heads/main", New: id})
	repo := s.Path("blog")
	leftovers := []string{
		"HEAD.lock", "packed-refs.lock", "packed-refs.new", "config.lock", "shallow.lock", "refs/heads/main.lock", "refs/releases/v2.lock",
		"objects/tmp_objdir-incoming-a1B2c3/pack/tmp_pack_x", "objects/incoming-x1/ab/cd", "objects/pack/tmp_pack_1", "objects/pack/tmp_idx_2",
		"objects/ab/tmp_obj_x", "objects/pack/pack-1.keep",
	}
	kept := []string{"objects/pack/pack-2.keep", "refs/heads/tmp_objdir-x"}
	for _, p := range append(leftovers, kept...) {
		p = filepath.Join(repo, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		content := "receive-pack 42 on host"
		if strings.Contains(p, "heads/tmp") {
			content = id + "\n"
		}
		if strings.Contains(p, "pack-2") {
			content = "kept by a person"
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Recover("blog"); err != nil {
		t.Fatal(err)
	}
	for _, p := range leftovers {
		if _, err := os.Stat(filepath.Join(repo, p)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left", p)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(repo, "objects", "*incoming*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	for _, p := range kept {
		if _, err := os.Stat(filepath.Join(repo, p)); err != nil {
			t.Errorf("%s was removed", p)
		}
	}
	s.run(repo, "fsck", "--strict")
	if err := s.Recover("none"); err != nil {
		t.Errorf("no repository: %v", err)
	}
}

// The server removes a killed push's quarantine with a deploy under way, whose
// locks and packs must stay.
func TestRemoveQuarantinesLeavesADeployAlone(t *testing.T) {
	s := newSite(t)
	id := s.commit("one")
	s.update(deployer.RefUpdate{Ref: "refs/heads/main", New: id})
	repo := s.Path("blog")
	removed := []string{"objects/tmp_objdir-incoming-a1B2c3/pack/tmp_pack_x", "objects/incoming-x1/ab/cd"}
	kept := []string{"HEAD.lock", "packed-refs.lock", "shallow.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_1",
		"objects/pack/pack-1.keep", "objects/tmp_objdir-other-1/x", "objects/ab/tmp_obj_x", "objects/incoming-file"}
	for _, p := range append(removed, kept...) {
		p = filepath.Join(repo, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("receive-pack 42 on host"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveQuarantines("blog"); err != nil {
		t.Fatal(err)
	}
	for _, p := range removed {
		if _, err := os.Stat(filepath.Join(repo, filepath.Dir(p))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left", p)
		}
	}
	for _, p := range kept {
		if _, err := os.Stat(filepath.Join(repo, p)); err != nil {
			t.Errorf("%s was removed", p)
		}
	}
	if err := s.RemoveQuarantines("none"); err != nil {
		t.Errorf("no repository: %v", err)
	}
}

// A git that is killed while it holds locks leaves them; Recover frees the ref.
func TestRecoverAfterKill(t *testing.T) {
	s := newSite(t)
	id := s.commit("one")
	cmd := exec.Command("git", "--git-dir="+s.Path("blog"), "update-ref", "--stdin")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("start\nupdate refs/heads/main " + id + "\nprepare\n"))
	for got := ""; !strings.Contains(got, "prepare: ok"); {
		b := make([]byte, 64)
		n, err := out.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got += string(b[:n])
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	if _, err := s.try(s.Path("blog"), "update-ref", "refs/heads/main", id); err == nil {
		t.Fatal("the lock did not hold")
	}
	if err := s.Recover("blog"); err != nil {
		t.Fatal(err)
	}
	if out, err := s.try(s.Path("blog"), "update-ref", "refs/heads/main", id); err != nil {
		t.Fatalf("still locked: %s", out)
	}
}

// In system mode the server is root and git is not: all that is in a repository
// belongs to git's user, and git needs nobody's leave to work in it.
func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const name = "nobody"
	u, err := user.Lookup(name)
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "scotch-git-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g := git.New(filepath.Join(dir, "repositories"), direct.New(filepath.Join(dir, "run"), direct.Options{}), git.Options{User: name})
	ctx := t.Context()
	if err := g.Create(ctx, "blog", "main"); err != nil {
		t.Fatal(err)
	}
	// Others' apps run as users of this machine too.
	fi, err := os.Stat(g.Path("blog"))
	if err != nil || fi.Mode().Perm() != 0o700 || fmt.Sprint(fi.Sys().(*syscall.Stat_t).Uid) != u.Uid {
		t.Errorf("the repository is %v, %v", fi.Mode(), err)
	}
	other := newSite(t)
	other.write("a.py", "x")
	one := other.commit("one")
	// A source of another owner's, which git would not fetch from unasked.
	if out, err := exec.Command("cp", "-r", other.work, filepath.Join(dir, "source")).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	c, err := g.Resolve(ctx, app(filepath.Join(dir, "source"), "main", false), "", io.Discard)
	if err != nil || c.ID != one {
		t.Fatalf("%q, %v", c.ID, err)
	}
	tx, err := g.Prepare(ctx, "blog", []deployer.RefUpdate{{Ref: "refs/heads/main", Old: zero, New: one}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := g.Create(ctx, "blog", "prod"); err != nil {
		t.Fatal(err)
	}
	dst := t.TempDir()
	if _, err := g.Export(ctx, "blog", c, dst); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(g.Path("blog"), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && fmt.Sprint(fi.Sys().(*syscall.Stat_t).Uid) != u.Uid {
			t.Errorf("%s is not git's", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
