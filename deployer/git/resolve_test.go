package git_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"scotch/config"
	"scotch/deployer"
)

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
	if want := "there is no branch \"prod\" in the repository of \"blog\"\npush it first: git push REMOTE prod"; err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
	// As deploy asks for an app that nobody has pushed to: where could code come from?
	_, err = s.Resolve(t.Context(), app("", "prod", false), "refs/heads/prod", &bytes.Buffer{})
	if want := "there is no branch \"prod\" in the repository of \"blog\"\npush it first: git push REMOTE prod\nor say where its code comes from, in its own file: [app] src = ADDRESS"; err == nil || err.Error() != want {
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
	// scotch 0.3 gave the word to `git archive`, which takes a tag as well. A
	// branch of that name wins.
	other.run(other.work, "tag", "-a", "-m", "x", "1.0", one)
	other.run(other.work, "tag", "prod", two)
	for branch, want := range map[string]string{"1.0": one, "prod": one} {
		if c, err := s.Resolve(t.Context(), app(other.work, branch, true), "", &out); err != nil || c.ID != want {
			t.Errorf("[git] branch = %s: %q, %v; want %q", branch, c.ID, err, want)
		}
	}
	other.run(other.work, "tag", "-d", "prod")
	if strings.Contains(out.String(), "\r") || !strings.Contains(out.String(), "\nheads/main is at ") {
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
		"https://u:secret@127.0.0.1:1/x":   "https://***@127.0.0.1:1/x",
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
	if b, err := s.ReadFile(t.Context(), "blog", c, "big", 100); err == nil || !strings.Contains(err.Error(), "it has 3.1 MB, and may have 100 B") {
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
