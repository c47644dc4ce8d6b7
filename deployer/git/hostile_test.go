package git_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/git"
)

func (s *site) limited(l git.Limits) *git.Git {
	return git.New(s.root, direct.New(filepath.Join(s.t.TempDir(), "run"), direct.Options{}), git.Options{Limits: l})
}

func refusal(t *testing.T, err error, want ...string) {
	t.Helper()
	var no *deployer.RefusedError
	if !errors.As(err, &no) {
		t.Errorf("error %v, want a refusal with %q", err, want)
		return
	}
	for _, w := range want {
		if !strings.Contains(no.Reason+"\n"+no.Hint, w) {
			t.Errorf("refused with %q, %q, want %q", no.Reason, no.Hint, w)
		}
	}
}

// The git bomb: eleven small objects that are ten billion files. It is refused
// while git still lists, with nothing of it held in memory.
func TestTreeBomb(t *testing.T) {
	s := newSite(t)
	inside := fmt.Sprintf("100644 blob %s", s.blob("spam"))
	for range 10 {
		var lines []string
		for i := range 10 {
			lines = append(lines, fmt.Sprintf("%s\tf%d", inside, i))
		}
		inside = "040000 tree " + s.mktree(lines...)
	}
	id := s.commitTree(s.mktree(inside + "\ttop"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := s.limited(git.Limits{Files: 20000}).Deployable(t.Context(), "blog", id)
	refusal(t, err, "more than 20000 files and directories", "[server] max_files")
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 20<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	// Of a source's bytes each file counts, also where all are one object.
	err = s.limited(git.Limits{Source: 3000}).Deployable(t.Context(), "blog", id)
	refusal(t, err, "its files have more than ", "[server] max_source")
}

// 100,000 files (with SCOTCH_SOAK=1, else 5,000) in a real tree of as many objects: the
// refusal is clear, and the server holds no list of them. The next source is taken.
func TestFloodOfFiles(t *testing.T) {
	s := newSite(t)
	n, limit := 5000, 4000
	if os.Getenv("SCOTCH_SOAK") != "" {
		n, limit = 100_000, 80_000
	}
	var stream strings.Builder
	stream.WriteString("commit refs/heads/many\ncommitter A <a> 1 +0000\ndata 0\n")
	for i := range n {
		fmt.Fprintf(&stream, "M 644 inline d%d/f%d\ndata <<E\n%d\nE\n", i%97, i, i)
	}
	cmd := exec.Command("git", "--git-dir="+s.Path("blog"), "fast-import", "--quiet")
	cmd.Stdin = strings.NewReader(stream.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	stream.Reset()
	id := s.run(s.Path("blog"), "rev-parse", "refs/heads/many")
	g := s.limited(git.Limits{Files: limit})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	refusal(t, g.Deployable(t.Context(), "blog", id), fmt.Sprintf("more than %d files and directories", limit), "[server] max_files")
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 10<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	if err := g.Deployable(t.Context(), "blog", s.commit("small")); err != nil {
		t.Error(err)
	}
}

func TestDeepAndLongPaths(t *testing.T) {
	s := newSite(t)
	file := "100644 blob " + s.blob("x") + "\tfile"
	for _, c := range []struct {
		name  string
		times int
		ok    bool
	}{{"d", 99, true}, {"d", 100, false}, {strings.Repeat("n", 255), 7, true}, {strings.Repeat("n", 255), 9, false}} {
		tree := s.mktree(file)
		for range c.times {
			tree = s.mktree("040000 tree " + tree + "\t" + c.name)
		}
		err := s.Deployable(t.Context(), "blog", s.commitTree(tree))
		if c.ok && err != nil {
			t.Errorf("%d × %d bytes: %v", c.times, len(c.name), err)
		}
		if !c.ok {
			refusal(t, err, "paths longer than 2048 bytes or with more than 100 directories", "git mv")
			if len(err.Error()) > 1000 {
				t.Errorf("the refusal has %d bytes", len(err.Error()))
			}
		}
	}
}

// What a push has brought is judged in its quarantine, whose path comes from a
// process of git's user: no other directory is ever looked at.
func TestQuarantine(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.Path("blog"), "objects", "tmp_objdir-incoming-x1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"small", strings.Repeat("large ", 1000)} {
		cmd := exec.Command("git", "--git-dir="+s.Path("blog"), "hash-object", "-w", "--stdin")
		cmd.Env = append(os.Environ(), "GIT_OBJECT_DIRECTORY="+dir)
		cmd.Stdin = strings.NewReader(content)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	g := s.limited(git.Limits{Object: 6000})
	if err := g.CheckQuarantine(t.Context(), "blog", dir); err != nil {
		t.Error(err)
	}
	if err := g.CheckQuarantine(t.Context(), "blog", ""); err != nil {
		t.Error(err)
	}
	refusal(t, s.limited(git.Limits{Object: 5999}).CheckQuarantine(t.Context(), "blog", dir), "a file in the push is larger than", "--find-object=", "[server] max_object")
	for _, bad := range []string{"/etc", filepath.Dir(dir), dir + "/../../..", filepath.Join(s.Path("blog"), "objects", "tmp_objdir-incoming-none")} {
		if err := g.CheckQuarantine(t.Context(), "blog", bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

// CVE-2022-24765 and its kin: a repository's own configuration makes git run
// programs and read other files. One with any key but harmless ones is left alone.
func TestPlantedConfiguration(t *testing.T) {
	s := newSite(t)
	s.write("app.py", "app")
	id := s.commit("one")
	path := filepath.Join(s.Path("blog"), "config")
	own, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for text, bad := range map[string]string{
		"":                                   "",
		"[gc]\n\tpruneExpire = never\n":      "",
		"[core]\n\tsharedRepository = group": "",
		"[remote \"origin\"]\n\turl = /x\n\tfetch = +refs/*:refs/*\n\tmirror = true\n": "",
		"[branch \"main\"]\n\tremote = origin\n":                                       "",
		"# comment\n; another\n[user]\n\tname = A ; b\n":                               "",

		"[core]\n\tfsmonitor = x":                    `"core.fsmonitor"`,
		"[CORE]\n\tSSHCommand = x":                   `"core.sshcommand"`,
		"[core]\n\thooksPath = x":                    `"core.hookspath"`,
		"[core]\n\talternateRefsCommand = x":         `"core.alternaterefscommand"`,
		"[core]\n\tgitProxy":                         `"core.gitproxy"`,
		"[core]\n\tworktree = /":                     `"core.worktree"`,
		"[include]\n\tpath = x":                      `"include.path"`,
		"[includeIf \"gitdir:/\"]\n\tpath = x":       `"includeif.gitdir:/.path"`,
		"[filter \"x\"]\n\tsmudge = x":               `"filter.x.smudge"`,
		"[filter \"x\"]\n\tprocess = x":              `"filter.x.process"`,
		"[uploadpack]\n\tpackObjectsHook = x":        `"uploadpack.packobjectshook"`,
		"[receive]\n\tcertNonceSeed = x":             `"receive.certnonceseed"`,
		"[gpg \"ssh\"]\n\tprogram = x":               `"gpg.ssh.program"`,
		"[tar \"tar\"]\n\tcommand = x":               `"tar.tar.command"`,
		"[credential]\n\thelper = x":                 `"credential.helper"`,
		"[url \"ext::sh\"]\n\tinsteadOf = https:":    `"url.ext::sh.insteadof"`,
		"[remote \"origin\"]\n\tuploadpack = x":      `"remote.origin.uploadpack"`,
		"[remote \"/srv/x\"]\n\tvcs = x":             `"remote./srv/x.vcs"`,
		"[protocol \"ext\"]\n\tallow = always":       `"protocol.ext.allow"`,
		"[extensions]\n\tworktreeConfig = true":      `"extensions.worktreeconfig"`,
		"[alias]\n\tx = !x":                          `"alias.x"`,
		"[core] fsmonitor = x":                       "no line that scotch is sure",
		"[core]\n\tbare = true \\\n fsmonitor = x":   "no line that scotch is sure",
		"[core.fsmonitor]\n\tx = y":                  "no line that scotch is sure",
		"[core \"a\\\"b\"]\n\tx = y":                 "no line that scotch is sure",
		"[core]\n\tbare = true\r[core]fsmonitor = x": "no line that scotch is sure",
		"[core]\n\tbare = \x1b[31m":                  "no line that scotch is sure",
		"\uFEFF[core]":                               "no line that scotch is sure",
		"fsmonitor = x":                              "no line that scotch is sure",
		strings.Repeat("#\n", 40000):                 "too long",
	} {
		if bad != "" && strings.HasPrefix(text, "fsmonitor") {
			own = nil // before any section
		}
		if err := os.WriteFile(path, append(append([]byte(nil), own...), ("\n"+text)...), 0o644); err != nil {
			t.Fatal(err)
		}
		if own == nil {
			own = []byte("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
		}
		err := s.Sound("blog")
		_, _, exported := s.exportOf(id)
		switch {
		case bad == "" && (err != nil || exported != nil):
			t.Errorf("%q: %v, %v", text, err, exported)
		case bad != "" && (err == nil || !strings.Contains(err.Error(), bad) || strings.ContainsAny(err.Error(), "\x1b\r")):
			t.Errorf("%q: %v, want %s", text, err, bad)
		case bad != "" && exported == nil:
			t.Errorf("%q: git ran all the same", text)
		}
	}
	if err := os.WriteFile(path, own, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"commondir", "config.worktree"} {
		p := filepath.Join(s.Path("blog"), name)
		if err := os.WriteFile(p, []byte("/tmp\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := s.Sound("blog"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(path, path+".real"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".real", path); err != nil {
		t.Fatal(err)
	}
	if err := s.Sound("blog"); err == nil {
		t.Error("a link for a configuration passed")
	}
}

// exportOf exports without looking the commit up by git first.
func (s *site) exportOf(id string) (map[string]string, deployer.ExportStats, error) {
	s.t.Helper()
	dst := s.t.TempDir()
	stats, err := s.Export(s.t.Context(), "blog", deployer.Commit{ID: id}, dst)
	return listing(s.t, dst), stats, err
}

// Attributes of a pushed tree start nothing and fill nothing in: filters, textconv,
// export-subst (CVE-2022-41903: its formats overflowed;
// %GG runs gpg on what was pushed).
func TestAttributesRunNothing(t *testing.T) {
	s := newSite(t)
	mark := filepath.Join(t.TempDir(), "ran")
	s.write(".gitattributes", "* filter=evil diff=evil merge=evil export-subst ident\n")
	for name, text := range map[string]string{
		"subst": "$Format:%s %an %GG %(describe) %<(2147483647)%s$", "id": "$Id$",
		".gitconfig": "[filter \"evil\"]\n\tsmudge = touch " + mark + "\n", ".lfsconfig": "[lfs]\n\turl = ext::touch\n", ".mailmap": "x <a> <b>\n",
	} {
		s.write(name, text)
	}
	got, _, err := s.export(s.commit("the subject"))
	if err != nil {
		t.Fatal(err)
	}
	if got["subst"] != "644 $Format:%s %an %GG %(describe) %<(2147483647)%s$" {
		t.Errorf("exported %q", got)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a filter ran")
	}
}

// CVE-2018-17456 and CVE-2018-11235: a submodule whose address is an option, or
// whose name leads out. Submodules are refused by name, and .gitmodules alone is
// a file like others, which nothing reads.
func TestSubmoduleAddressThatIsAnOption(t *testing.T) {
	s := newSite(t)
	one := s.commit("one")
	for _, text := range []string{"[submodule \"x\"]\n\tpath = x\n\turl = -u./payload\n", "[submodule \"../../x\"]\n\tpath = x\n\turl = ext::sh -c id\n"} {
		modules := "100644 blob " + s.blob(text) + "\t.gitmodules"
		err := s.Deployable(t.Context(), "blog", s.commitTree(s.mktree(modules, "160000 commit "+one+"\tx")))
		refusal(t, err, `submodules are not supported yet: "x"`)
		got, _, err := s.export(s.commitTree(s.mktree(modules)))
		if err != nil || got[".gitmodules"] != "644 "+text {
			t.Errorf("%v, %q", err, got)
		}
	}
	// One without .gitmodules, with a name that is an option.
	err := s.Deployable(t.Context(), "blog", s.commitTree(s.mktree("160000 commit "+one+"\t--upload-pack=x")))
	refusal(t, err, "submodules are not supported yet")
}

// A symbolic link that is pushed first, and a file below its name in the next
// push; both in one tree, which git's own commands would not make.
func TestLinkFirstAndFileBelowItLater(t *testing.T) {
	s := newSite(t)
	out := t.TempDir()
	link := "120000 blob " + s.blob(out) + "\tdir"
	file := "040000 tree " + s.mktree("100644 blob "+s.blob("x")+"\tescaped") + "\tdir"
	refusal(t, s.Deployable(t.Context(), "blog", s.commitTree(s.mktree(link))), "symbolic links leave the tree")
	got, _, err := s.export(s.commitTree(s.mktree(file)))
	if err != nil || got["dir/escaped"] != "644 x" {
		t.Errorf("%v, %q", err, got)
	}
	inside := "120000 blob " + s.blob("real") + "\tdir"
	for _, tree := range [][]string{{link, file}, {file, link}, {inside, file}} {
		got, _, err := s.exportOf(s.commitTree(s.mktree(tree...)))
		if err == nil {
			t.Errorf("%q was exported: %q", tree, got)
		}
		if l := listing(t, out); len(l) > 0 {
			t.Fatalf("written outside: %v", l)
		}
	}
}

// Modes that no file of a source has: setuid, a device, one that is none. Files
// are 0644 or 0755, whatever a tree says.
func TestOddModes(t *testing.T) {
	s := newSite(t)
	blob := unhexed(s.blob("x"))
	for _, mode := range []string{"104755", "106777", "100666", "100000", "020666", "60644", "140000", "0", "777"} {
		cmd := exec.Command("git", "--git-dir="+s.Path("blog"), "hash-object", "-w", "--literally", "-t", "tree", "--stdin")
		cmd.Stdin = strings.NewReader(mode + " odd\x00" + blob)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := s.exportOf(s.commitTree(strings.TrimSpace(string(out))))
		if err != nil {
			continue // refused
		}
		if g := got["odd"]; g != "644 x" && g != "755 x" && g != "" {
			t.Errorf("mode %s: %q", mode, got)
		}
	}
}

func unhexed(s string) string {
	var b []byte
	fmt.Sscanf(s, "%x", &b)
	return string(b)
}

// A commit's signature of many short lines held the server's processor for the
// square of their number, and nothing ended that: 300,000 of them, 900 KB, took a
// minute. Its subject went whole into each list, log and record.
func TestCommitMadeToCostTime(t *testing.T) {
	s := newSite(t)
	tree := s.mktree(fmt.Sprintf("100644 blob %s\tfile", s.blob("spam")))
	commit := func(headers, message string) string {
		t.Helper()
		cmd := exec.Command("git", "--git-dir="+s.Path("blog"), "hash-object", "-t", "commit", "-w", "--stdin")
		cmd.Stdin = strings.NewReader("tree " + tree + "\nauthor " + strings.Repeat("A", 5000) + " <a@b> 1 +0000\ncommitter C <c@d> 1 +0000\n" + headers + "\n" + message)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	lines := strings.Repeat(" a\n", 2_000_000)
	for name, id := range map[string]string{
		"signature": commit("gpgsig x\n"+lines, "subject\n"),
		"merged":    commit("mergetag x\n"+lines, "subject\n"),
		"extra":     commit("x y\n"+lines, "subject\n"),
		"subject":   commit("", strings.Repeat("ü", 20<<20)),
	} {
		done := make(chan deployer.Commit, 1)
		go func() {
			c, err := s.Lookup(t.Context(), "blog", id)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			done <- c
		}()
		select {
		case c := <-done:
			if c.Tree != tree || len(c.Subject) > 500 || len(c.Author) > 500 || c.When.Unix() != 1 {
				t.Errorf("%s: tree %s, %d bytes of subject, %d of author, %s", name, c.Tree, len(c.Subject), len(c.Author), c.When)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: still reading after 20 s", name)
		}
	}
}

// The gits that read what was let in have the limits of those that let it in.
func TestReadingHasLimits(t *testing.T) {
	s := newSite(t)
	s.write("large", strings.Repeat("0123456789abcde\n", 20<<20/16))
	id := s.commit("large")
	export := func(l git.Limits) error {
		_, err := s.limited(l).Export(t.Context(), "blog", deployer.Commit{ID: id}, t.TempDir())
		return err
	}
	if err := export(git.Limits{Memory: 128 << 20, CPU: time.Minute}); err != nil {
		t.Error(err)
	}
	err := export(git.Limits{Memory: 16 << 20})
	if err == nil || !strings.Contains(err.Error(), "needs more memory than the 16") || !strings.Contains(err.Error(), "[server] push_memory") {
		t.Errorf("with 16 MB: %v", err)
	}
	// A history that git can't look through for a limit is not taken for a shallow one.
	if whole, err := s.limited(git.Limits{Memory: 1 << 10}).Complete(t.Context(), "blog", id); err == nil {
		t.Errorf("with a kilobyte: complete %v", whole)
	}
}
