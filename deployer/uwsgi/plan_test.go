package uwsgi

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// program is a file that passes for uWSGI; the runner answers for it.
func program(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "uwsgi")
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPlan(t *testing.T) {
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Skip("there is no /usr/bin/python3")
	}
	site := open(t, "[uwsgi]\nprogram = "+program(t)+"\nlisten = 64\n[uwsgi_config]\nharakiri = 0\nignore-sigpipe = true\nlog_format = %(method) %(uri)\nstatic-map =\n    /a=/srv/a\n    /b=/srv/b\n")
	u, err := New(site, &runner{answer: says("3.11.9\n--route-label")})
	if err != nil {
		t.Fatal(err)
	}
	i := instance("/var/local/scotch/blog/000042")
	i.Interpreter.Path = python

	var out bytes.Buffer
	p, err := u.Plan(t.Context(), i, &out)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plain.ini", p.Files[0].Data)
	golden(t, "app.ini", p.Files[1].Data)
	if out.Len() > 0 {
		t.Errorf("a usual choice is told: %q", out.String())
	}
	if got, want := p.Files[1].Path, "/etc/uwsgi/apps-enabled/blog.ini"; got != want {
		t.Errorf("the file to look at is %q, want %q", got, want)
	}
	if got, want := p.Process.Grace, 70*time.Second; got != want {
		t.Errorf("grace is %s, want %s: a request may take a minute", got, want)
	}
	if p.Socket != u.Socket(i.Run) {
		t.Errorf("the plan's socket is %q, Socket says %q", p.Socket, u.Socket(i.Run))
	}

	i.App.Values = site.Values
	i.EntryPoint = deployer.EntryPoint{Module: "blog", Callable: "create_app", Factory: true}
	p, err = u.Plan(t.Context(), i, &out)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "options.ini", p.Files[0].Data)
}

func TestPlanWithTheWheel(t *testing.T) {
	u := plain(t, &runner{answer: says("3.11.2")})
	dir := t.TempDir()
	i := instance(dir)
	i.Interpreter = deployer.Interpreter{Path: "/opt/python/bin/python3.12", Version: "3.12.1"}

	_, err := u.Plan(t.Context(), i, new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "scotch rebuild blog") {
		t.Fatalf("uWSGI is in no virtualenv, and the error is %v", err)
	}
	if err := os.MkdirAll(i.Venv+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.Venv+"/bin/pyuwsgi", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p, err := u.Plan(t.Context(), i, &out)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(p.Process.Args, " "), i.Venv+"/bin/python "+i.Venv+"/bin/pyuwsgi --ini "+i.Run+"/uwsgi.ini"; got != want {
		t.Errorf("it is called as %q, want %q", got, want)
	}
	if bytes.Contains(p.Files[0].Data, []byte("\nplugin")) {
		t.Error("the wheel has the plugin built in, and the ini file names one")
	}
	if !strings.Contains(out.String(), "from the virtualenv") {
		t.Errorf("the choice is not told: %q", out.String())
	}
}

// A virtualenv may stand on another Python than the one that was recorded.
func TestPlanReadsTheVirtualenv(t *testing.T) {
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Skip("there is no /usr/bin/python3")
	}
	site := open(t, "[uwsgi]\nconfig_path =\nprogram = "+program(t)+"\n")
	u, err := New(site, &runner{answer: says("3.11.2")})
	if err != nil {
		t.Fatal(err)
	}
	i := instance(t.TempDir())
	i.Interpreter.Path = python
	if err := os.MkdirAll(i.Venv, 0o755); err != nil {
		t.Fatal(err)
	}
	for home, system := range map[string]bool{"/usr/bin": true, "/opt/python/bin": false} {
		if err := os.WriteFile(i.Venv+"/pyvenv.cfg", []byte("home = "+home+"\nversion = 3.11.2\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := u.Plan(t.Context(), i, new(bytes.Buffer))
		if (err == nil) != system {
			t.Errorf("home %q: %v", home, err)
		}
	}
}

// uWSGI expands %x, $(...) and @(exec://...) in an ini file; a line feed would
// begin an option.
func TestHostileValues(t *testing.T) {
	u := plain(t, &runner{answer: says("3.11.2")})
	evil := []string{"\nexec-asap=id", "%(x", "%n", "$(HOME)", "@(exec://id)", " x", "\x00", ";", "'", `"`}
	set := map[string]func(i *deployer.Instance, s string){
		"name":     func(i *deployer.Instance, s string) { i.App.Name += s },
		"id":       func(i *deployer.Instance, s string) { i.ID += s },
		"source":   func(i *deployer.Instance, s string) { i.Source += s },
		"venv":     func(i *deployer.Instance, s string) { i.Venv += s },
		"run":      func(i *deployer.Instance, s string) { i.Run += s },
		"module":   func(i *deployer.Instance, s string) { i.EntryPoint.Module += s },
		"callable": func(i *deployer.Instance, s string) { i.EntryPoint.Callable += s },
	}
	for what, change := range set {
		for _, s := range evil {
			i := instance("/srv/blog/000042")
			change(i, s)
			if p, err := u.Plan(t.Context(), i, new(bytes.Buffer)); err == nil {
				t.Errorf("%s with %q got into\n%s", what, s, p.Files[0].Data)
			}
		}
	}
	// A colon would make the socket's path an address of TCP.
	i := instance("/srv/a:80/000042")
	if _, err := u.Plan(t.Context(), i, new(bytes.Buffer)); err == nil {
		t.Error("a path with a colon is taken")
	}
	i = instance("/srv/" + strings.Repeat("x", 100))
	if _, err := u.Plan(t.Context(), i, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "107 bytes") {
		t.Errorf("a socket's path that is too long gives %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range []string{
		"socket = :8080", "daemonize = /tmp/log", "master = false", "uid = root", "x = %n", "x = $(HOME)", "x = @(exec://id)",
		"x = 100%", "static-map =\n  /a=/a\n  /b=%d", "UPPER! = x", "need_app = false",
		"plugin = python3", "plugins = http, python311", "need-plugin = 0:/usr/lib/uwsgi/plugins/python311_plugin.so",
	} {
		key, _, _ := strings.Cut(bad, " ")
		said, err := read(t, "[uwsgi_config]\n"+bad+"\n", Defaults())
		if err == nil { // it keeps no app from serving
			err = said.Mistakes
		}
		if !strings.Contains(err.Error(), "scotch.cfg:2: [uwsgi_config] "+strings.ToLower(key)+": ") {
			t.Errorf("%q in a site file gives %v", bad, err)
		}
		if strings.Contains(bad, "$(") {
			continue // the interpolation of configuration refuses it
		}
		site, err := read(t, "[uwsgi_config]\n"+bad+"\n", config.Defaults{Name: "uwsgi", Text: []byte(defaults)})
		if err != nil {
			t.Fatal(err)
		}
		a := &config.App{Values: site.Values}
		if got, err := options(a); err == nil {
			t.Errorf("%q is taken as %v", bad, got)
		}
		var failed []string
		checkOptions(a, func(section, key string, err error) { failed = append(failed, section+" "+key) })
		if want := "uwsgi_config " + strings.ToLower(key); len(failed) != 1 || failed[0] != want {
			t.Errorf("%q: the check names %q, want %q", bad, failed, want)
		}
	}
	a := &config.App{Values: open(t, "[uwsgi_config]\nplugin = router_static\nplugins = http, gzip\nlog-format = %(uri)\n").Values}
	if _, err := options(a); err != nil {
		t.Error(err)
	}
	checkOptions(a, func(section, key string, err error) { t.Errorf("[%s] %s: %v", section, key, err) })
}

func TestSettings(t *testing.T) {
	for _, bad := range []string{"config_path = relative", "config_path = /a b", "config_mode = 9", "config_mode = 0000", "plugin = ../x", "plugin =", "program =", "listen = many", "listen = 0"} {
		_, err := read(t, "[uwsgi]\n"+bad+"\n", Defaults())
		if err == nil {
			t.Errorf("%q is taken", bad)
		} else if key, _, _ := strings.Cut(bad, " "); !strings.Contains(err.Error(), "scotch.cfg:2: [uwsgi] "+key+": ") {
			t.Errorf("%q gives an error that does not name file, line and key: %v", bad, err)
		}
	}
}
