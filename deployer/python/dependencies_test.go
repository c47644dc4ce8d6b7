package python_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/python"
)

// withoutUV is a PATH on which no uv is.
const withoutUV = "/usr/bin:/bin"

var system = deployer.Interpreter{Path: "/usr/bin/python3", Version: "3.11.2"}

func newRunner(t *testing.T) deployer.Runner {
	return direct.New(t.TempDir(), direct.Options{Terminate: time.Second})
}

// uvPath is a PATH with uv; where there is none the test is skipped.
func uvPath(t *testing.T) string {
	t.Helper()
	uv, err := exec.LookPath("uv")
	if err != nil {
		t.Skip("no uv on the PATH; python3 -m pip install uv")
	}
	return filepath.Dir(uv) + ":" + withoutUV
}

func TestKey(t *testing.T) {
	tc := toolchain(t, withoutUV)
	base := []string{"requirements.txt", "-r req/base.txt\nsix==1.16.0\n", "req/base.txt", "-c pins.txt\nflask\n", "req/pins.txt", "Flask==3.0.0\n"}
	key := func(app *config.App, in deployer.Interpreter, extra []string, files ...string) deployer.Dependencies {
		t.Helper()
		d, err := tc.Dependencies(t.Context(), app, tree(t, files...), in, extra)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Key) == 0 || len(d.Key) > 40 || strings.Trim(d.Key, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			t.Errorf("the key is %q", d.Key)
		}
		return d
	}
	app := func(v ...config.Var) *config.App { return &config.App{Name: "blog", InstanceID: "1", BuildEnv: v} }
	first := key(app(), system, nil, base...)
	if !first.Shareable || first.From != "requirements.txt" || !strings.HasPrefix(first.Installer, "pip ") || len(first.Notes) != 0 {
		t.Errorf("%+v", first)
	}
	with := func(name, content string) []string {
		files := slices.Clone(base)
		if i := slices.Index(files, name); i >= 0 {
			files[i+1] = content
			return files
		}
		return append(files, name, content)
	}
	another := &config.App{Name: "shop", InstanceID: "2"}
	for name, same := range map[string]deployer.Dependencies{
		"again":              key(app(), system, nil, base...),
		"another app":        key(another, system, nil, base...),
		"another source":     key(app(), system, nil, with("app.py", "app = 1")...),
		"another password":   key(app(config.Var{Name: "PIP_INDEX_URL", Value: "https://u:one@x/"}), system, nil, base...),
		"a login of its own": key(app(config.Var{Name: "UV_INDEX_X_PASSWORD", Value: "secret"}), system, nil, base...),
	} {
		want := first.Key
		if name == "another password" {
			want = key(app(config.Var{Name: "PIP_INDEX_URL", Value: "https://u:two@x/"}), system, nil, base...).Key
		}
		if same.Key != want {
			t.Errorf("%s: another key", name)
		}
	}
	for name, other := range map[string]deployer.Dependencies{
		"a requirement":       key(app(), system, nil, with("requirements.txt", "-r req/base.txt\nsix==1.17.0\n")...),
		"an included file":    key(app(), system, nil, with("req/base.txt", "-c pins.txt\nflask\nsix\n")...),
		"a constraint":        key(app(), system, nil, with("req/pins.txt", "flask==3.0.1\n")...),
		"an extra":            key(app(), system, []string{"pyuwsgi"}, base...),
		"another interpreter": key(app(), deployer.Interpreter{Path: system.Path, Version: "3.11.3"}, nil, base...),
		"another index":       key(app(config.Var{Name: "PIP_INDEX_URL", Value: "https://y/"}), system, nil, base...),
	} {
		if other.Key == first.Key {
			t.Errorf("%s: the same key", name)
		}
	}
	if a, b := key(app(), system, []string{"a", "b"}, base...), key(app(), system, []string{"b", "a"}, base...); a.Key != b.Key {
		t.Error("the order of extras matters")
	}
	local := []string{"requirements.txt", "-e .\n"}
	one, two := key(app(), system, nil, local...), key(another, system, nil, local...)
	if one.Shareable || one.Key == two.Key {
		t.Errorf("local paths share a key: %+v %+v", one, two)
	}
}

func TestDeclared(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	tc := toolchain(t, withoutUV)
	for _, c := range []struct {
		name      string
		files     []string
		from      string
		shareable bool
		note      string
		err       string
	}{
		{name: "nothing", files: []string{"app.py", ""}, shareable: true},
		{name: "unpinned", files: []string{"requirements.txt", "# web\nFlask>=2 # not =='d\nsix==1.16.0; python_version > '3'\nUvicorn[standard]\na==1.*\n"}, from: "requirements.txt", shareable: true, note: "3 of 4 requirements name no exact version (flask, uvicorn, a)"},
		{name: "hashes", files: []string{"requirements.txt", "six==1.16.0 \\\n    --hash=sha256:aaaa \\\n    --hash=sha256:bbbb\n"}, from: "requirements.txt", shareable: true},
		{name: "pinned by a constraint", files: []string{"requirements.txt", "-c c.txt\nflask\n", "c.txt", "Flask==3\nother\n"}, from: "requirements.txt", shareable: true},
		{name: "editable", files: []string{"requirements.txt", "-e ./lib\n"}, from: "requirements.txt", note: "installed anew for each release: requirements.txt, line 1: -e ./lib"},
		{name: "path", files: []string{"requirements.txt", "six\n./lib\n"}, from: "requirements.txt", note: "line 2: ./lib"},
		{name: "wheel", files: []string{"requirements.txt", "wheels/six-1.16.0-py3-none-any.whl\n"}, from: "requirements.txt"},
		{name: "file address", files: []string{"requirements.txt", "six @ file:///srv/six.whl\n"}, from: "requirements.txt"},
		{name: "branch", files: []string{"requirements.txt", "git+https://u:secret@h/x@main#egg=x\n"}, from: "requirements.txt", note: "git+https://****@h/x@main"},
		{name: "commit", files: []string{"requirements.txt", "x @ git+https://h/x@" + commit + "\n"}, from: "requirements.txt", shareable: true},
		{name: "archive", files: []string{"requirements.txt", "https://h/x.zip\n"}, from: "requirements.txt"},
		{name: "archive with hash", files: []string{"requirements.txt", "x @ https://h/x.zip#sha256=abcd\n"}, from: "requirements.txt", shareable: true},
		{name: "find-links", files: []string{"requirements.txt", "-f wheels\nsix==1\n"}, from: "requirements.txt"},
		{name: "outside", files: []string{"requirements.txt", "-r ../other.txt\n"}, err: "outside of the source"},
		{name: "absolute", files: []string{"requirements.txt", "--requirement=/etc/passwd\n"}, err: "outside of the source"},
		{name: "missing", files: []string{"requirements.txt", "\n-rbase.txt\n"}, err: "requirements.txt, line 2 includes \"base.txt\", which is not in the source\ncommit base.txt, or take the line out"},
		{name: "many lines", files: []string{"requirements.txt", manyLines(20_000)}, from: "requirements.txt", shareable: true, note: "20000 of 20000"},
		{name: "too many lines", files: []string{"requirements.txt", manyLines(20_001)}, err: "requirements.txt, line 20001: more than 20000 requirements\nlist "},
		{name: "includes itself", files: []string{"requirements.txt", "-r requirements.txt\nsix==1\n"}, from: "requirements.txt", shareable: true},
		{name: "empty poetry.lock", files: []string{"poetry.lock", "", "pyproject.toml", "[tool.poetry]\n"}, err: "poetry.lock: its lock-version is \"\""},
		{name: "poetry.lock alone", files: []string{"poetry.lock", ""}, err: "remove poetry.lock"},
		{name: "Pipfile without lock", files: []string{"Pipfile", ""}, err: "pipenv lock"},
		{name: "Pipfile, exported", files: []string{"Pipfile", "", "requirements.txt", "six==1"}, from: "requirements.txt", shareable: true},
		{name: "no TOML", files: []string{"pyproject.toml", "[project]\nname = \n"}, err: "\nmend pyproject.toml"},
		{name: "no TOML, the line", files: []string{"pyproject.toml", "[project]\nname = \n"}, err: "pyproject.toml, line 2: "},
		{name: "a conflict in a lock", files: []string{"pyproject.toml", "", "uv.lock", "<<<<<<< HEAD\n"}, err: "\nlock again and push the result: uv lock"},
		{name: "poetry without lock, no package", files: []string{"pyproject.toml", "[tool.poetry]\nname = 'blog'\npackage-mode = false\n[build-system]\nrequires = ['poetry-core']\n", "blog.py", ""}, err: noPoetryLock},
		{name: "poetry without lock, no build", files: []string{"pyproject.toml", "[tool.poetry]\nname = 'blog'\n", "blog.py", ""}, err: noPoetryLock},
		{name: "poetry without lock, another name", files: []string{"pyproject.toml", "[tool.poetry]\nname = 'blog'\n[build-system]\nbuild-backend = 'poetry.core.masonry.api'\n", "app.py", ""}, err: noPoetryLock},
		{name: "poetry without lock, a package", files: []string{"pyproject.toml", "[tool.poetry]\nname = 'my-blog'\n[build-system]\nbuild-backend = 'poetry.core.masonry.api'\n", "src/my_blog/__init__.py", ""}, from: "pyproject.toml"},
		{name: "poetry without lock, a list", files: []string{"pyproject.toml", "[project]\nname = 'blog'\ndependencies = ['six']\n[tool.poetry]\npackage-mode = false\n", "blog.py", ""}, from: "pyproject.toml"},
		{name: "another case", files: []string{"Requirements.txt", "six"}, shareable: true, note: "Requirements.txt is not read: requirements.txt is, in this case of letters"},
		{name: "a directory", files: []string{"requirements.txt/base.txt", "six"}, shareable: true, note: "requirements.txt is not read: it is a directory"},
		{name: "another case beside settings", files: []string{"pyproject.toml", "[tool.ruff]\n", "REQUIREMENTS.TXT", ""}, shareable: true, note: "REQUIREMENTS.TXT is not read"},

		{name: "uv without uv", files: []string{"uv.lock", "", "pyproject.toml", ""}, err: "uv.lock is installed by uv"},
		{name: "settings of tools", files: []string{"pyproject.toml", "[tool.ruff]\nline-length = 100\n"}, shareable: true},
		{name: "project", files: []string{"pyproject.toml", "[build-system]\nrequires = []\n[project]\nname='x'\n"}, from: "pyproject.toml"},
		{name: "setup.py", files: []string{"setup.py", ""}, from: "setup.py"},
		{name: "list", files: []string{"pyproject.toml", "[project]\nname = 'x'\ndependencies = [\n  'six==1.16.0', # a ]\n  \"flask>=2\",\n]\n"}, from: "pyproject.toml", shareable: true, note: "1 of 2 requirements"},
		{name: "option in a list", files: []string{"pyproject.toml", "[project]\nname = 'x'\ndependencies = ['--index-url=http://evil']\n"}, err: "is no requirement"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := tc.Dependencies(t.Context(), &config.App{Name: "blog", InstanceID: "1"}, tree(t, c.files...), system, nil)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.From != c.from || d.Shareable != c.shareable || !strings.Contains(strings.Join(d.Notes, "\n"), c.note) || (c.note == "" && c.shareable && len(d.Notes) > 0) {
				t.Errorf("%+v", d)
			}
		})
	}
}

const noPoetryLock = "poetry.lock is missing, and the project can't be installed by itself\nmake the lock, and push it too: poetry lock"

func manyLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "package%d\n", i)
	}
	return b.String()
}

func TestSpecifier(t *testing.T) {
	for _, c := range []struct {
		spec, v string
		want    bool
	}{
		{">=3.9", "3.11.2", true}, {">=3.9,<3.11", "3.11.2", false}, {">= 3.11.3", "3.11.2", false},
		{"~=3.9", "3.11.2", true}, {"~=3.9.1", "3.11.2", false}, {"==3.11.*", "3.11.2", true},
		{"!=3.11.*", "3.11.2", false}, {"==3.11", "3.11.2", false}, {"<4", "3.14.0rc1", true}, {">3.11", "3.11.2", true}, {"", "3.1", true},
	} {
		if got, err := python.Allows(c.spec, c.v); err != nil || got != c.want {
			t.Errorf("%q allows %s: %t, %v", c.spec, c.v, got, err)
		}
	}
	for _, bad := range []string{"3.9", ">=x", "^3.11", "~=3", ">=3.9 <4"} {
		if _, err := python.Allows(bad, "3.11"); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestTOML(t *testing.T) {
	const doc = "title = \"x # y\" # c\n[project]\nname='a'\n\"requires-python\" = '>=3.9'\ndescription = \"\"\"\n[no.table]\nversion = 'no'\n\"\"\"\n" +
		"dependencies = [ # 'c'\n 'a[x]', \"b\\u0041\",\n]\nurls = { home = 'x' }\n[tool.uv.sources]\nx = { path = '[' }\n[[a]]\nb = 1"
	if v, ok := python.TOMLText(doc, "project.requires-python"); !ok || v != ">=3.9" {
		t.Errorf("%q", v)
	}
	if _, ok := python.TOMLText(doc, "no.table.version"); ok {
		t.Error("a table in a string counts")
	}
	if v, _ := python.TOMLText(doc, "title"); v != "x # y" {
		t.Errorf("%q", v)
	}
	if diff := cmp.Diff([]string{"a[x]", "bA"}, python.TOMLTexts(doc, "project.dependencies")); diff != "" {
		t.Error(diff)
	}
	if v, _ := python.TOMLText("project.name = 'x'", "project.name"); v != "x" {
		t.Errorf("%q", v)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("[project]\ndependencies = ['a', \"b\"]\n")
	f.Add("def create_app(a=(1, 2)):\n  '''x'''\napp = 1\n-e .\nsix==1 \\\n --hash=sha256:x")
	tc := python.New(nil, python.Options{})
	f.Fuzz(func(t *testing.T, s string) {
		python.TOMLTexts(s, "project.dependencies")
		python.TOMLText(s, "a")
		dir := t.TempDir()
		for _, n := range []string{"app.py", "Procfile", "manage.py"} {
			os.WriteFile(filepath.Join(dir, n), []byte(s), 0o644)
		}
		tc.EntryPoint(t.Context(), &config.App{Name: "blog"}, dir)
	})
}

func TestFilter(t *testing.T) {
	app := &config.App{BuildEnv: []config.Var{
		{Name: "PIP_EXTRA_INDEX_URL", Value: "https://bob:p%40ss%2Fword@pypi.example.org/simple"},
		{Name: "NPM_TOKEN", Value: "t0k3n-value"},
	}}
	out, _ := python.Filter(app,
		"Looking in indexes: https://bob:p%40ss%2F", "word@pypi.example.org/simple\nGET https://tok", "en@h/x and git+ssh://git@github.com/x\n",
		"the password is p@ss/word, the token t0k3n-value", "\n  last line without an end https://a:b@c")
	want := "Looking in indexes: https://****@pypi.example.org/simple\nGET https://****@h/x and git+ssh://git@github.com/x\n" +
		"the password is ****, the token ****\n  last line without an end https://****@c"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if out, _ := python.Filter(app, "Using Python 3.11.2 environment at: v\nUsing CPython", " 3.11.2 environment at: v\nResolved 1 package in 3ms\n"); out != "Resolved 1 package in 3ms\n" {
		t.Errorf("noise: %q", out)
	}
	if out, _ := python.Filter(app, strings.Repeat("x", 1<<20)); len(out) != 1<<20 {
		t.Errorf("%d bytes of a long line came through", len(out))
	}
	for line, want := range map[string]string{
		"src/x.c:1:10: fatal error: Python.h: No such file or directory":       "python3.11-dev",
		"Error: pg_config executable not found.":                               "libpq-dev",
		"error: command 'gcc' failed: No such file or directory":               "build-essential",
		"unable to execute 'x86_64-linux-gnu-gcc': No such file":               "build-essential",
		"c/_cffi_backend.c:15:10: fatal error: ffi.h: No such file or dir":     "libffi-dev",
		"OSError: [Errno 28] No space left on device":                          "scotch prune",
		"invalid peer certificate: UnknownIssuer":                              "update-ca-certificates",
		"The virtual environment was not created: ensurepip is not available.": "python3.11-venv",
	} {
		if _, hints := python.Filter(app, line+"\n"); len(hints) != 1 || !strings.Contains(hints[0], want) {
			t.Errorf("%q: %q", line, hints)
		}
	}
}
