package python_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"scotch/config"
	"scotch/deployer/python"
)

var pinnedLine = regexp.MustCompile(`^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)\s*(?:;\s*(.*?))?(\s--hash.*)?$`)

// wouldInstall evaluates a requirements file as pip does.
func wouldInstall(t *testing.T, file, version string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for l := range strings.Lines(file) {
		m := pinnedLine.FindStringSubmatch(strings.TrimSpace(l))
		if m == nil {
			continue
		}
		ok, err := python.MarkerAllows(version, m[3])
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			out[strings.ToLower(m[1])] = m[2]
		}
	}
	return out
}

// The lock files in testdata/locks were written by the tools that the folders are
// named for, and so was export.txt, by "poetry export", "pdm export --prod" and
// "pipenv requirements". What we install is what they say.
func TestLocksAsTheirToolsExportThem(t *testing.T) {
	dirs, _ := filepath.Glob("testdata/locks/*")
	if len(dirs) < 5 {
		t.Fatalf("lock files: %q", dirs)
	}
	app := &config.App{Name: "blog", InstanceID: "1"}
	for _, dir := range dirs {
		export, err := os.ReadFile(filepath.Join(dir, "export.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, version := range []string{"3.9.18", "3.10.1", "3.11.2", "3.13.0"} {
			batches, notes, err := python.Exported(app, dir, version)
			if err != nil {
				t.Fatalf("%s: %v", dir, err)
			}
			want, got := wouldInstall(t, string(export), version), wouldInstall(t, strings.Join(batches, ""), version)
			if diff := cmp.Diff(want, got); diff != "" || len(got) < 8 {
				t.Errorf("%s, Python %s: %s", dir, version, diff)
			}
			if len(batches) != 1 || strings.Contains(batches[0], "index-url") || len(notes) != 0 {
				t.Errorf("%s: %d files, notes %q:\n%s", dir, len(batches), notes, batches)
			}
			for l := range strings.Lines(batches[0]) {
				if !strings.Contains(l, " --hash=sha256:") {
					t.Errorf("%s: no hash in %q", dir, l)
				}
			}
		}
	}
}

// Each lock file is what its tool says it is: changing what it was made of is noticed.
func TestOldLocks(t *testing.T) {
	tc := toolchain(t, withoutUV)
	for _, c := range []struct{ dir, file, old, new, note, err string }{
		{dir: "poetry-1.4", file: "pyproject.toml", old: "3.0.3", new: "3.0.2", err: "pyproject.toml changed after it was locked\nlock again and push the result: poetry lock"},
		{dir: "poetry-2.5", file: "pyproject.toml", old: "iniconfig", new: "pytest", err: "pyproject.toml changed"},
		{dir: "poetry-2.5", file: "pyproject.toml", old: "description = \"\"", new: "description = \"another\""},
		{dir: "pdm-2.22", file: "pyproject.toml", old: "Flask", new: "flask", note: "pdm.lock is older than pyproject.toml"},
		{dir: "pipenv", file: "Pipfile", old: "3.0.3", new: "3.0.2", note: "Pipfile.lock is older than Pipfile"},
	} {
		src := t.TempDir()
		if err := os.CopyFS(src, os.DirFS("testdata/locks/"+c.dir)); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(filepath.Join(src, c.file))
		if !strings.Contains(string(b), c.old) {
			t.Fatalf("%s: no %q", c.dir, c.old)
		}
		os.WriteFile(filepath.Join(src, c.file), []byte(strings.Replace(string(b), c.old, c.new, 1)), 0o644)
		d, err := tc.Dependencies(t.Context(), &config.App{Name: "blog"}, src, system, nil)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.dir, err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.dir, err)
		case !strings.Contains(strings.Join(d.Notes, "\n"), c.note) || c.note == "" && len(d.Notes) > 0:
			t.Errorf("%s: %q", c.dir, d.Notes)
		}
	}
}

const (
	hashA  = "sha256:aaaa"
	hashB  = "sha256:bbbb"
	commit = "0123456789abcdef0123456789abcdef01234567"
)

func pyprojectPoetry(more string) string {
	return "[tool.poetry]\nname = 'blog'\npackage-mode = false\n" + more
}

func TestLockedSources(t *testing.T) {
	lock := func(version, packages string) string {
		return packages + "\n[metadata]\nlock-version = '" + version + "'\ncontent-hash = ''\n"
	}
	app := &config.App{Name: "blog", InstanceID: "1", BuildEnv: []config.Var{
		{Name: "POETRY_HTTP_BASIC_OUR_OWN_USERNAME", Value: "bob"}, {Name: "POETRY_HTTP_BASIC_OUR_OWN_PASSWORD", Value: "p@ss"},
		{Name: "INDEX_TOKEN", Value: "t0k3n"},
	}}
	const both = "--index-url https://pypi.org/simple\n--extra-index-url https://bob:p%40ss@pypi.example.org/simple\n"
	for _, c := range []struct {
		name  string
		files []string
		want  []string
		err   string
	}{
		{name: "poetry", files: []string{"pyproject.toml", pyprojectPoetry(""), "poetry.lock", lock("2.1", `
[[package]]
name = "Six"
version = "1.16.0"
groups = ["main", "dev"]
markers = {main = "python_version >= \"3\"", dev = "extra == 'x'"}
files = [{file = "a", hash = "`+hashA+`"}, {file = "b", hash = "`+hashB+`"}]
[[package]]
name = "private"
version = "1"
groups = ["main"]
files = [{file = "a", hash = "`+hashA+`"}]
[package.source]
type = "legacy"
url = "https://pypi.example.org/simple"
reference = "our-own"
[[package]]
name = "vcs"
version = "1"
groups = ["main"]
files = []
[package.source]
type = "git"
url = "git@git.example.org:team/vcs.git"
reference = "main"
resolved_reference = "`+commit+`"
subdirectory = "lib"
[[package]]
name = "archive"
version = "1"
groups = ["main"]
files = [{file = "a.zip", hash = "`+hashB+`"}]
[package.source]
type = "url"
url = "https://www.example.org/a.zip"
[[package]]
name = "here"
version = "1"
groups = ["main"]
files = []
develop = true
[package.source]
type = "directory"
url = "libs/here"
[[package]]
name = "pytest"
version = "1"
groups = ["dev"]
files = []
`)},
			want: []string{
				both + "archive @ https://www.example.org/a.zip --hash=" + hashB + "\n",
				"--index-url https://bob:p%40ss@pypi.example.org/simple\n--extra-index-url https://pypi.org/simple\nprivate==1 --hash=" + hashA + "\n",
				"six==1.16.0 ; python_version >= \"3\" --hash=" + hashA + " --hash=" + hashB + "\n",
				both + "here @ file://SRC/libs/here\nvcs @ git+ssh://git@git.example.org/team/vcs.git@" + commit + "#subdirectory=lib\n",
			}},
		{name: "poetry 1.1", files: []string{"pyproject.toml", pyprojectPoetry("[tool.poetry.dependencies]\npython = '^3.8'\na = {version = '1', extras = ['more']}\nno = {version = '1', python = '<3.5'}\n"), "poetry.lock", `
[[package]]
name = "a"
version = "1"
category = "main"
[package.dependencies]
b = {version = "*", optional = true, markers = "extra == \"more\""}
c = {version = "*", optional = true}
win = {version = "*", markers = "sys_platform == 'win32'"}
[package.extras]
more = ["b (>=1)"]
other = ["c"]
[[package]]
name = "b"
version = "2"
[[package]]
name = "c"
version = "3"
[[package]]
name = "no"
version = "3"
[[package]]
name = "win"
version = "3"
[metadata]
lock-version = "1.1"
content-hash = ""
[metadata.files]
a = [{file = "a", hash = "` + hashA + `"}]
b = [{file = "a", hash = "` + hashB + `"}]
`}, want: []string{"a==1 --hash=" + hashA + "\nb==2 --hash=" + hashB + "\n"}},
		{name: "poetry 2.0, which version", files: []string{"pyproject.toml", pyprojectPoetry("[tool.poetry.dependencies]\na = '*'\n"), "poetry.lock", lock("2.0", "[[package]]\nname = 'a'\nversion = '1'\n[[package]]\nname = 'a'\nversion = '2'\n")},
			err: "poetry.lock: it has 2 versions of a, and a lock-version 2.0 does not say which is for Python 3.11\nlock again with Poetry 2"},
		{name: "poetry of the future", files: []string{"pyproject.toml", pyprojectPoetry(""), "poetry.lock", lock("3.0", "")}, err: "1.1 to 2.1 are known"},
		{name: "poetry from outside", files: []string{"pyproject.toml", pyprojectPoetry(""), "poetry.lock", lock("2.1", "[[package]]\nname = 'x'\nversion = '1'\ngroups = ['main']\n[package.source]\ntype = 'directory'\nurl = '../x'\n")}, err: "outside of the source"},
		{name: "poetry without a commit", files: []string{"pyproject.toml", pyprojectPoetry(""), "poetry.lock", lock("2.1", "[[package]]\nname = 'x'\nversion = '1'\ngroups = ['main']\n[package.source]\ntype = 'git'\nurl = 'https://u:pw@h/x'\nreference = 'main'\n")}, err: "x is from https://****@h/x, and the lock names no commit"},
		{name: "a line of its own", files: []string{"pyproject.toml", pyprojectPoetry(""), "poetry.lock", lock("2.1", "[[package]]\nname = \"x\"\nversion = \"1\\n--index-url http://evil\"\ngroups = ['main']\n")}, err: "no exact version"},
		{name: "an option in a marker", files: []string{"pyproject.toml", pyprojectPoetry(""), "poetry.lock", lock("2.1", "[[package]]\nname = 'x'\nversion = '1'\nmarkers = 'os_name == \"posix\" --hash=x'\ngroups = ['main']\n")}, err: "can't be read"},
		{name: "pdm", files: []string{"pyproject.toml", "[project]\nname = 'x'\ndependencies = []\n[[tool.pdm.source]]\nname = 'own'\nurl = 'https://x:${INDEX_TOKEN}@pypi.example.org/simple'\n", "pdm.lock", `
[metadata]
groups = ["default", "dev"]
strategy = ["inherit_metadata"]
lock_version = "4.5.0"
[[package]]
name = "six"
version = "1"
groups = ["default"]
marker = "python_version < '3'"
files = [{file = "a", hash = "` + hashA + `"}]
[[package]]
name = "six"
version = "1"
extras = ["x"]
groups = ["default"]
marker = "python_version > '3'"
files = [{file = "a", hash = "` + hashA + `"}]
[[package]]
name = "vcs"
version = "1"
groups = ["default"]
git = "https://git.example.org/vcs.git"
ref = "main"
revision = "` + commit + `"
[[package]]
name = "pytest"
version = "1"
groups = ["dev"]
`}, want: []string{
			"--index-url https://pypi.org/simple\n--extra-index-url https://x:t0k3n@pypi.example.org/simple\nsix==1 ; (python_version < '3') or (python_version > '3') --hash=" + hashA + "\n",
			"--index-url https://pypi.org/simple\n--extra-index-url https://x:t0k3n@pypi.example.org/simple\nvcs @ git+https://git.example.org/vcs.git@" + commit + "\n",
		}},
		{name: "pipenv", files: []string{"Pipfile.lock", `{"_meta": {"hash": {"sha256": ""}, "pipfile-spec": 6, "sources": [
 {"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": true}, {"name": "own", "url": "https://x:$INDEX_TOKEN@pypi.example.org/simple", "verify_ssl": true}]},
"default": {"six": {"version": "==1", "hashes": ["` + hashA + `"], "markers": "python_version > '3'"}, "mine": {"version": "==2", "hashes": ["` + hashB + `"], "index": "own"},
 "bare": {"version": "==3", "index": "own"}, "vcs": {"git": "https://git.example.org/vcs", "ref": "` + commit + `", "subdirectory": "lib"}, "here": {"path": "./libs/here", "editable": true}},
"develop": {"pytest": {"version": "==1"}}}`}, want: []string{
			"--index-url https://x:t0k3n@pypi.example.org/simple\n--extra-index-url https://pypi.org/simple\nmine==2 --hash=" + hashB + "\n",
			"six==1 ; python_version > '3' --hash=" + hashA + "\n",
			"--index-url https://x:t0k3n@pypi.example.org/simple\nbare==3\n",
			"--index-url https://pypi.org/simple\n--extra-index-url https://x:t0k3n@pypi.example.org/simple\nhere @ file://SRC/libs/here\nvcs @ git+https://git.example.org/vcs@" + commit + "#subdirectory=lib\n",
		}},
		{name: "pipenv, any version", files: []string{"Pipfile.lock", `{"_meta": {"pipfile-spec": 6}, "default": {"six": {"version": "*"}}}`}, err: "six has no exact version"},
		{name: "pipenv, unchecked index", files: []string{"Pipfile.lock", `{"_meta": {"pipfile-spec": 6, "sources": [{"name": "x", "url": "https://h", "verify_ssl": false}]}, "default": {}}`}, err: "verify_ssl"},
		{name: "pipenv, no JSON", files: []string{"Pipfile.lock", "<<<<<<< HEAD"}, err: "it is no JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := tree(t, c.files...)
			got, _, err := python.Exported(app, src, "3.11.2")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], src, "SRC")
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The project itself, when it is a package.
func TestLockedProject(t *testing.T) {
	tc := toolchain(t, withoutUV)
	const build = "[build-system]\nrequires = ['poetry-core']\n"
	lock := "package = []\n[metadata]\nlock-version = '2.1'\n"
	for name, c := range map[string]struct {
		files     []string
		shareable bool
		note      string
	}{
		"package":        {files: []string{"pyproject.toml", "[tool.poetry]\nname = 'my-blog'\n" + build, "my_blog/__init__.py", ""}},
		"src layout":     {files: []string{"pyproject.toml", "[project]\nname = 'my-blog'\n" + build, "src/my_blog/__init__.py", ""}},
		"no such module": {files: []string{"pyproject.toml", "[tool.poetry]\nname = 'my-blog'\n" + build}, shareable: true, note: "there is no package \"my_blog\""},
		"package-mode":   {files: []string{"pyproject.toml", "[tool.poetry]\nname = 'my-blog'\npackage-mode = false\n" + build, "my_blog/__init__.py", ""}, shareable: true},
		"no build":       {files: []string{"pyproject.toml", "[tool.poetry]\nname = 'my-blog'\n", "my_blog/__init__.py", ""}, shareable: true},
	} {
		d, err := tc.Dependencies(t.Context(), &config.App{Name: "blog"}, tree(t, append(c.files, "poetry.lock", lock)...), system, nil)
		if err != nil || d.Shareable != c.shareable || !strings.Contains(strings.Join(d.Notes, "\n"), c.note) || d.From != "poetry.lock" {
			t.Errorf("%s: %+v %v", name, d, err)
		}
	}
}

func TestMarkers(t *testing.T) {
	for marker, want := range map[string]bool{
		"":                         true,
		"python_version >= '3.10'": true,
		"python_version < \"3.9\" and os_name == 'posix'":                            false,
		"python_version < '3.9' or os_name == 'posix' and sys_platform == 'linux'":   true,
		"(python_version < '3.9' or os_name == 'posix') and sys_platform == 'win32'": false,
		"python_full_version >= '3.11.0a1' and python_version ~= '3.11'":             true,
		"'linux' in sys_platform and platform_system not in 'Windows Darwin'":        true,
		"'3.8' <= python_version":                                      true,
		"python_version == '3.*' and implementation_name == 'cpython'": true,
		"extra == 'async-io'":                                          true,
		"extra == 'no'":                                                false,
		"platform_python_implementation != 'PyPy' and python_full_version not in '3.11'": true,
	} {
		if got, err := python.MarkerAllows("3.11.2", marker, "Async_IO"); err != nil || got != want {
			t.Errorf("%q: %t %v", marker, got, err)
		}
	}
	for _, bad := range []string{"python_version", "python_version >=", "snake == '1'", "os_name == 'a' os_name == 'b'", "(os_name == 'a'", "os_name = 'a'", strings.Repeat("(", 1000)} {
		if _, err := python.MarkerAllows("3.11.2", bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestPoetryVersions(t *testing.T) {
	for _, c := range []struct {
		spec, v string
		want    bool
	}{
		{"^3.9", "3.11.2", true}, {"^3.12", "3.11.2", false}, {"^3", "4.0", false}, {"~3.11", "3.11.9", true}, {"~3.10", "3.11.2", false}, {"~3", "3.11", true},
		{">=3.9,<3.11", "3.11.2", false}, {">=3.9 <3.12", "3.11.2", true}, {"~3.8 || ^3.11", "3.11.2", true}, {"3.11.*", "3.11.2", true}, {"*", "3.1", true}, {"3.11", "3.11", true}, {"!=3.11.2", "3.11.2", false},
	} {
		if got, err := python.PoetryAllows(c.spec, c.v); err != nil || got != c.want {
			t.Errorf("%q allows %s: %t, %v", c.spec, c.v, got, err)
		}
	}
	for _, bad := range []string{"", "x", "^", ">=3.9 ||", "3.x"} {
		if _, err := python.PoetryAllows(bad, "3.11"); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// The same lock for the same Python is the same virtualenv, whatever else a
// pyproject.toml says; another password for an index changes nothing.
func TestLockKey(t *testing.T) {
	tc := toolchain(t, withoutUV)
	b, _ := os.ReadFile("testdata/locks/poetry-2.5/pyproject.toml")
	lock, _ := os.ReadFile("testdata/locks/poetry-2.5/poetry.lock")
	key := func(project, lock, password string) string {
		app := &config.App{Name: "blog", BuildEnv: []config.Var{{Name: "POETRY_HTTP_BASIC_MIRROR_PASSWORD", Value: password}}}
		d, err := tc.Dependencies(t.Context(), app, tree(t, "pyproject.toml", project, "poetry.lock", lock), system, nil)
		if err != nil {
			t.Fatal(err)
		}
		return d.Key
	}
	first := key(string(b), string(lock), "one")
	if first != key(string(b)+"\n[tool.ruff]\nline-length = 100\n", string(lock), "two") {
		t.Error("a tool's settings make another virtualenv")
	}
	if first == key(string(b), strings.Replace(string(lock), `version = "1.9.0"`, `version = "1.9.1"`, 1), "one") {
		t.Error("another version, the same virtualenv")
	}
}

// A lock of each tool, from the real index, by both installers.
func TestInstallLocks(t *testing.T) {
	online(t)
	t.Parallel()
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc := toolchain(t, path)
			for _, dir := range []string{"poetry-1.4", "poetry-2.5", "pdm-2.22", "pipenv"} {
				if (name == "pip" && dir != "poetry-2.5" || dir == "poetry-1.4") && os.Getenv("SCOTCH_EDITS") == "" {
					continue // seconds each
				}
				app := &config.App{Name: "blog", Interpreter: "python3", InterpreterSet: true, InstanceID: "1"}
				src, _ := filepath.Abs("testdata/locks/" + dir)
				r, err := install(t, tc, app, src)
				if err != nil {
					t.Fatalf("%s: %v\n%s", dir, err, r.out)
				}
				batches, _, _ := python.Exported(app, src, "3.11.2")
				want := slices.Sorted(maps.Keys(wouldInstall(t, strings.Join(batches, ""), "3.11.2")))
				var got []string
				for _, p := range r.list {
					n, _, _ := strings.Cut(strings.ToLower(p), "==")
					if n != "setuptools" {
						got = append(got, n)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" || !strings.HasSuffix(r.deps.From, ".lock") {
					t.Errorf("%s: %s", dir, diff)
				}
				python3(t, r, "import flask")
			}
		})
	}
}
