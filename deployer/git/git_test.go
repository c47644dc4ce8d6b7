package git_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"scotch/config"
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
	if _, err := s.Prepare(t.Context(), "blog", []deployer.RefUpdate{{Ref: "refs/heads/main", New: id}}); err == nil {
		t.Fatal("the lock did not hold")
	}
	if err := s.Recover("blog"); err != nil {
		t.Fatal(err)
	}
	s.update(deployer.RefUpdate{Ref: "refs/heads/main", New: id})
}

func app(source, branch string, set bool) *config.App {
	return &config.App{Name: "blog", Source: source, Branch: branch, BranchSet: set}
}

func TestResolve(t *testing.T) {
	s := newSite(t)
	one := s.commit("one")
	two := s.commit("two\n\nmore")
	s.update(deployer.RefUpdate{Ref: "refs/heads/main", New: one}, deployer.RefUpdate{Ref: "refs/heads/dev", New: two},
		deployer.RefUpdate{Ref: "refs/tags/dev", New: one}, deployer.RefUpdate{Ref: "refs/releases/v7", New: two})
	s.run(s.work, "tag", "-a", "-m", "x", "v1.0", one)
	s.run(s.Path("blog"), "fetch", "-q", s.work, "refs/tags/v1.0:refs/tags/v1.0")

	for ref, want := range map[string]string{
		"": one, "main": one, "dev": two, "refs/tags/dev": one, "v1.0": one, "v7": two, "refs/heads/dev": two, two: two, two[:8]: two,
	} {
		c, err := s.Resolve(t.Context(), app("", "main", false), ref, &bytes.Buffer{})
		if err != nil || c.ID != want {
			t.Errorf("Resolve(%q) is %q, %v; want %q", ref, c.ID, err, want)
		}
	}
	c, err := s.Resolve(t.Context(), app("", "dev", true), "", &bytes.Buffer{})
	if err != nil || c.ID != two || c.Subject != "two" || c.Author != "Ada <ada@example.org>" || len(c.Tree) != 40 || c.When.IsZero() {
		t.Errorf("the set branch: %+v, %v", c, err)
	}
	for _, bad := range []string{"none", "--output=/tmp/x", "main^{/x", "deadbeef", "refs/scotch/x", "v8", "main..dev", "\x1b[2J"} {
		_, err := s.Resolve(t.Context(), app("", "main", false), bad, &bytes.Buffer{})
		if err == nil {
			t.Errorf("Resolve(%q) found something", bad)
		} else if strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q", err)
		}
	}
	_, err = s.Resolve(t.Context(), app("", "prod", true), "", &bytes.Buffer{})
	if want := "there is no \"prod\" in the repository of \"blog\"\npush it first: git push REMOTE prod"; err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
}

func TestResolveSource(t *testing.T) {
	s := newSite(t)
	other := newSite(t)
	other.write("a.py", "1")
	one := other.commit("one")
	other.run(other.work, "branch", "prod")
	two := other.commit("two")
	var out bytes.Buffer

	for _, source := range []string{other.work, "file://" + other.work} {
		for ref, want := range map[string]string{"": two, "prod": one, one[:10]: one} {
			c, err := s.Resolve(t.Context(), app(source, "main", false), ref, &out)
			if err != nil || c.ID != want {
				t.Fatalf("Resolve(%q, %q): %q, %v", source, ref, c.ID, err)
			}
		}
	}
	c, err := s.Resolve(t.Context(), app(other.work, "prod", true), "", &out)
	if err != nil || c.ID != one {
		t.Errorf("the set branch: %q, %v", c.ID, err)
	}
	if strings.Contains(out.String(), "\r") || !strings.Contains(out.String(), "[new branch]") {
		t.Errorf("progress: %q", out.String())
	}
	if refs := s.run(s.Path("blog"), "for-each-ref", "refs/heads", "refs/tags"); refs != "" {
		t.Errorf("refs of the users' were made: %s", refs)
	}
	// A branch that is gone there is gone here.
	other.run(other.work, "branch", "-D", "prod")
	if _, err := s.Resolve(t.Context(), app(other.work, "main", false), "prod", &out); err == nil {
		t.Error("a deleted branch resolves")
	}
	// A source whose HEAD leads nowhere.
	other.run(other.work, "symbolic-ref", "HEAD", "refs/heads/none")
	_, err = s.Resolve(t.Context(), app(other.work, "main", false), "", &out)
	if err == nil || !strings.Contains(err.Error(), "name a branch") {
		t.Errorf("error %v", err)
	}
	if c, err := s.Resolve(t.Context(), app(other.work, "main", false), "main", &out); err != nil || c.ID != two {
		t.Errorf("%q, %v", c.ID, err)
	}

	for source, want := range map[string]string{
		"/nonexistent/x.git":               "fetching \"/nonexistent/x.git\"",
		"ext::sh -c true":                  "neither an address",
		"--upload-pack=touch /tmp/x":       "neither an address",
		"../work":                          "neither an address",
		"foo://x":                          "no way to fetch",
		"https://u:secret@127.0.0.1:1/x":   "https://%2A%2A%2A@127.0.0.1:1/x",
		"ssh://-oProxyCommand=true/x":      "fetching",
		"git@host\n:x":                     "no address looks like",
		"https://token@127.0.0.1:1/x":      "fetching",
		"https://%70:secret2@127.0.0.1:1/": "fetching",
	} {
		out.Reset()
		_, err := s.Resolve(t.Context(), app(source, "main", false), "", &out)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("source %q: %v", source, err)
		}
		if all := out.String() + err.Error(); strings.Contains(all, "secret") || strings.Contains(all, "token@") {
			t.Errorf("the password is shown: %s", all)
		}
	}
}

func TestReadFile(t *testing.T) {
	s := newSite(t)
	s.write("sub/scotch.cfg", "[app]\n")
	s.write("big", strings.Repeat("x", 3<<20))
	if err := os.Symlink("/etc/passwd", filepath.Join(s.work, "link")); err != nil {
		t.Fatal(err)
	}
	c, err := s.Lookup(t.Context(), "blog", s.commit("one"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.ReadFile(t.Context(), "blog", c, "sub/scotch.cfg", 100); err != nil || string(b) != "[app]\n" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := s.ReadFile(t.Context(), "blog", c, "big", 100); err != nil || len(b) != 100 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, p := range []string{"scotch.cfg", "sub/none", "none/x", "big/x"} {
		if _, err := s.ReadFile(t.Context(), "blog", c, p, 100); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, p := range []string{"link", "sub"} {
		if _, err := s.ReadFile(t.Context(), "blog", c, p, 100); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := s.Lookup(t.Context(), "blog", strings.Repeat("a", 40)); err == nil {
		t.Error("a commit that is not there was found")
	}
}

func TestHistory(t *testing.T) {
	s := newSite(t)
	one := s.commit("one")
	two := s.commit("two")
	s.run(s.work, "checkout", "-q", "--orphan", "other")
	other := s.commit("other")
	ctx := t.Context()
	for _, c := range []struct {
		id, old string
		want    bool
	}{{two, one, true}, {one, one, true}, {one, two, false}, {other, one, false}} {
		if got, err := s.Descends(ctx, "blog", c.id, c.old); err != nil || got != c.want {
			t.Errorf("Descends(%s, %s) is %v, %v", c.id, c.old, got, err)
		}
	}
	if ok, err := s.Complete(ctx, "blog", two); err != nil || !ok {
		t.Errorf("Complete: %v, %v", ok, err)
	}
	// Half a history: the parent's object is not there.
	p := filepath.Join(s.Path("blog"), "objects", one[:2], one[2:])
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Complete(ctx, "blog", two); err != nil || ok {
		t.Errorf("Complete without the parent: %v, %v", ok, err)
	}
	if kind, err := s.Kind(ctx, "blog", two); err != nil || kind != "commit" {
		t.Errorf("Kind: %q, %v", kind, err)
	}
	if kind, err := s.Kind(ctx, "blog", s.run(s.work, "rev-parse", "HEAD^{tree}")); err != nil || kind != "tree" {
		t.Errorf("Kind: %q, %v", kind, err)
	}
	if _, err := s.Kind(ctx, "blog", "--help"); err == nil {
		t.Error("an option was taken for an object")
	}
}
