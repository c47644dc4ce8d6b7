package python_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"scotch/config"
	"scotch/deployer/python"
)

// "uv sync --frozen" installed a lock that was older than pyproject.toml without a word.
func TestUVLockOfAnotherProject(t *testing.T) {
	const lock = `version = 1
[[package]]
name = "blog-x"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "flask" }]
[package.metadata]
requires-dist = [
    { name = "flask", extras = ["async", "dotenv"], marker = "python_full_version >= '3.8'", specifier = ">=2" },
    { name = "idna", specifier = ">=3,<4" },
    { name = "iniconfig", marker = "extra == 'x-y'", specifier = ">1" },
    { name = "ruamel-yaml", extras = ["jinja2"], specifier = ">=0.18,!=0.19rc1" },
    { name = "six", specifier = "==1.16.0" },
]
`
	const none = "version = 1\n[[package]]\nname = 'blog-x'\nversion = '1'\nsource = { virtual = '.' }\n"
	list := func(deps string) string {
		return "[project]\nname = 'Blog_X'\nversion = '1'\ndependencies = [" + deps + "]\n"
	}
	const flask, idna, yaml, six = `"flask[dotenv, async]>=2 ; python_version >= '3.8'",`, `"idna <4, >=3.0",`, `"Ruamel.YAML[jinja2] (>=0.18,!=0.19-rc.1)",`, `"Six == 1.16.0",`
	for _, c := range []struct {
		name, project, lock string
		stale               bool
	}{
		{"the same in other words", list(six + yaml + idna + flask), lock, false},
		{"another extra of the project", list(six+yaml+idna+flask) + "[project.optional-dependencies]\nz = ['toml']\n", lock, false},
		{"one more", list(six + yaml + idna + flask + "'toml'"), lock, true},
		{"one more, perhaps for no Python", list(six + yaml + idna + flask + `"toml; python_version < '3'"`), lock, false},
		{"one less", list(six + yaml + flask), lock, true},
		{"another version", list(`"six==1.17.0",` + yaml + idna + flask), lock, true},
		{"any version", list(`"six",` + yaml + idna + flask), lock, true},
		{"a package's extra less", list(six + `"ruamel.yaml>=0.18,!=0.19rc1",` + idna + flask), lock, true},
		{"another source", list(`"six",`+yaml+idna+flask) + "[tool.uv.sources]\nsix = { path = 'six' }\n", lock, false},
		{"a dynamic list", "[project]\nname = 'blog-x'\ndynamic = ['dependencies']\n", lock, false},
		{"none as before", list(""), none, false},
		{"the first", list("'flask'"), none, true},
		{"of another name", strings.Replace(list(""), "Blog_X", "shop", 1), lock, false},
	} {
		_, err := python.Declared(&config.App{Name: "blog"}, tree(t, "pyproject.toml", c.project, "uv.lock", c.lock))
		if c.stale != (err != nil) || err != nil && err.Error() != "uv.lock: pyproject.toml changed after it was locked\nlock again and push the result: uv lock" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What uv has just locked is never refused.
func TestUVLockIsFresh(t *testing.T) {
	online(t)
	t.Parallel()
	uvPath(t)
	src := tree(t, "pyproject.toml", `[project]
name = "Blog.X"
version = "1"
requires-python = ">=3.9"
dependencies = ["Six==1.16.00", "idna>=2.01,!=3.0-rc1; python_version<'3'", "idna~=3.0 ;python_version >= '3'", "toml===0.10.2", "zipp <99,>= v1", "flask[async]", "blog-x[more]"]
[project.optional-dependencies]
more = ["iniconfig>1"]
[dependency-groups]
dev = ["packaging"]
[tool.uv]
constraint-dependencies = ["six<2"]
`)
	lock := exec.Command("uv", "lock", "--quiet", "--python", "/usr/bin/python3")
	lock.Dir = src
	lock.Env = append(os.Environ(), "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
	if b, err := lock.CombinedOutput(); err != nil {
		t.Fatalf("uv lock: %v\n%s", err, b)
	}
	project := filepath.Join(src, "pyproject.toml")
	b, _ := os.ReadFile(project)
	for _, c := range []string{string(b), strings.Replace(string(b), `, "blog-x[more]"`, "", 1)} {
		os.WriteFile(project, []byte(c), 0o644)
		if c != string(b) {
			again := exec.Command("uv", "lock", "--quiet", "--python", "/usr/bin/python3")
			again.Dir, again.Env = src, lock.Env
			if b, err := again.CombinedOutput(); err != nil {
				t.Fatalf("uv lock: %v\n%s", err, b)
			}
		}
		if _, err := python.Declared(&config.App{Name: "blog"}, src); err != nil {
			l, _ := os.ReadFile(filepath.Join(src, "uv.lock"))
			t.Errorf("%v\n%s", err, l)
		}
	}
}
