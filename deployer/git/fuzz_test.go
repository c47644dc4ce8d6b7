package git

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzTreeEntry: a name that passes is a path below the tree, and no ".git" in it
// for any file system; a link that passes leads nowhere above.
func FuzzTreeEntry(f *testing.F) {
	const id = "1234567890123456789012345678901234567890"
	f.Add("100644 blob "+id+"      12\tsrc/a\tb\n", "../x")
	f.Add("040000 tree "+id+"       -\t.GIT", "/etc")
	f.Add("120000 blob "+id+"       3\ta/../../x", "..")
	f.Add("160000 commit "+id+"       -\t-u/git~1 ./.g\u200cit", "a/./../..//b")
	f.Add("100644 blob "+id+" -5\t\xff\x1b", "")
	f.Fuzz(func(t *testing.T, line, target string) {
		e, err := parseEntry(line)
		if err != nil {
			return
		}
		if e.size < 0 || e.path == "" || !strings.HasSuffix(line, "\t"+e.path) {
			t.Fatalf("%q became %+v", line, e)
		}
		if badPath(e.path) {
			return
		}
		if !filepath.IsLocal(e.path) || path.Clean(e.path) != e.path {
			t.Fatalf("%q is not below the tree", e.path)
		}
		for part := range strings.SplitSeq(e.path, "/") {
			if strings.EqualFold(strings.TrimRight(part, " ."), ".git") {
				t.Fatalf("%q passes for git's own", e.path)
			}
		}
		links := map[string]string{e.path: target}
		if !escapes(e.path, target, links) && !filepath.IsLocal(path.Join(path.Dir(e.path), target)) {
			t.Fatalf("%q -> %q leaves the tree", e.path, target)
		}
	})
}

// FuzzConfiguration: git itself is the judge of what a repository's configuration
// sets. In one that passes, git finds harmless keys and nothing else.
func FuzzConfiguration(f *testing.F) {
	for _, s := range []string{
		"[core]\n\tbare = true\n", "[gc]\nauto\n[user]\nname = \"a ; b\" # c\n", "[remote \"origin\"]\r\n\turl = x\r\n",
		"[core]\n\tbare = \"x\n[core]fsmonitor = x\"\n", "[core]bare=1\n[core]\n;\\\nfsmonitor=x", "[core] ; x\nfsmonitor", "[core]\n# \\\nbare", "[branch \"a]\nb\"]\nmerge",
		"[core\t\"x\"]\nbare", "[core]\nbare = \\\"\n", "[include]\npath=/x", "[core]\nbare\n=x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if what, _ := harmful(text); what != "" || strings.ContainsRune(text, 0) {
			return
		}
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("git", "config", "--no-includes", "--file", file, "--list", "--name-only", "-z")
		cmd.Env = environment()
		out, err := cmd.Output()
		if err != nil {
			return // git itself refuses it
		}
		for key := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
			section, rest, _ := strings.Cut(key, ".")
			name := rest[strings.LastIndex(rest, ".")+1:]
			allowed, known := harmless[section]
			ok := known && (allowed == nil || slices.Contains(allowed, name)) || strings.HasPrefix(key, "remote.origin.") && slices.Contains(originKeys, name)
			if key != "" && !ok {
				t.Fatalf("%s", fmt.Sprintf("%q passes, and git finds %q", text, key))
			}
		}
	})
}
