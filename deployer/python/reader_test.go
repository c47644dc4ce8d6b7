package python_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/python"
)

// reading is a toolchain that reads as the server does, with less patience. The race
// detector takes some hundred megabytes for itself.
func reading(t *testing.T) *python.Toolchain {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return python.New(direct.New(t.TempDir(), direct.Options{Terminate: time.Second}), python.Options{
		Path: os.Getenv("PATH"), Reader: []string{self, python.Arg}, ReaderLimits: deployer.ProcessLimits{Memory: 1 << 30, CPU: 2 * time.Second},
	})
}

// Files that took the server's memory or time, more than there is of them: each
// ended it, or kept its deploys from going on, whoever had pushed it.
func TestSourceThatTakesTheServersMemoryOrTime(t *testing.T) {
	entry := func(tc *python.Toolchain, dir string) error {
		_, err := tc.EntryPoint(t.Context(), &config.App{Name: "blog"}, dir)
		return err
	}
	depends := func(tc *python.Toolchain, dir string) error {
		in := deployer.Interpreter{Path: "/usr/bin/python3", Version: "3.11.2"}
		_, err := tc.Dependencies(t.Context(), &config.App{Name: "blog"}, dir, in, nil)
		return err
	}
	interpreter := func(tc *python.Toolchain, dir string) error {
		_, err := tc.Interpreter(t.Context(), &config.App{Name: "blog", Interpreter: "python3"}, dir)
		return err
	}
	repeat := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	big := strings.Repeat("a\n", 8<<20)
	for name, c := range map[string]struct {
		read  func(*python.Toolchain, string) error
		files map[string]string
		links map[string]string
	}{
		// The parser keeps the whole name of the table with each of its keys.
		"table with a long name": {read: interpreter, files: map[string]string{
			"pyproject.toml": "[project]\nname='x'\n[\"" + strings.Repeat("k", 1000000) + "\"]\n" + repeat("a%d=1\n", 20000)}},
		"hashes of many packages of one name": {read: depends, files: map[string]string{
			"poetry.lock":    strings.Repeat("[[package]]\nname='a'\nversion='1'\ngroups=['main']\n", 3000) + "[metadata]\nlock-version='2.1'\n[metadata.files]\na=[" + strings.Repeat("{hash='sha256:a'},", 50000) + "]\n",
			"pyproject.toml": "[tool.poetry]\n[tool.poetry.dependencies]\na='*'\n"}},
		"settings without an end": {read: entry, files: map[string]string{
			"manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', '" + strings.Repeat("a.", 500000) + "a')\n"}},
		"a version with many clauses": {read: interpreter, files: map[string]string{
			"pyproject.toml": "[project]\nname='x'\nrequires-python='" + strings.Repeat(">3,", 900000) + ">3'\n"}},
		"millions of dependencies": {read: depends, files: map[string]string{
			"pyproject.toml": "[project]\nname='x'\ndependencies=[" + strings.Repeat("'a',", 3000000) + "]\n"}},
		"a callable of megabytes": {read: entry, files: map[string]string{"Procfile": "web: gunicorn wsgi:" + strings.Repeat("a", 15000000) + "\n"}},
		"links to one large module": {read: entry,
			files: map[string]string{"p/m": big},
			links: map[string]string{"p/wsgi.py": "m", "p/__init__.py": "m", "p/app.py": "m", "p/main.py": "m", "p/application.py": "m", "q0": "p", "q1": "p", "q2": "p", "q3": "p"}},
		"links to one large list": {read: depends,
			files: map[string]string{"big": big, "requirements.txt": repeat("-r r%d\n", 60)},
			links: func() map[string]string {
				m := map[string]string{}
				for i := range 60 {
					m[fmt.Sprintf("r%d", i)] = "big"
				}
				return m
			}()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for f, text := range c.files {
				if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755), os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			for f, to := range c.links {
				if err := os.Symlink(to, filepath.Join(dir, f)); err != nil {
					t.Fatal(err)
				}
			}
			err := c.read(reading(t), dir)
			if err == nil {
				t.Fatal("it passes")
			}
			t.Logf("%.300v", err)
			if len(err.Error()) > 32<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// What a reader says is what this process would have read.
func TestReaderSaysTheSame(t *testing.T) {
	tc, own := reading(t), python.New(direct.New(t.TempDir(), direct.Options{Terminate: time.Second}), python.Options{Path: os.Getenv("PATH")})
	app := &config.App{Name: "blog", Interpreter: "python3"}
	for _, dir := range []string{
		tree(t, "app.py", "from flask import Flask\napp = Flask(__name__)\n", "requirements.txt", "flask==3.1.0\nidna\n", ".python-version", "3\n"),
		tree(t, "app.py", "async def app(scope, receive, send): pass\n"),
		tree(t, "below/app.py", "def app(environ, start_response): pass\n"),
		tree(t, "pyproject.toml", "[project]\nname = 'x'\nrequires-python = '>=3.8,!=3.9.*'\ndependencies = ['idna==3.10']\n"),
		tree(t, "Pipfile.lock", `{"_meta": {"pipfile-spec": 6, "sources": [{"name": "pypi", "url": "https://index.example/simple"}]}, "default": {"idna": {"version": "==3.10", "hashes": ["sha256:`+strings.Repeat("0", 64)+`"]}}}`),
	} {
		in, err := tc.Interpreter(t.Context(), app, dir)
		in2, err2 := own.Interpreter(t.Context(), app, dir)
		if in != in2 || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Errorf("interpreters: %+v, %v and %+v, %v", in, err, in2, err2)
		}
		e, err := tc.EntryPoint(t.Context(), app, dir)
		e2, err2 := own.EntryPoint(t.Context(), app, dir)
		if e != e2 || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Errorf("entry points: %+v, %v and %+v, %v", e, err, e2, err2)
		}
		if n, ok := errors.AsType[*deployer.NoEntryPointError](err); ok {
			n2, _ := errors.AsType[*deployer.NoEntryPointError](err2)
			if n2 == nil || fmt.Sprint(*n) != fmt.Sprint(*n2) {
				t.Errorf("no entry points: %+v and %+v", n, n2)
			}
		}
		d, err := tc.Dependencies(t.Context(), app, dir, in, nil)
		d2, err2 := own.Dependencies(t.Context(), app, dir, in, nil)
		if fmt.Sprint(d) != fmt.Sprint(d2) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Errorf("dependencies: %+v, %v and %+v, %v", d, err, d2, err2)
		}
	}
}
