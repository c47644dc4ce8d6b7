package gitserver

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestMaxPush(t *testing.T) {
	f := start(t, func(f *fixture) { f.Server.Git.MaxPush = 2000 })
	f.app("blog")
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	if err := os.WriteFile(filepath.Join(f.dir, "work", "big"), noise(100_000), 0o644); err != nil {
		t.Fatal(err)
	}
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").exits(1).says("pack exceeds maximum allowed size")
	if left, _ := filepath.Glob(f.repos.Path("blog") + "/objects/tmp_objdir*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func noise(n int) []byte {
	var out []byte
	sum := sha1.Sum(nil)
	for len(out) < n {
		sum = sha1.Sum(sum[:])
		out = append(out, sum[:]...)
	}
	return out[:n]
}

// Trees with zero-padded modes are in the histories of old, well-known
// projects; they do no harm and must not keep an app from being pushed.
func TestRealHistoryIsNotRefused(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	f.commit()
	blob := strings.TrimSpace(f.git("alice", "rev-parse", "HEAD:app.py").ok().out)
	sub := f.hash("tree", "100644 app.py\x00"+unhex(t, blob))
	tree := f.hash("tree", "040000 dir\x00"+unhex(t, sub))
	commit := f.hash("commit", "tree "+tree+"\nauthor A <a> 1 +051800\ncommitter A <a> 1 +051800\n\nold\n")
	f.git("alice", "push", f.url("blog"), commit+":refs/heads/main").ok()

	dotgit := f.hash("tree", "40000 .git\x00"+unhex(t, sub))
	commit = f.hash("commit", "tree "+dotgit+"\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nevil\n")
	f.git("alice", "push", f.url("blog"), commit+":refs/heads/other").exits(1).says("hasDotgit")
}

func (f *fixture) hash(kind, content string) string {
	f.t.Helper()
	cmd := f.gitCommand("alice", "hash-object", "-w", "--literally", "-t", kind, "--stdin")
	cmd.Stdin = strings.NewReader(content)
	return strings.TrimSpace(f.run(cmd).ok().out)
}

func unhex(t *testing.T, s string) string {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPrepareAgain(t *testing.T) {
	o := GitOptions{Dir: filepath.Join(t.TempDir(), "git")}
	for _, program := range []string{"/usr/bin/old", "/usr/bin/old", "/usr/bin/scotch"} {
		if err := o.Prepare(program); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(filepath.Join(o.Dir, "hooks", "proc-receive")); err != nil || to != program {
			t.Errorf("proc-receive is %q, %v", to, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(o.Dir, "hooks"))
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := o.Prepare("scotch"); err == nil {
		t.Error("a relative program is taken")
	}
}

// In system mode git and its hooks have no rights of the server's.
func TestGitRunsAsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const nobody = 65534
	f := start(t, func(f *fixture) {
		// The test's folders are for root alone.
		for dir := f.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(f.dir, "scotch")
		if err := os.WriteFile(program, self, 0o755); err != nil {
			t.Fatal(err)
		}
		f.Server.Git.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := f.Server.Git.Prepare(program); err != nil {
			t.Fatal(err)
		}
		create := f.CreateApp
		f.CreateApp = func(ctx context.Context, app, by string) error {
			if err := create(ctx, app, by); err != nil {
				return err
			}
			return filepath.WalkDir(f.repos.Path(app), func(path string, _ os.DirEntry, err error) error {
				return errors.Join(err, os.Lchown(path, nobody, nobody))
			})
		}
	})
	id := f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	f.git("carol", "ls-remote", f.url("blog")).ok().says(id)
	fi, err := os.Stat(filepath.Join(f.repos.Path("blog"), "refs/heads/main"))
	if err != nil || fi.Sys().(*syscall.Stat_t).Uid != nobody {
		t.Errorf("%+v, %v", fi, err)
	}
}
