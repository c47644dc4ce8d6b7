package python_test

import (
	"strings"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/python"
)

// What the app wrote decides the next step, and where it says nothing that is
// known, none is made up.
func TestDiagnose(t *testing.T) {
	src := tree(t, "blog/__init__.py", "")
	for _, c := range []struct {
		name, log    string
		dependencies string
		packages     []string
		deploy       bool
		want         string // a part; "" for none
	}{
		{"nothing declared", "Traceback (most recent call last):\nModuleNotFoundError: No module named 'flask'", "", nil, true, "no dependencies are declared; if \"flask\""},
		{"not declared", "ModuleNotFoundError: No module named 'flask.ext'", "poetry.lock", []string{"bottle==1"}, true, "poetry.lock has to name that too"},
		{"installed and lost", "ModuleNotFoundError: No module named 'ruamel_yaml'", "requirements.txt", []string{"ruamel.yaml==1"}, true, "git push -o clean, or ssh host deploy blog --clean"},
		{"lost, at a restart", "ModuleNotFoundError: No module named 'Flask'", "requirements.txt", []string{"flask @ https://example.org/x"}, false, "ssh host rebuild blog"},
		{"its own", "ModuleNotFoundError: No module named 'blog.web'", "", nil, true, ""},
		{"Python's library", "ModuleNotFoundError: No module named 'encodings'", "", nil, false, "rebuild blog"},
		{"a variable", "Traceback (most recent call last):\n  File \"app.py\", line 3, in <module>\n    u = os.environ[\"A_URL\"]\n  File \"<frozen os>\", line 679, in __getitem__\nKeyError: 'A_URL'", "", nil, true, "the app wants the variable A_URL: ssh host env blog set A_URL=VALUE"},
		{"another key", "Traceback (most recent call last):\n  File \"app.py\", line 3, in <module>\n    {}['a']\nKeyError: 'a'", "", nil, true, ""},
		{"decouple", "decouple.UndefinedValueError: SECRET_KEY not found. Declare it as envvar or define a default value.", "", nil, true, "set SECRET_KEY=VALUE"},
		{"django-environ", "django.core.exceptions.ImproperlyConfigured: Set the DATABASE_URL environment variable", "", nil, true, "set DATABASE_URL=VALUE"},
		{"Flask's server", " * Serving Flask app 'app'\n * Debug mode: off", "", nil, true, "__main__"},
		{"Flask's server, its port taken", "Address already in use\nPort 5000 is in use by another program. Either identify", "", nil, true, "__main__"},
		{"Bottle's server", "Bottle v0.12.25 server starting up (using WSGIRefServer())...", "", nil, true, "__main__"},
		{"an ASGI app", "Traceback (most recent call last):\nTypeError: FastAPI.__call__() missing 1 required positional argument: 'send'", "", nil, true, "blog:app is an ASGI app, and scotch runs WSGI apps\n"},
		{"an ASGI app, Python 3.9", "TypeError: __call__() missing 1 required positional argument: 'send'", "", nil, true, "is an ASGI app"},
		{"a function that lacks another argument", "TypeError: post() missing 1 required positional argument: 'sender'", "", nil, true, ""},
		{"nothing known", "RuntimeError: oh no", "", nil, true, ""},
	} {
		got := python.New(nil, python.Options{}).Diagnose(deployer.Failure{
			App: "blog", Lines: strings.Split(c.log, "\n"), Source: src, EntryPoint: deployer.EntryPoint{Module: "blog", Callable: "app"}, Dependencies: c.dependencies, Packages: c.packages,
			Deploy: c.deploy, SSH: "ssh host", Again: "push again",
		})
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// A slip of the pen in the name of the entry point's own module was taken for a
// package that the requirements lack.
func TestDiagnoseEntryPoint(t *testing.T) {
	src := tree(t, "server.py", "application = 1\n", "blog/__init__.py", "", "blog/wsgi.py", "application = 1\n", "src/shop/web.py", "", "src/shop/__init__.py", "")
	const configured, procfile = "[app] entry_point of scotch.cfg:2", "the Procfile's web line"
	for _, c := range []struct{ module, from, missing, want string }{
		{"srver", procfile, "srver", `the Procfile's web line names the module "srver", and the source has server.py: write server:application, and push again`},
		{"srver", configured, "srver", `[app] entry_point of scotch.cfg:2 names the module "srver", and the source has server.py: write server:application, and push again`},
		{"Server", configured, "Server", "the source has server.py: write server:application"},
		{"blogg.wsgi", configured, "blogg", `names the module "blogg.wsgi", and the source has blog/wsgi.py: write blog.wsgi:application`},
		{"blog.wsgii", configured, "blog.wsgii", "the source has blog/wsgi.py: write blog.wsgi:application"},
		{"shopp.web", configured, "shopp", "the source has src/shop/web.py: write shop.web:application"},
		{"gateway", configured, "gateway", "[app] entry_point of scotch.cfg:2 names the module \"gateway\", which is neither in the source nor installed\nif it is of a package, requirements.txt has to name that; mend it and push again"},
		{"flask.servr", "", "flask.servr", `the entry point's module is "flask.servr", which is neither in the source nor installed`},
		{"gone.web", configured, "gone", "gone==1 was installed, and the virtualenv lacks it now"},
		{"server", configured, "srver", `if "srver" is of a package, requirements.txt has to name that too`},
	} {
		got := python.New(nil, python.Options{}).Diagnose(deployer.Failure{
			App: "my-app", Lines: []string{"ModuleNotFoundError: No module named '" + c.missing + "'"}, Source: src, Dependencies: "requirements.txt", Packages: []string{"gone==1"},
			EntryPoint: deployer.EntryPoint{Module: c.module, Callable: "application", From: c.from}, Again: "push again",
		})
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.module, got)
		}
	}
}

// A database in the source is lost with its release: that is told before it is.
func TestAdvise(t *testing.T) {
	const sqlite = `DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}`
	for _, c := range []struct {
		name, settings string
		persist        []string
		want           string
	}{
		{"as startproject writes it", sqlite, nil, "persist = db.sqlite3"},
		{"as it did", "DATABASES = {\n  'default': {\n    'ENGINE': 'django.db.backends.sqlite3',\n    'NAME': os.path.join(BASE_DIR, 'db/main.sqlite3'),\n}}\n", nil, "persist = db/main.sqlite3"},
		{"kept", sqlite, []string{"db.sqlite3"}, ""},
		{"its directory is kept", strings.Replace(sqlite, "db.sqlite3", "var/db.sqlite3", 1), []string{"var"}, ""},
		{"in the data", strings.Replace(sqlite, "BASE_DIR /", "DATA /", 1), nil, ""},
		{"absolute", strings.Replace(sqlite, "BASE_DIR / \"", "\"/var/lib/", 1), nil, ""},
		{"in memory", strings.Replace(sqlite, "BASE_DIR / \"db.sqlite3\"", "\":memory:\"", 1), nil, ""},
		{"another engine", strings.Replace(sqlite, "sqlite3", "postgresql", 1), nil, ""},
		{"a variable's", "DATABASES = {'default': env.db()}", nil, ""},
	} {
		src := tree(t, "manage.py", managePy, "mysite/settings.py", c.settings)
		got := strings.Join(python.New(nil, python.Options{}).Advise(t.Context(), &config.App{Name: "blog", Persist: c.persist}, src, deployer.EntryPoint{Framework: "Django"}, nil), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// Of a database of Django's that was told, and of that of a plain app not.
func TestAdviseOfSQLite(t *testing.T) {
	const flask = "from flask import Flask\napp = Flask(__name__)\n"
	for _, c := range []struct {
		name, app string
		more      []string
		want      string
	}{
		{"connect", "import sqlite3\n" + flask + "def get_db():\n    db = g.db = sqlite3.connect('notes.db', timeout=3)\n    return db\n", nil,
			"the database \"notes.db\" of app.py lies in the release's source, and is not in the next one; in scotch.cfg this keeps it from then on:\n  [app]\n  persist = media notes.db"},
		{"connect, by a name", "DATABASE = './var/notes.sqlite3'\n" + flask + "def get_db():\n    with sqlite3.connect(DATABASE) as db: return db\n", nil, "persist = media var/notes.sqlite3"},
		{"two", flask + "a = sqlite3.connect('a.db'); b = sqlite3.connect(\"b.db\")\nc = sqlite3.connect('a.db')\n", nil, "persist = media a.db b.db"},
		{"kept", flask + "a = sqlite3.connect('media/a.db')\n", nil, ""},
		{"committed", flask + "a = sqlite3.connect('words.db')\n", []string{"words.db", "x"}, "the database \"words.db\" of app.py comes with the commit, and what the app writes there is not in the next release; if it does, this"},
		{"an engine", flask + "engine = create_engine(\"sqlite:///shop.db\", echo=True)\n", nil, "persist = media shop.db"},
		{"in the module that is imported from", "from web import app\n", []string{"web.py", flask + "a = sqlite3.connect('a.db')\n"}, "\"a.db\" of web.py"},
		{"in the module of the factory", "from web import make\napp = make()\n", []string{"web.py", "def make():\n    a = sqlite3.connect('a.db')\n"}, "\"a.db\" of web.py"},
		{"Flask-SQLAlchemy", flask + "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///project.db'\n", []string{"=3.1.1", ""}, "persist = media instance/project.db"},
		{"Flask-SQLAlchemy, in a factory", "from flask import Flask\n\ndef create_app():\n    app = Flask(__name__)\n    app.config[\"SQLALCHEMY_DATABASE_URI\"] = \"sqlite:///project.db\"\n    return app\n", []string{"=3.0", ""}, "persist = media instance/project.db"},
		{"Flask-SQLAlchemy 2", flask + "SQLALCHEMY_DATABASE_URI = 'sqlite:///project.db'\n", []string{"=2.5.1", ""}, "persist = media project.db"},
		{"Flask-SQLAlchemy of no known version", flask + "SQLALCHEMY_DATABASE_URI = 'sqlite:///project.db'\n", nil, ""},
		{"Flask-SQLAlchemy, from the environment too", flask + "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///project.db'\nif X:\n    app.config['SQLALCHEMY_DATABASE_URI'] = X\n", []string{"=3.1.1", ""}, ""},
		{"Flask-SQLAlchemy, its folder elsewhere", "app = Flask(__name__, instance_path='/var/x')\nSQLALCHEMY_DATABASE_URI = 'sqlite:///project.db'\n", []string{"=3.1.1", ""}, ""},
		{"absolute", flask + "a = sqlite3.connect('/var/lib/a.db')\nengine = create_engine('sqlite:////var/lib/b.db')\n", nil, ""},
		{"in memory, by an address, above", flask + "sqlite3.connect(':memory:'); sqlite3.connect('file:a.db?mode=ro', uri=True); sqlite3.connect('../a.db')\n", nil, ""},
		{"out of the source", flask + "sqlite3.connect('a/../../b.db')\n", nil, ""},
		{"not plain", flask + "sqlite3.connect(f'{X}.db'); sqlite3.connect('a' + X); sqlite3.connect(os.path.join(X, 'a.db')); sqlite3.connect(PATH)\n", nil, ""},
		{"in a comment and in strings", flask + "# sqlite3.connect('a.db')\n\"\"\"\nsqlite3.connect('b.db')\n\"\"\"\nprint('use sqlite3.connect(\"c.db\")')\n", nil, ""},
		{"elsewhere", flask + "os.chdir(X)\na = sqlite3.connect('a.db')\n", nil, ""},
	} {
		var packages []string
		if len(c.more) > 0 && c.more[0][0] == '=' {
			packages, c.more = []string{"Flask==3.0", "Flask-SQLAlchemy=" + c.more[0]}, nil
		}
		src := tree(t, append([]string{"app.py", c.app}, c.more...)...)
		tc, app := python.New(nil, python.Options{}), &config.App{Name: "blog", Persist: []string{"media"}}
		e, err := tc.EntryPoint(t.Context(), app, src)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got := strings.Join(tc.Advise(t.Context(), app, src, e, packages), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// What of a Procfile's web line has no effect was dropped without a word.
func TestAdviseOfAProcfile(t *testing.T) {
	detected := deployer.EntryPoint{Module: "server", Callable: "app", Why: "detected: server.py"}
	for _, c := range []struct {
		line string
		want string // of the notes; "" for none
	}{
		{"npm start", `the Procfile's web line, "npm start", starts no Python server that scotch knows (gunicorn, uwsgi); what runs is server:app (detected: server.py)`},
		{"python server.py " + strings.Repeat("x", 100) + "\x1b[2J", `web line, "python server.py ` + strings.Repeat("x", 42) + `…", starts no`},
		{"uvicorn server:app", "starts an ASGI server, and scotch runs WSGI apps; what runs is server:app"},
		{"gunicorn -k uvicorn.workers.UvicornWorker x:app", "starts an ASGI server"},
		{"gunicorn --chdir web server:app", "names no module that scotch can tell; what runs is server:app"},
		{"uwsgi uwsgi.ini", "names no module that scotch can tell"},
		{"gunicorn server:app", ""},
		{"exec python -m gunicorn server:app", ""},
		{"cd web && gunicorn server:app", "changes its directory first, which is [app] root here; what runs is server:app"},
		{"touch x && X=1 gunicorn server:app", "not used: touch, x, X=1"},
		{"gunicorn 'server:app'", ""},
		{"gunicorn --workers 2 -t 60 --threads=4 server:app", ""}, // as it is anyway
		{"gunicorn --workers 3 --timeout 120 --bind 0.0.0.0:$PORT server:app", "of the Procfile's web line the entry point is used, and uWSGI runs it; not used: --workers, --timeout, --bind\nwhat says the same, in apps-enabled/blog.cfg on the server:\n  [app]\n  workers = 3\n  timeout = 120"},
		{"gunicorn -w4 --threads=$N server:app --log-file -", "not used: -w, --threads, --log-file\nwhat says the same, in apps-enabled/blog.cfg on the server:\n  [app]\n  workers = 4\n  threads = NUMBER"},
		{"gunicorn -b :$PORT server:app", "uWSGI runs it; not used: -b"},
		{"uwsgi --http :$PORT -w server:app -p 8 --harakiri=30", "not used: --http, -p, --harakiri\nwhat says the same, in apps-enabled/blog.cfg on the server:\n  [app]\n  workers = 8\n  timeout = 30"},
	} {
		src := tree(t, "server.py", "app = 1\n", "Procfile", "web: "+c.line+"\nworker: x\n")
		app := &config.App{Name: "blog", Workers: 2, Threads: 4, Timeout: time.Minute}
		tc := python.New(nil, python.Options{})
		e, err := tc.EntryPoint(t.Context(), app, src)
		if err != nil || e.String() != detected.String() {
			t.Errorf("%s: %s %v", c.line, e, err)
		}
		got := strings.Join(tc.Advise(t.Context(), app, src, e, nil), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.line, got)
		}
		app.EntryPoint = "server:app"
		if got := tc.Advise(t.Context(), app, src, deployer.EntryPoint{Module: "server", Callable: "app", Why: "configured"}, nil); len(got) > 0 {
			t.Errorf("%s, configured: %q", c.line, got)
		}
	}
	_, err := python.New(nil, python.Options{}).EntryPoint(t.Context(), &config.App{Name: "blog"}, tree(t, "Procfile", "web: npm start\n"))
	if err == nil || !strings.Contains(err.Error(), `and the Procfile's web line, "npm start", starts no Python server`) {
		t.Error(err)
	}
}
