package python_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"scotch/config"
	"scotch/deployer/python"
)

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	c := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"}, args...)...)
	c.Dir = dir
	b, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, b)
	}
	return strings.TrimSpace(string(b))
}

// library is a git repository with a package that tells where it stands.
func library(t *testing.T, name string) (dir, commit string) {
	t.Helper()
	dir = tree(t, project("", name, "which = 'old'\n")...)
	git(t, dir, "init", "-q")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-qm", "first")
	return dir, git(t, dir, "rev-parse", "HEAD")
}

func goOn(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name+".py"), []byte("which = 'new'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "commit", "-qam", "second")
}

func withoutSetuptools(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, "setuptools==") })
}

// What comes from no index is recorded so that it comes back as it was, out
// of another copy of the source too.
func TestRebuild(t *testing.T) {
	online(t)
	t.Parallel()
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc := toolchain(t, path)
			app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1", Root: "web"}
			lib, commit := library(t, "vcslib")
			requirements := []string{"web/requirements.txt", "git+file://" + lib + "#egg=vcslib\n-e ./sub-dir\n.\n../shared\nsix>=1.15,<1.17\n"}
			source := func(module string) string {
				return filepath.Join(tree(t, slices.Concat(requirements, project("web", "blog", module), project("web/sub-dir", "subby", ""), project("shared", "shared", ""))...), "web")
			}
			src := source("which = 'first'\n")
			first, err := install(t, tc, app, src)
			if err != nil {
				t.Fatalf("%v\n%s", err, first.out)
			}
			want := []string{"blog @ ./", "shared @ ../shared", "six==1.16.0", "subby @ ./sub-dir#editable", "vcslib @ git+file://" + lib + "@" + commit}
			if diff := cmp.Diff(want, withoutSetuptools(first.list)); diff != "" {
				t.Fatal(diff)
			}

			goOn(t, lib, "vcslib")
			pinned := slices.Clone(first.list)
			pinned[slices.Index(pinned, "six==1.16.0")] = "six==1.15.0"
			src = source("which = 'second'\n")
			r, err := reinstall(t, tc, app, src, pinned, "iniconfig==2.0.0")
			if err != nil {
				t.Fatalf("%v\n%s", err, r.out)
			}
			if diff := cmp.Diff(append([]string{"iniconfig==2.0.0"}, withoutSetuptools(pinned)...), withoutSetuptoolsSorted(r.list)); diff != "" {
				t.Error(diff)
			}
			if got := python3(t, r, "import vcslib, blog, subby, shared; print(vcslib.which, blog.which, subby.__file__)"); got != "old second "+src+"/sub-dir/subby.py" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func withoutSetuptoolsSorted(list []string) []string {
	list = withoutSetuptools(list)
	i := slices.Index(list, "iniconfig==2.0.0")
	if i < 0 {
		return list
	}
	return append([]string{"iniconfig==2.0.0"}, slices.Delete(list, i, i+1)...)
}

// Only pip takes -e with a repository, and records only where its clone is.
func TestRebuildOfAClone(t *testing.T) {
	online(t)
	t.Parallel()
	tc := toolchain(t, withoutUV)
	app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}
	lib, commit := library(t, "clonedlib")
	src := tree(t, "requirements.txt", "-e git+file://"+lib+"#egg=clonedlib\n")
	first, err := install(t, tc, app, src)
	if err != nil {
		t.Fatalf("%v\n%s", err, first.out)
	}
	if diff := cmp.Diff([]string{"clonedlib @ git+file://" + lib + "@" + commit}, withoutSetuptools(first.list)); diff != "" {
		t.Fatal(diff)
	}
	goOn(t, lib, "clonedlib")
	r, err := reinstall(t, tc, app, src, first.list)
	if err != nil || !slices.Equal(r.list, first.list) {
		t.Fatalf("%v %q\n%s", err, r.list, r.out)
	}
	if got := python3(t, r, "import clonedlib; print(clonedlib.which)"); got != "old" {
		t.Errorf("got %q", got)
	}
}

// A list that can't be installed again names the package and the next step.
func TestRebuildOfWhatIsGone(t *testing.T) {
	online(t)
	t.Parallel()
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc := toolchain(t, path)
			app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}
			lib, _ := library(t, "vcslib")
			lost := "vcslib @ git+file://" + lib + "@" + strings.Repeat("0123456789", 4)
			for text, c := range map[string]struct{ requirements, pin string }{
				"six==98.7 can't be had any more":                   {"six\n", "six==98.7"},
				"scotch-has-no-such==1 can't be had any more":       {"six\n", "scotch-has-no-such==1"},
				lost + " can't be had any more":                     {"git+file://" + lib + "\n", lost},
				"other @ ./other is not in the source":              {"", "other @ ./other"},
				"up @ ../up lies outside of the source":             {"", "up @ ../up"},
				"needs credentials, which are not recorded":         {"", "lib @ git+https://****@git.example.org/lib@abc"},
				"without the address that it was installed from":    {"git+file://" + lib + "#egg=vcslib\n", "vcslib==1"},
				"\"--index-url=x\" in the recorded list is no pack": {"", "--index-url=x"},
			} {
				r, err := reinstall(t, tc, app, tree(t, "requirements.txt", c.requirements), []string{c.pin})
				if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "\nresolve the requirements again: scotch deploy blog --clean") && !strings.Contains(text, "is no pack") {
					t.Errorf("%s: %v\n%s", c.pin, err, r.out)
				}
			}
		})
	}
}

// The hashes that the source demands are demanded again.
func TestRebuildWithHashes(t *testing.T) {
	online(t)
	t.Parallel()
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc := toolchain(t, path)
			app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}
			with := func(sum string) string {
				return tree(t, "requirements.txt", "six==1.16.0 \\\n  --hash=sha256:"+sum+"\n")
			}
			pinned := []string{"iniconfig==2.0.0", "six==1.16.0"}
			r, err := reinstall(t, tc, app, with("8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"), pinned)
			if err != nil || !slices.Equal(withoutSetuptools(r.list), pinned) {
				t.Fatalf("%v %q\n%s", err, r.list, r.out)
			}
			r, err = reinstall(t, tc, app, with(strings.Repeat("ab", 32)), pinned)
			if err == nil || !strings.Contains(err.Error(), "not what the hashes say") {
				t.Errorf("%v\n%s", err, r.out)
			}
		})
	}
}

// A lock file is installed as it is; what was there besides comes back too.
func TestRebuildFromUVLock(t *testing.T) {
	online(t)
	t.Parallel()
	tc := toolchain(t, uvPath(t))
	app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}
	src := tree(t, "pyproject.toml", "[project]\nname = 'blog'\nversion = '1'\nrequires-python = '>=3.9'\ndependencies = ['six==1.16.0']\n")
	lock := exec.Command("uv", "lock", "--python", "/usr/bin/python3")
	lock.Dir, lock.Env = src, append(os.Environ(), "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
	if b, err := lock.CombinedOutput(); err != nil {
		t.Fatalf("uv lock: %v\n%s", err, b)
	}
	pinned := []string{"iniconfig==2.0.0", "six==1.16.0"}
	r, err := reinstall(t, tc, app, src, pinned)
	if err != nil || !slices.Equal(r.list, pinned) {
		t.Fatalf("%v %q\n%s", err, r.list, r.out)
	}
}

// Another Python than the one that the list was recorded with: the reason for a rebuild.
func TestRebuildWithAnotherPython(t *testing.T) {
	online(t)
	t.Parallel()
	home, _ := os.UserHomeDir()
	found, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions/3.12.*/bin/python3"))
	if len(found) == 0 {
		t.Skip("no Python 3.12 of pyenv")
	}
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc := toolchain(t, path)
			src := tree(t, "requirements.txt", "six\nmarkupsafe\n")
			app := &config.App{Name: "blog", InstanceID: "1", Interpreter: found[0], InterpreterSet: true}
			pinned := []string{"MarkupSafe==2.1.5", "six==1.16.0"}
			r, err := reinstall(t, tc, app, src, pinned)
			if err != nil || !slices.Equal(withoutSetuptools(r.list), pinned) {
				t.Fatalf("%v %q\n%s", err, r.list, r.out)
			}
			if v := python3(t, r, "import six, markupsafe._speedups, sys; print(sys.version)"); !strings.HasPrefix(v, "3.12.") {
				t.Errorf("it runs Python %q", v)
			}
		})
	}
}

// No credential of an address is recorded; a rebuild has it from the source.
func TestRecordedAddresses(t *testing.T) {
	dir, src := t.TempDir(), t.TempDir()
	record := func(app *config.App, json string) string {
		t.Helper()
		meta := filepath.Join(dir, "lib/python3.11/site-packages/x-1.dist-info")
		if err := os.MkdirAll(meta, 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(meta, "METADATA"), []byte("Name: x\nVersion: 1\n\n"), 0o644)
		os.WriteFile(filepath.Join(meta, "direct_url.json"), []byte(json), 0o644)
		list, err := python.Installed(app, src, dir)
		if err != nil {
			return err.Error()
		}
		return strings.Join(list, "\n")
	}
	const c40 = "0123456789012345678901234567890123456789"
	git := func(url string) string {
		return `{"url": "` + url + `", "vcs_info": {"vcs": "git", "commit_id": "` + c40 + `"}}`
	}
	for _, c := range []struct{ json, recorded, source, again string }{
		{git("https://h/x.git"), "x @ git+https://h/x.git@" + c40, "six", "x @ git+https://h/x.git@" + c40},
		{git("https://h/x.git"), "x @ git+https://h/x.git@" + c40, "x @ git+https://${TOKEN}@h/x@main ; python_version > '3'", "x @ git+https://${TOKEN}@h/x.git@" + c40},
		{git("https://tok123456@h/x.git"), "x @ git+https://****@h/x.git@" + c40, "-e git+https://tok123456@h/x.git#egg=x", "x @ git+https://tok123456@h/x.git@" + c40},
		{git("https://u:p@h/x"), "x @ git+https://****@h/x@" + c40, "git+https://u:p@h/x", "x @ git+https://u:p@h/x@" + c40},
		{git("https://u:p@h/x"), "x @ git+https://****@h/x@" + c40, "git+https://u:p@h/other", ""},
		{git("ssh://git@h/x"), "x @ git+ssh://git@h/x@" + c40, "", "x @ git+ssh://git@h/x@" + c40},
		{git("ssh://deploy@h/x"), "x @ git+ssh://deploy@h/x@" + c40, "", "x @ git+ssh://deploy@h/x@" + c40},
		{git("ssh://deploy:pw@h/x"), "x @ git+ssh://****@h/x@" + c40, "x@git+ssh://deploy:pw@h/x", "x @ git+ssh://deploy:pw@h/x@" + c40},
		{git("https://h/sekrit-in-path/x"), "x @ git+https://h/****/x@" + c40, "x @ git+https://h/${MY_TOKEN}/x", "x @ git+https://h/${MY_TOKEN}/x@" + c40},
		{`{"url": "https://h/x.zip?sig=abc", "archive_info": {"hash": "sha256=ab12"}}`, "x @ https://h/x.zip?****#sha256=ab12", "https://h/x.zip?sig=abc#egg=x", "x @ https://h/x.zip?sig=abc#sha256=ab12"},
		{`{"url": "https://h/x.zip", "archive_info": {"hashes": {"sha256": "ab12"}}, "subdirectory": "py"}`, "x @ https://h/x.zip#sha256=ab12&subdirectory=py", "", "x @ https://h/x.zip#sha256=ab12&subdirectory=py"},
		{`{"url": "https://h/x y\n--index-url=http://evil/${HOME}", "archive_info": {}}`, "x @ https://h/x%20y%0A--index-url=http://evil/%24%7BHOME%7D", "", "x @ https://h/x%20y%0A--index-url=http://evil/%24%7BHOME%7D"},
		{`{"url": "file:///opt/x.whl", "archive_info": {}}`, "x @ file:///opt/x.whl", "", "x @ file:///opt/x.whl"},
		{git("file:///srv/x"), "x @ git+file:///srv/x@" + c40, "", "git+file:///srv/x@" + c40 + "#egg=x"},
		{`{"url": "https://h/x", "vcs_info": {"vcs": "git", "commit_id": "a b"}}`, `list what was installed: where x comes from: it names no commit of "https://h/x"`, "", ""},
	} {
		app := &config.App{Name: "blog", BuildEnv: []config.Var{{Name: "MY_TOKEN", Value: "sekrit-in-path"}}}
		got := record(app, c.json)
		if got != c.recorded {
			t.Errorf("%s\nis recorded as %q", c.json, got)
			continue
		}
		if strings.HasPrefix(got, "list") {
			continue
		}
		file, err := python.Again(app, tree(t, "requirements.txt", "--index-url https://u:${PW}@index/simple\n"+c.source+"\n"), got)
		if c.again == "" {
			if err == nil || strings.Contains(err.Error(), "u:p") {
				t.Errorf("%s: %v %q", got, err, file)
			}
			continue
		}
		if want := "--index-url https://u:${PW}@index/simple\n" + c.again + "\n"; err != nil || file != want {
			t.Errorf("%s: %v\n%q, want\n%q", got, err, file, want)
		}
	}
}

// Whatever a package says of its origin, each line recorded is one requirement.
func FuzzRecordedAddress(f *testing.F) {
	line := regexp.MustCompile(`^x( @ \S+|==1)$`)
	f.Add("https://u:p@h/x", "git", "abc")
	f.Add("file:///a/../b\n", "", "")
	f.Fuzz(func(t *testing.T, url, vcs, commit string) {
		got, err := python.Origin(url, vcs, commit)
		if err == nil && !line.MatchString(got) {
			t.Errorf("%q", got)
		}
	})
}
