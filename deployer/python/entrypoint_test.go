package python_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/python"
)

// tree writes files, given as name and content in turn.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const managePy = `#!/usr/bin/env python
import os, sys
def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
`

func TestEntryPoint(t *testing.T) {
	const flask = "from flask import Flask\napp = Flask(__name__)\n"
	for _, c := range []struct {
		name  string
		files []string
		want  string // MODULE:CALLABLE, or !PART OF THE ERROR
		why   string
	}{
		{"app.py", []string{"app.py", flask}, "app:app", "detected: Flask, app.py"},
		{"wsgi.py wins over app.py", []string{"app.py", flask, "wsgi.py", "from app import app as application\n"}, "wsgi:application", ""},
		{"main.py", []string{"main.py", "application = object()"}, "main:application", "detected: main.py"},
		{"annotated", []string{"app.py", "from flask import Flask\napp: Flask = Flask(__name__)\n"}, "app:app", ""},
		{"two targets", []string{"app.py", "application = server = make()\n"}, "app:application", ""},
		{"two names", []string{"app.py", "app, db = setup()\n"}, "app:app", ""},
		{"PEP 3333", []string{"app.py", "def application(environ, start_response):\n    pass\n"}, "app:application", ""},
		{"factory", []string{"app.py", "def create_app(config=None, *, debug=False, **kw):\n    app = 1\n    return app\n"}, "app:create_app()", ""},
		{"factory with an argument", []string{"app.py", "def create_app(config):\n    return 1\n\ndef make_app(): pass\n"}, "app:make_app()", ""},
		{"factory with an argument by name", []string{"app.py", "def create_app(*, config): pass\n"}, "!no entry point found: create_app() in app.py takes arguments, which nobody gives\n", ""},
		{"factory with an argument in the namesake", []string{"my_blog.py", "def create_app(config): pass\n"}, "!takes arguments", ""},
		{"hidden by uWSGI", []string{"uwsgi.py", flask}, "!uwsgi.py is hidden by a module of that name that uWSGI brings\nrename it", ""},
		{"hidden by Python", []string{"site.py", "from flask import Flask\nweb = Flask(__name__)\n"}, "!site.py is hidden by a module of that name that Python brings", ""},
		{"hidden, and another", []string{"os.py", flask, "run.py", flask}, "run:app", ""},
		{"module in a src layout", []string{"src/acme_web/__init__.py", "", "src/acme_web/web.py", "import bottle\napp = bottle.Bottle()\n"}, "!what may be one; name it in scotch.cfg, at the root of the source:\n  [app]\n  entry_point = acme_web.web:app", ""},
		{"several of those", []string{"src/acme/a.py", flask, "src/acme/b.py", "def make_app(): pass\n"}, "!entry_point = acme.a:app\n  entry_point = acme.b:make_app()", ""},
		{"factory with a default that looks like arguments", []string{"app.py", "def create_app(\n    a={'x': 1, 'y': 2},  # b, c\n    b=f(1, 2),\n):\n    pass\n"}, "app:create_app()", ""},
		{"in a docstring", []string{"app.py", "\"\"\"Use it so:\n\napp = Flask(__name__)\n\"\"\"\n"}, "!no entry point", ""},
		{"indented", []string{"app.py", "if True:\n    app = 1\n"}, "!no entry point", ""},
		{"compared", []string{"app.py", "app == 1\nprint(app=1)\napp += 1\n"}, "!no entry point", ""},
		{"none yet", []string{"app.py", "app = None\n"}, "!no entry point", ""},
		{"celery", []string{"app.py", "from celery import Celery\napp = Celery('x')\n", "web.py", "from flask import Flask\nserver = Flask(__name__)\n"}, "web:server", ""},
		{"dash", []string{"app.py", "import dash\napp = dash.Dash(__name__)\nserver = app.server\n"}, "app:server", ""},
		{"asgi", []string{"main.py", "from fastapi import FastAPI\napp = FastAPI()\n"}, "!ASGI", ""},
		{"asgi as a function", []string{"app.py", "async def app(scope, receive, send):\n    pass\n"}, "!app in app.py is an ASGI app", ""},
		{"asgi as a function that awaits nothing", []string{"app.py", "def app(scope, receive, send):\n    return run(scope)\n"}, "!app in app.py is an ASGI app", ""},
		{"asgi from a factory", []string{"app.py", "from fastapi import FastAPI\n\ndef make_app(): return FastAPI()\n"}, "!what make_app() in app.py returns is an ASGI app", ""},
		{"asgi from a factory, by a name", []string{"app.py", "import fastapi\n\ndef create_app(debug=False) -> fastapi.FastAPI:\n    \"\"\"Makes it.\"\"\"\n    app = fastapi.FastAPI(\n        debug=debug,\n    )\n\n    @app.get('/')\n    def index():\n        return 1\n    return app\n"}, "!what create_app() in app.py returns is an ASGI app", ""},
		{"asgi from a factory, adapted", []string{"app.py", "def create_app():\n    app = FastAPI()\n    app = adapt(app)\n    return app\n"}, "app:create_app()", ""},
		{"asgi from a factory, perhaps", []string{"app.py", "def create_app():\n    app = FastAPI()\n    if WSGI:\n        app = adapt(app)\n    return app\n"}, "app:create_app()", ""},
		{"asgi from a function within a factory", []string{"app.py", "def create_app():\n    def other():\n        return FastAPI()\n    return Flask('x')\n"}, "app:create_app()", ""},
		{"asgi from an async factory", []string{"app.py", "async def create_app():\n    return web.Application()\n"}, "!what create_app() in app.py returns is an ASGI app", ""},
		{"asgi in a package's module", []string{"my_blog/__init__.py", "from .m import app\n", "my_blog/m.py", "from fastapi import FastAPI\napp = FastAPI()\n"}, "!app in my_blog/m.py is an ASGI app", ""},
		{"asgi in a package's module, by another name", []string{"my_blog/__init__.py", "from my_blog.api.m import web as app\n", "my_blog/api/m.py", "from ..base import web\n", "my_blog/base.py", "web = Starlette()\n"}, "!web in my_blog/base.py is an ASGI app", ""},
		{"asgi from an imported factory", []string{"wsgi.py", "from blog import create_app\n\napplication = create_app()\n", "blog/__init__.py", "def create_app():\n    return FastAPI()\n"}, "!what create_app() in blog/__init__.py returns is an ASGI app", ""},
		{"asgi, adapted", []string{"app.py", "async def app(scope, receive, send): pass\n\napp = adapt(app)\n"}, "app:app", ""},
		{"asgi, adapted by a decorator", []string{"app.py", "@adapt\ndef make_app():\n    return FastAPI()\n"}, "app:make_app()", ""},
		{"imports that go round", []string{"my_blog/__init__.py", "from .m import app\n", "my_blog/m.py", "from . import other\nfrom .m import app\n"}, "my_blog:app", ""},
		{"asgi in one module and a WSGI app in another", []string{"main.py", "async def app(scope, receive, send):\n    pass\n", "application.py", flask}, "application:app", ""},
		{"broken", []string{"app.py", "app = Flask(\"\n'''"}, "app:app", ""},
		{"byte order mark, CRLF", []string{"app.py", "\ufeffimport flask\r\napp = flask.Flask('x')\r\n"}, "app:app", ""},
		{"imported in brackets", []string{"wsgi.py", "from blog import (\n    db,\n    make_it as application,\n)\n"}, "wsgi:application", ""},
		{"a module of that name", []string{"main.py", "from . import app\n"}, "!no entry point", ""},

		{"django", []string{"manage.py", managePy, "mysite/__init__.py", "", "mysite/settings.py", "WSGI_APPLICATION = 'mysite.wsgi.application'\n", "mysite/wsgi.py", "application = 1"}, "mysite.wsgi:application", "detected: Django, mysite/settings.py"},
		{"django without the setting", []string{"manage.py", managePy, "mysite/settings.py", "", "mysite/wsgi.py", "application = 1"}, "mysite.wsgi:application", ""},
		{"django, split settings", []string{"manage.py", strings.Replace(managePy, "mysite.settings", "config.settings.local", 1), "config/settings/base.py", "WSGI_APPLICATION = \"config.web.app\"", "config/settings/local.py", "from .base import *", "config/settings/__init__.py", "", "config/wsgi.py", ""}, "config.web:app", ""},
		{"django and an app.py", []string{"manage.py", managePy, "mysite/settings.py", "WSGI_APPLICATION = 'mysite.wsgi.application'\n", "app.py", flask}, "mysite.wsgi:application", ""},
		{"django without anything", []string{"manage.py", managePy}, "!PACKAGE.wsgi", ""},
		{"flask-script", []string{"manage.py", "from flask_script import Manager\n", "app.py", flask}, "app:app", ""},

		{"procfile", []string{"Procfile", "release: x\nweb: gunicorn -w 4 -b 0.0.0.0:$PORT blog.server:web --log-file -\nworker: celery\n", "app.py", flask}, "blog.server:web", "detected: Procfile"},
		{"procfile, factory", []string{"Procfile", "web: gunicorn 'blog:create_app()'"}, "blog:create_app()", ""},
		{"procfile, module alone", []string{"Procfile", "web: gunicorn -k gevent --preload mysite.wsgi", "mysite/wsgi.py", "application = 1"}, "mysite.wsgi:application", ""},
		{"procfile, uwsgi", []string{"Procfile", "web: uwsgi --http :$PORT --wsgi-file web/site.py --callable app"}, "web.site:app", ""},
		{"procfile, uwsgi module", []string{"Procfile", "web: uwsgi --http :$PORT -w web:app"}, "web:app", ""},
		{"procfile, something else", []string{"Procfile", "web: python app.py", "app.py", flask}, "app:app", ""},
		{"procfile, ASGI", []string{"Procfile", "web: gunicorn -k uvicorn.workers.UvicornWorker main:app"}, "!ASGI", ""},
		{"procfile, ASGI by its file", []string{"Procfile", "web: gunicorn main:app", "main.py", "from fastapi import FastAPI\napp = FastAPI()\n"}, "!app in main.py is an ASGI app", ""},
		{"procfile, no such name", []string{"Procfile", "web: gunicorn main:web", "main.py", flask}, "!main.py has no \"web\"\nwhat may be meant, in the Procfile:\n  web: gunicorn main:app", ""},

		{"package named like the app", []string{"my_blog/__init__.py", "def create_app(): pass\n", "other/__init__.py", "app = 1"}, "my_blog:create_app()", ""},
		{"its wsgi module first", []string{"my_blog/__init__.py", "def create_app(): pass\n", "my_blog/wsgi.py", "from . import create_app\napplication = create_app()"}, "my_blog.wsgi:application", ""},
		{"module named like the app", []string{"my_blog.py", flask}, "my_blog:app", ""},
		{"src layout", []string{"src/my_blog/__init__.py", "def create_app(): pass\n"}, "my_blog:create_app()", "detected: src/my_blog/__init__.py"},
		{"package app", []string{"app/__init__.py", "def create_app(): pass\n", "worker/__init__.py", "app = 1"}, "app:create_app()", ""},
		{"only package", []string{"shop/__init__.py", "", "shop/app.py", flask, "tests/app.py", flask}, "shop.app:app", ""},
		{"two packages", []string{"shop/app.py", flask, "news/app.py", flask}, "!news.app:app\n  shop.app:app", ""},
		{"only file", []string{"run.py", flask, "setup.py", "app = 1", "test_x.py", flask}, "run:app", ""},
		{"default", []string{"my_blog/__init__.py", "from .factory import *\n"}, "my_blog:create_app()", "default"},
		{"nothing", []string{"README", ""}, "!entry_point = MODULE:CALLABLE", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := python.New(nil, python.Options{}).EntryPoint(t.Context(), &config.App{Name: "my-blog"}, tree(t, c.files...))
			if part, ok := strings.CutPrefix(c.want, "!"); ok {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, error %v", e, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.String() != c.want || (c.why != "" && e.Why != c.why) {
				t.Errorf("got %q, %q, want %q, %q", e, e.Why, c.want, c.why)
			}
		})
	}
}

func TestEntryPointConfigured(t *testing.T) {
	dir := tree(t, "blog/web.py", "import flask\napp = 1\n")
	find := func(value string) (string, error) {
		e, err := python.New(nil, python.Options{}).EntryPoint(t.Context(), &config.App{Name: "blog", EntryPoint: value}, dir)
		return e.String() + " " + e.Framework + " " + e.Why, err
	}
	for in, want := range map[string]string{
		"blog.web:app": "blog.web:app Flask configured",
		"x:make()":     "x:make()  configured",
	} {
		if got, err := find(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, c := range []struct{ file, text, value, want string }{
		{"app.py", "from flask import Flask\nweb = Flask(__name__)\n", "app:nosuch", "app.py has no \"nosuch\"\nwhat may be meant, in [app] entry_point:\n  entry_point = app:web"},
		{"app.py", "from lib import *\n", "app:nosuch", ""},
		{"app.py", "if True:\n    nosuch = 1\n", "app:nosuch", ""},
		{"app.py", "", "app:nosuch", "app.py has no \"nosuch\"\nwrite another one"},
		{"main.py", "from fastapi import FastAPI\napp = FastAPI()\n", "main:app", "app in main.py is an ASGI app, and scotch runs WSGI apps"},
		{"main.py", "from fastapi import FastAPI\napp = FastAPI()\napp = adapt(app)\n", "main:app", ""},
		{"main.py", "async def web(scope, receive, send): pass\n", "main:web", "web in main.py is an ASGI app, and scotch runs WSGI apps"},
		{"main.py", "def make(): return FastAPI()\n", "main:make()", "what make() in main.py returns is an ASGI app"},
		{"main.py", "def make(): return FastAPI()\napp = make()\n", "main:app", "what make() in main.py returns is an ASGI app"},
		{"main.py", "def make(): return FastAPI()\napp = adapt(make())\n", "main:app", ""},
		{"app.py", "def create_app(cfg): pass\n", "app:create_app()", "create_app() in app.py takes arguments, which nobody gives"},
		{"app.py", "def create_app(): pass\n", "app:create_app", "write app:create_app()"},
		{"os.py", "app = 1\n", "os:app", "os.py is hidden by a module of that name that Python brings"},
		{"README", "", "uwsgi:app", "uwsgi is hidden"},
		{"README", "", "installed.web:app", ""},
	} {
		_, err := python.New(nil, python.Options{}).EntryPoint(t.Context(), &config.App{Name: "blog", EntryPoint: c.value}, tree(t, c.file, c.text))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s with %s %q: %v", c.value, c.file, c.text, err)
		}
	}
	for _, bad := range []string{"blog", "blog:", "blog:a(1)", "blog:app\nplugin = x", "../x:app", "a b:c", "$(x):y", "blog:@(exec://id)", "%x:app"} {
		if got, err := find(bad); err == nil || !strings.Contains(err.Error(), "MODULE:CALLABLE") {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

// A repository with several projects: what holds an app is offered, not a library.
func TestEntryPointBelow(t *testing.T) {
	dir := tree(t, "lib/pyproject.toml", "[project]\n", "lib/lib/__init__.py", "", "services/api/app.py", "app = 1\n", "services/site/manage.py", managePy, "services/site/mysite/wsgi.py", "", "pkg/__init__.py", "", "pkg/inner/app.py", "")
	_, err := python.New(nil, python.Options{}).EntryPoint(t.Context(), &config.App{Name: "blog"}, dir)
	var none *deployer.NoEntryPointError
	if !errors.As(err, &none) || !slices.Equal(none.Below, []string{"services/api", "services/site"}) {
		t.Errorf("%v, %+v", err, none)
	}
}

// A build of the app may leave anything in the source. The server, which may be
// root, must neither wait for a named pipe nor read what a link leads to.
func TestHostileSource(t *testing.T) {
	dir := tree(t, "main.py", "app = 1\n")
	if err := syscall.Mkfifo(filepath.Join(dir, "wsgi.py"), 0o644); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "app.py")
	if err := os.WriteFile(outside, []byte("app = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "app.py")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e, err := python.New(nil, python.Options{}).EntryPoint(t.Context(), &config.App{Name: "blog"}, dir)
		if err != nil || e.String() != "main:app" {
			t.Errorf("%q, %v", e, err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a named pipe")
	}
}
