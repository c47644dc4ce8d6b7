package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustApp(t *testing.T, s *Site, name string, o AppOptions) *App {
	t.Helper()
	a, err := s.App(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAppDefaults(t *testing.T) {
	s := mustOpen(t, "", "dram", "[app]\nsrc=git@github.com:mbr/scotch-sample-app\n")
	got := mustApp(t, s, "dram", AppOptions{InstanceID: "000042"})
	status, _ := ParseStatusSet("200-399 401 403 404")
	want := &App{
		Values: got.Values, Name: "dram", InstanceID: "000042", Source: "git@github.com:mbr/scotch-sample-app",
		InstancePath: "/var/local/scotch/dram/000042", VenvPath: "/var/local/scotch/dram/000042/venv",
		SourcePath: "/var/local/scotch/dram/000042/src", RunPath: "/var/local/scotch/dram/000042/run", DataPath: "/var/lib/scotch/data/dram",
		Interpreter: "python3", CollectStatic: true, Workers: 2, Threads: 4, MaxBody: 100 << 20, Timeout: time.Minute,
		User: "scotch-dram", Group: "scotch-dram", Domains: []string{"*"}, URLPrefix: "/", Keep: 5,
		Health:      Health{Path: "/", Timeout: 30 * time.Second, Status: status, Watch: 10 * time.Second},
		StepTimeout: 600 * time.Second, Limits: map[string]string{}, Branch: "main", DirMode: 0o755,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *Values) bool { return a == b }), cmp.AllowUnexported(StatusSet{})); diff != "" {
		t.Error(diff)
	}
	if e, err := got.Get("app", "entry_point"); err != nil || e != "dram:create_app()" {
		t.Errorf("entry point for want of a better one is %q, %v", e, err)
	}
	current := mustApp(t, s, "dram", AppOptions{})
	if current.RunPath != "/var/local/scotch/dram/current/run" {
		t.Errorf("run path of what is live is %q", current.RunPath)
	}
}

func TestAppEverything(t *testing.T) {
	s := mustOpen(t, "[site]\ndomain=apps.example.org\n[DEFAULT]\nplace=/srv\n", "blog", `
[app]
Src : https://git.example.org/blog.git
interpreter = /usr/bin/python3.11
entry_point = blog.wsgi:application
root = services/blog/
build = npm ci
    npm run build
release = python manage.py migrate
persist = media
    db.sqlite3
workers = 8
threads = 1
max_body = 1g
timeout = 2m
user = www-data
group = www-data
domains = Example.org *.example.org
    www.example.org Example.org
url_prefix = /blog
keep = 9
data_path = ${place}/${name}
[env]
Secret = pa$$word
url = http://${Secret}/
[build_env]
INDEX = https://pypi.example.org
[static]
/Static/ = static/
/media/ = data:media
[health]
path = /up?full=1
timeout = 5
status = 200
host = up.example.org
watch = 0
[deploy]
timeout = 1h
release_timeout = 2h
[limits]
memory = 512m
cpu = 150%
tasks = 100
build_memory = 2g
[git]
branch = live
[site]
dirmode = 0751
[uwsgi_config]
harakiri = 30
chdir = ${app:src_path}
[nginx]
include = /etc/lines
`)
	got := mustApp(t, s, "blog", AppOptions{InstanceID: "1"})
	want := &App{
		Values: got.Values, Name: "blog", InstanceID: "1", Source: "https://git.example.org/blog.git",
		InstancePath: "/var/local/scotch/blog/1", VenvPath: "/var/local/scotch/blog/1/venv", SourcePath: "/var/local/scotch/blog/1/src",
		RunPath: "/var/local/scotch/blog/1/run", DataPath: "/srv/blog",
		Interpreter: "/usr/bin/python3.11", InterpreterSet: true, EntryPoint: "blog.wsgi:application", Root: "services/blog",
		Build: "npm ci\nnpm run build", Release: "python manage.py migrate", ReleaseSet: true, CollectStatic: true, Persist: []string{"media", "db.sqlite3"},
		Workers: 8, Threads: 1, MaxBody: 1 << 30, Timeout: 2 * time.Minute, User: "www-data", Group: "www-data",
		Domains: []string{"example.org", "*.example.org", "www.example.org"}, URLPrefix: "/blog/", Keep: 9,
		Env:      []Var{{"Secret", "pa$word"}, {"url", "http://pa$word/"}},
		BuildEnv: []Var{{"INDEX", "https://pypi.example.org"}},
		Static:   []Static{{"/Static/", "static", false}, {"/media/", "media", true}},
		Health:   Health{Path: "/up?full=1", Timeout: 5 * time.Second, Status: StatusSet{[][2]int{{200, 200}}}, Host: "up.example.org"},

		StepTimeout: time.Hour, ReleaseTimeout: 2 * time.Hour,
		Limits: map[string]string{"memory": "512m", "cpu": "150%", "tasks": "100", "build_memory": "2g"},
		Branch: "live", BranchSet: true, DirMode: 0o751,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *Values) bool { return a == b }), cmp.AllowUnexported(StatusSet{})); diff != "" {
		t.Error(diff)
	}
	// [DEFAULT] must not become options of uWSGI.
	if keys := got.Keys("uwsgi_config"); !cmp.Equal(keys, []string{"harakiri", "chdir"}) {
		t.Errorf("options are %q", keys)
	}
	if v, err := got.Get("uwsgi_config", "chdir"); v != "/var/local/scotch/blog/1/src" || err != nil {
		t.Errorf("chdir is %q, %v", v, err)
	}
	if o := got.Origin("app", "workers"); o.Layer != LayerApp || !strings.HasSuffix(o.String(), "blog.cfg:12") {
		t.Errorf("origin of workers is %+v", o)
	}
}

// The exotic site file of scotch 0.3's page: the second deploy must not touch
// the first one's virtualenv.
func TestPathsThatDoNotVary(t *testing.T) {
	for _, test := range []struct {
		site, app string
		want      [4]string // instance, venv, src, run
	}{
		{"[app]\ninterpreter=/usr/local/custom-python/bin/python\nvenv_path=/virtualenvs/${name}\n[paths]\nconfiguration=CONF\ninstances=/nfs/scotch-instances\n", "",
			[4]string{"/nfs/scotch-instances/blog/7", "/virtualenvs/blog/7", "/nfs/scotch-instances/blog/7/src", "/nfs/scotch-instances/blog/7/run"}},
		{"[app]\nvenv_path=/virtualenvs\n", "", [4]string{"/var/local/scotch/blog/7", "/virtualenvs/blog/7", "/var/local/scotch/blog/7/src", "/var/local/scotch/blog/7/run"}},
		{"[app]\nvenv_path=/virtualenvs/${instance_id}/\n", "", [4]string{"/var/local/scotch/blog/7", "/virtualenvs/7/blog", "/var/local/scotch/blog/7/src", "/var/local/scotch/blog/7/run"}},
		{"", "[app]\nvenv_path=/virtualenvs/x\n", [4]string{"/var/local/scotch/blog/7", "/virtualenvs/x/7", "/var/local/scotch/blog/7/src", "/var/local/scotch/blog/7/run"}},
		{"", "[app]\ninstance_path=/srv/blog/\n", [4]string{"/srv/blog/7", "/srv/blog/7/venv", "/srv/blog/7/src", "/srv/blog/7/run"}},
		{"", "[app]\nrun_path=/srv/${instance_id}/../run\n", [4]string{"/var/local/scotch/blog/7", "/var/local/scotch/blog/7/venv", "/var/local/scotch/blog/7/src", "/srv/run/7"}},
		{"[DEFAULT]\nwhere=/v/${name}/${instance_id}\n[app]\nvenv_path=${where}\n", "", [4]string{"/var/local/scotch/blog/7", "/v/blog/7", "/var/local/scotch/blog/7/src", "/var/local/scotch/blog/7/run"}},
	} {
		dir := folder(t, "apps-enabled/blog.cfg", test.app)
		s := mustOpen(t, strings.ReplaceAll(test.site, "CONF", dir), "blog", test.app)
		a := mustApp(t, s, "blog", AppOptions{InstanceID: "7"})
		if got := [4]string{a.InstancePath, a.VenvPath, a.SourcePath, a.RunPath}; got != test.want {
			t.Errorf("%q %q:\n got %q\nwant %q", test.site, test.app, got, test.want)
		}
		if v, err := a.Get("app", "venv_path"); err != nil || strings.TrimSuffix(v, "/") != a.VenvPath {
			t.Errorf("a dump says %q, the app has %q (%v)", v, a.VenvPath, err)
		}
		if a := mustApp(t, s, "blog", AppOptions{}); !strings.Contains(a.VenvPath, "/current") {
			t.Errorf("what is live has the virtualenv %q", a.VenvPath)
		}
	}
}

func TestDomainsAndUser(t *testing.T) {
	long := "a" + strings.Repeat("b", 39)
	s := mustOpen(t, "[site]\ndomain=apps.example.org\n", "blog", "", long, "", "my_app", "[app]\ndomains=\n")
	if a := mustApp(t, s, "blog", AppOptions{}); !cmp.Equal(a.Domains, []string{"blog.apps.example.org"}) {
		t.Errorf("domains are %q", a.Domains)
	}
	if a := mustApp(t, s, "my_app", AppOptions{}); !cmp.Equal(a.Domains, []string{"my_app.apps.example.org"}) {
		t.Errorf("domains are %q", a.Domains)
	}
	a := mustApp(t, s, long, AppOptions{})
	if len(a.User) != 32 || !strings.HasPrefix(a.User, "scotch-abbb") || a.Group != a.User {
		t.Errorf("user is %q, group %q", a.User, a.Group)
	}
	if v, _ := a.Get("app", "user"); v != a.User {
		t.Errorf("a dump says %q", v)
	}
	s = mustOpen(t, "[server]\nmode=standalone\n", "blog", "[app]\nuser=www-data\n")
	if a := mustApp(t, s, "blog", AppOptions{}); a.User != "" || a.Group != "" {
		t.Errorf("standalone: user is %q, group %q", a.User, a.Group)
	}
}

func TestSource(t *testing.T) {
	s := mustOpen(t, "[app]\ninterpreter=python3.9\n", "blog", "[env]\nB=operator's\n[app]\nsrc=/secret/place\n")
	a := mustApp(t, s, "blog", AppOptions{SourceName: "services/blog/scotch.cfg", Source: []byte(`
[app]
interpreter = python3.12
entry_point = ${name}.wsgi:app
build = echo $$HOME
[env]
A = ${name} ${B} ${app:build}
B = mine
[static]
/s/ = ${name}/s
[health]
path = /up
`)})
	if a.Interpreter != "python3.12" || !a.InterpreterSet || a.EntryPoint != "blog.wsgi:app" || a.Build != "echo $HOME" || a.Health.Path != "/up" || a.Static[0].Path != "blog/s" {
		t.Errorf("got %+v", a)
	}
	// Its own B, though the app's file has another that wins in the environment.
	if !cmp.Equal(a.Env, []Var{{"A", "blog mine echo $HOME"}, {"B", "operator's"}}) {
		t.Errorf("environment is %q", a.Env)
	}
	if o := a.Origin("env", "A"); o != (Origin{LayerSource, "services/blog/scotch.cfg", 7}) {
		t.Errorf("origin is %+v", o)
	}
}

// A pusher may set what is the app's own, and read nothing of the server's.
func TestSourceRefused(t *testing.T) {
	s := mustOpen(t, "", "blog", "[env]\nSECRET=s3cret\n")
	_, err := s.App("blog", AppOptions{Source: []byte(`[app]
user = root
domains = other.example
name = x
interpretr = python
[DEFAULT]
x = 1
[env]
A = ${SECRET}
B = ${app:src}
[uwsgi_config]
plugin = x
[build_env]
X = 1
[server]
listen = :1
[nonsense]
k = v
`)})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"scotch.cfg:2: [app] user: can't be set in the app's source", "scotch.cfg:3: [app] domains: can't", "scotch.cfg:4: [app] name: is filled in",
		"scotch.cfg:5: [app] interpretr: there is no such key\ndid you mean interpreter?", "scotch.cfg:7: [DEFAULT] x: the app's source can't",
		"scotch.cfg:9: [env] A: refers to ${SECRET}, which is not set", "scotch.cfg:10: [env] B: refers to ${app:src}, which is not set",
		"scotch.cfg:12: [uwsgi_config] plugin: can't", "scotch.cfg:14: [build_env] X: can't", "scotch.cfg:16: [server] listen: can't", "scotch.cfg:17: [nonsense]: there is no such section",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	laughs := "[env]\nk0=" + strings.Repeat("ha", 50) + "\n"
	for i := range 6 {
		laughs += fmt.Sprintf("k%d=%s\n", i+1, strings.Repeat(fmt.Sprintf("${k%d}", i), 8))
	}
	if _, err := s.App("blog", AppOptions{Source: []byte(laughs)}); err == nil || len(err.Error()) > 5000 {
		t.Errorf("a value that grows without end: %.200v", err)
	}
	static := "[static]\n"
	for i := range maxStatic + 1 {
		static += fmt.Sprintf("/s%d/ = static\n", i)
	}
	if _, err := s.App("blog", AppOptions{Source: []byte(static)}); err == nil || !strings.Contains(err.Error(), "/s100/: is one of more than 100") {
		t.Errorf("directories without end: %.200v", err)
	}
	many := "[env]\nbig=" + strings.Repeat("x", 100000) + "\n"
	for i := range 4000 {
		many += fmt.Sprintf("k%d=${big}\n", i)
	}
	if _, err := s.App("blog", AppOptions{Source: []byte(many)}); err == nil || !strings.Contains(err.Error(), "in all") {
		t.Errorf("values that grow together: %.200v", err)
	}
}

func TestAppErrors(t *testing.T) {
	s := mustOpen(t, "[app]\nsrc_path=/x/${nmae}\n", "blog", `[app]
src = ~/blog
workers = many
threads = 0
domains = ~.*
url_prefix = /a;b
persist = ../x
root = /abs
user = root;x
entry_point = a b
release = ${env:SECRET
[env]
1X = a
SECRET = $ecret
[build_env]
TOKEN = t0ken $(id)
[static]
/s = static
/t/ = ../x
/ = public
[health]
status = ok
host = *.example.org
[limits]
cpu = lots
[git]
branch = a..b
[server]
listen = :1
[nginx]
config_path = /x
`)
	_, err := s.App("blog", AppOptions{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"scotch.cfg:2: [app] src_path: refers to ${nmae}, which is not set",
		`blog.cfg:2: [app] src: "~/blog" is neither a git URL nor an absolute path`, "blog.cfg:3: [app] workers: must be a whole number from 1 to 1000, not \"many\"",
		"blog.cfg:4: [app] threads", `blog.cfg:5: [app] domains: "~.*"`, "blog.cfg:6: [app] url_prefix", "blog.cfg:7: [app] persist", "blog.cfg:8: [app] root",
		"blog.cfg:9: [app] user", "blog.cfg:10: [app] entry_point", "\nfor the application in blog/wsgi.py write blog.wsgi:application; ", "blog.cfg:11: [app] release: there is no KEY} behind '${'",
		"blog.cfg:13: [env] 1X: \"1X\" is no name for an environment variable", "blog.cfg:14: [env] SECRET: '$' must be followed by '$' or '{'\nwrite $$",
		"blog.cfg:16: [build_env] TOKEN: '$' must be", "blog.cfg:18: [static] /s: the URL", "blog.cfg:19: [static] /t/: the path", "blog.cfg:20: [static] /: the URL",
		"blog.cfg:22: [health] status", "blog.cfg:23: [health] host", "blog.cfg:25: [limits] cpu", "blog.cfg:27: [git] branch",
		"blog.cfg:29: [server] listen: can't be set for one app", "blog.cfg:31: [nginx] config_path: can't be set for one app",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	for _, secret := range []string{"ecret\"", "t0ken"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the secret %q is in\n%v", secret, err)
		}
	}
	var missing *NoAppError
	if _, err := s.App("shop", AppOptions{}); !errors.As(err, &missing) || missing.Name != "shop" {
		t.Errorf("an app without a file: %v", err)
	}
	s = mustOpen(t, "")
	if a, err := s.App("shop", AppOptions{NoFile: true}); err != nil || a.Name != "shop" {
		t.Errorf("an app that needs no file: %v", err)
	}
	if a, err := s.App("shop", AppOptions{File: []byte("[app]\nworkers=3\n")}); err != nil || a.Workers != 3 {
		t.Errorf("an app whose file is given: %v", err)
	}
	if _, err := s.App("../x", AppOptions{}); err == nil {
		t.Error("a name that is none is taken")
	}
	if _, err := s.App("x", AppOptions{InstanceID: "../y"}); err == nil {
		t.Error("an id that is none is taken")
	}
}

func TestPathsApart(t *testing.T) {
	for _, app := range []string{
		"[app]\nvenv_path=${instance_path}/src\n", "[app]\nsrc_path=${venv_path}/src\n", "[app]\ndata_path=${instance_path}/data\n", "[app]\nrun_path=${data_path}\n",
		"[app]\nsrc_path=${instance_path}\n", "[app]\nrun_path=/" + strings.Repeat("long/", 22) + "${instance_id}\n", "[app]\nvenv_path=/a b/${instance_id}\n", "[app]\nvenv_path=/a:b/${instance_id}\n",
		"[app]\nvenv_path=relative/${instance_id}\n",
	} {
		if a, err := mustOpen(t, "", "blog", app).App("blog", AppOptions{InstanceID: "1"}); err == nil {
			t.Errorf("%q gave %+v", app, a)
		}
	}
}

func TestSources(t *testing.T) {
	for _, good := range []string{"https://git.example.org/a.git", "http://u:p@h:80/a", "ssh://git@h:2222/a", "git://h/a", "file:///srv/a.git", "git@github.com:mbr/x", "host:path/to", "/srv/git/a"} {
		if _, err := parseSource(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"ext::sh -c id", "ext::x", "-u", "--upload-pack=x", "relative/path", "./x", "~/x", "ftp://h/x", "file://h/x", "https:///x", "ssh://-oProxyCommand=x/y", "-x:y", "h:a b", "https://h/a\nb"} {
		if got, err := parseSource(bad); err == nil {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
	if _, err := parseSource("ftp://user:secret@h/x"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

func TestHosts(t *testing.T) {
	for _, good := range []string{"*", "example.org", "*.example.org", "localhost", "xn--bcher-kva.example", "127.0.0.1", "a b *", "a_b.localhost"} {
		if _, err := parseDomains(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"a.*", "**", "*a.org", "a..b", ".a", "a.", "-a.org", "bücher.example", "a:80", "$host", "~^a$", "a;b", "a/b", "*.*.a", strings.Repeat("a", 64) + ".org", strings.Repeat("abc.", 64) + "org", "a\"b", "_"} {
		if got, err := parseDomains(bad); err == nil && bad != "_" {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
	for prefix, want := range map[string]string{"/": "/", "/a": "/a/", "/a/b/": "/a/b/", "/A-1_.x": "/A-1_.x/", "shop": "/shop/", "a/b/": "/a/b/"} {
		if got, err := parsePrefix(prefix); err != nil || got != want {
			t.Errorf("%q is %q, %v", prefix, got, err)
		}
	}
	for _, bad := range []string{"", "a//b", "../a", "//", "/a//b", "/../", "/a/./", "/a b", "/$x", "/~a", "/a\n", "/%41", "/ä"} {
		if got, err := parsePrefix(bad); err == nil && bad != "" {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
}

// Site.App is called for each of 500 apps when a server lists them.
func BenchmarkApp(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir(), Home: b.TempDir(), Plugins: testPlugins()})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.App("blog", AppOptions{NoFile: true}); err != nil {
			b.Fatal(err)
		}
	}
}
