package git_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"scotch/deployer"
)

func (s *site) export(id string) (map[string]string, deployer.ExportStats, error) {
	s.t.Helper()
	c, err := s.Lookup(s.t.Context(), "blog", id)
	if err != nil {
		s.t.Fatal(err)
	}
	dst := s.t.TempDir()
	stats, err := s.Export(s.t.Context(), "blog", c, dst)
	return listing(s.t, dst), stats, err
}

// listing is a tree as "mode content" or "-> target" by path.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			m[rel] = "-> " + target
			return err
		case d.IsDir():
			m[rel] = fmt.Sprintf("%o/", fi.Mode().Perm())
			return nil
		}
		b, err := os.ReadFile(p)
		m[rel] = fmt.Sprintf("%o %s", fi.Mode().Perm(), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *site) link(target, path string) {
	s.t.Helper()
	p := filepath.Join(s.work, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		s.t.Fatal(err)
	}
}

func TestExport(t *testing.T) {
	s := newSite(t)
	s.write("app.py", "app")
	s.write("bin/run", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(s.work, "bin/run"), 0o777); err != nil {
		t.Fatal(err)
	}
	s.write("docs/index.md", "docs")
	s.write("tests/deep/test.py", "test")
	s.write("lib/notes.txt", "notes")
	s.write("lib/.gitattributes", "notes.txt export-ignore\n")
	s.write(".gitattributes", "docs/ export-ignore\n/tests export-ignore\nversion.txt export-subst\n*.bat eol=crlf\n*.x filter=evil\n")
	s.write("version.txt", "$Format:%s$\n")
	s.write("run.bat", "a\nb\n")
	s.write("f.x", "as it is")
	s.write("new\nline\x1b\xff", "odd")
	s.write("App.py", "twin")
	s.write(strings.Repeat("long/", 40)+"file", "deep")
	s.link("../app.py", "lib/link")
	s.link("lib", "library")
	s.link("media/x", "dangling")
	got, stats, err := s.export(s.commit("the subject"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"app.py": "644 app", "App.py": "644 twin", "bin": "755/", "bin/run": "755 #!/bin/sh\n", "lib": "755/", "lib/.gitattributes": "644 notes.txt export-ignore\n",
		".gitattributes": got[".gitattributes"], "version.txt": "644 $Format:%s$\n", "run.bat": "644 a\r\nb\r\n", "f.x": "644 as it is",
		"new\nline\x1b\xff": "644 odd", "lib/link": "-> ../app.py", "library": "-> lib", "dangling": "-> media/x",
	}
	deep := ""
	for range 40 {
		deep = filepath.Join(deep, "long")
		want[deep] = "755/"
	}
	want[filepath.Join(deep, "file")] = "644 deep"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if stats.Files != 13 || stats.Bytes == 0 {
		t.Errorf("%+v", stats)
	}
}

func TestExportEmpty(t *testing.T) {
	s := newSite(t)
	if got, stats, err := s.export(s.commit("nothing")); err != nil || len(got) > 0 || stats.Files != 0 {
		t.Errorf("%v, %v, %v", got, stats, err)
	}
}

// mktree writes a tree object that git's own commands would not make.
func (s *site) mktree(lines ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", "--git-dir="+s.Path("blog"), "mktree", "-z", "--missing")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\x00") + "\x00")
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("mktree: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func (s *site) blob(content string) string {
	s.t.Helper()
	cmd := exec.Command("git", "--git-dir="+s.Path("blog"), "hash-object", "-w", "--stdin")
	cmd.Stdin = strings.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (s *site) commitTree(tree string) string {
	s.t.Helper()
	return s.run(s.Path("blog"), "commit-tree", "-m", "made", tree)
}

// CVE-2014-9390 and its kin: a .git in disguise.
func TestDotGitInDisguise(t *testing.T) {
	s := newSite(t)
	blob := s.blob("x")
	sub := s.mktree("100644 blob " + blob + "\thooks")
	for _, name := range []string{".git", ".GIT", ".Git", "git~1", "GIT~1", ".git.", ".git ", ".git . .", ".git::$INDEX_ALLOCATION", ".gi\u200ct", "\u202e.git", `a\.git`, ".", ".."} {
		for _, l := range []string{"100644 blob " + blob + "\t" + name, "040000 tree " + sub + "\t" + name} {
			id := s.commitTree(s.mktree(l))
			var no *deployer.RefusedError
			if err := s.Deployable(t.Context(), "blog", id); !errors.As(err, &no) || !strings.Contains(no.Reason, "names in it") {
				t.Errorf("%q: %v", name, err)
			}
			if got, _, err := s.export(id); err == nil || len(got) > 0 {
				t.Errorf("%q was exported: %v, %v", name, got, err)
			}
		}
	}
	for _, name := range []string{".gitignore", ".github", "git", "git~2", "x.git", "...", ".gitkeep"} {
		if err := s.Deployable(t.Context(), "blog", s.commitTree(s.mktree("100644 blob "+blob+"\t"+name))); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	long := s.commitTree(s.mktree("100644 blob " + blob + "\t" + strings.Repeat("n", 256)))
	if err := s.Deployable(t.Context(), "blog", long); err == nil {
		t.Error("a name of 256 bytes passed")
	}
}

// A link that is pushed first and a file below it later; links through links.
func TestLinksThatLeave(t *testing.T) {
	for name, c := range map[string]struct {
		links map[string]string // path to target
		bad   string
	}{
		"absolute":        {map[string]string{"l": "/etc/passwd"}, `"l"`},
		"up":              {map[string]string{"l": "../x"}, `"l"`},
		"up and back":     {map[string]string{"a/l": "../../tree/x"}, `"a/l"`},
		"through a link":  {map[string]string{"x/y/d": "../../a", "e": "x/y/d/../.."}, `"e"`},
		"round and round": {map[string]string{"p": "q", "q": "p"}, `"p", "q"`},
		"itself":          {map[string]string{"p": "p/x"}, `"p"`},
		"too long":        {map[string]string{"l": strings.Repeat("a/", 2500)}, `"l"`},
		"inside":          {map[string]string{"a/b/l": "../../c/./d/../e", "a/m": "b/l", "dot": "."}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.write("a/file", "x")
			s.run(s.work, "add", "-A")
			for p, target := range c.links {
				cmd := exec.Command("git", "-C", s.work, "hash-object", "-w", "--stdin")
				cmd.Stdin = strings.NewReader(target)
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				s.run(s.work, "update-index", "--add", "--cacheinfo", "120000,"+strings.TrimSpace(string(out))+","+p)
			}
			s.run(s.work, "commit", "-q", "-m", "links")
			s.run(s.Path("blog"), "fetch", "-q", "--no-write-fetch-head", s.work, "HEAD")
			id := s.run(s.work, "rev-parse", "HEAD")
			err := s.Deployable(t.Context(), "blog", id)
			var no *deployer.RefusedError
			switch {
			case c.bad == "" && err != nil:
				t.Error(err)
			case c.bad != "" && (!errors.As(err, &no) || no.Reason != "symbolic links leave the tree: "+c.bad):
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSubmoduleAndLFS(t *testing.T) {
	s := newSite(t)
	one := s.commit("one")
	blob := s.blob("x")
	id := s.commitTree(s.mktree("100644 blob "+blob+"\t.gitmodules", "160000 commit "+one+"\tvendor"))
	err := s.Deployable(t.Context(), "blog", id)
	if err == nil || err.Error() != `submodules are not supported yet: "vendor"` {
		t.Errorf("error %v", err)
	}

	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("a", 64) + "\nsize 12345\n"
	s.write("static/big.bin", pointer)
	if err := s.Deployable(t.Context(), "blog", s.commit("no lfs here: a file that looks like a pointer")); err != nil {
		t.Error(err)
	}
	s.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
	s.write("static/more.bin", pointer)
	id = s.commit("lfs")
	err = s.Deployable(t.Context(), "blog", id)
	if err == nil || err.Error() != `Git LFS is not supported yet: "static/big.bin", "static/more.bin"` {
		t.Errorf("error %v", err)
	}
	// What was stored or fetched without being judged is refused by Export.
	if _, _, err := s.export(id); err == nil || !strings.Contains(err.Error(), "Git LFS is not supported yet") || !strings.Contains(err.Error(), "\ncommit the files") {
		t.Errorf("error %v", err)
	}
}

func TestExportCancelled(t *testing.T) {
	s := newSite(t)
	s.write("a", strings.Repeat("x", 1<<20))
	c, err := s.Lookup(t.Context(), "blog", s.commit("one"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Export(ctx, "blog", c, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// An export into a directory that holds something fails on it, and does not
// follow a link that stands in its way.
func TestExportMeetsLink(t *testing.T) {
	s := newSite(t)
	s.write("a/b", "x")
	c, err := s.Lookup(t.Context(), "blog", s.commit("one"))
	if err != nil {
		t.Fatal(err)
	}
	dst, out := t.TempDir(), t.TempDir()
	if err := os.Symlink(out, filepath.Join(dst, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Export(t.Context(), "blog", c, dst); err == nil {
		t.Error("a link was taken for a directory")
	}
	if l := listing(t, out); len(l) > 0 {
		t.Errorf("written outside: %v", l)
	}
}
