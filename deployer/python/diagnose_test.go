package python_test

import (
	"strings"
	"testing"

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
		got := strings.Join(python.New(nil, python.Options{}).Advise(t.Context(), &config.App{Name: "blog", Persist: c.persist}, src, deployer.EntryPoint{Framework: "Django"}), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
