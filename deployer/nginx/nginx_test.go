package nginx

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"scotch/config"
	"scotch/deployer"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), run the test with -update if it should:\n%s", path, diff)
	}
}

// read reads a site file and the plugin's defaults.
func read(t *testing.T, text string, plugins ...config.Defaults) (*config.Site, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scotch.cfg")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Open(config.Options{Files: []string{path}, Plugins: plugins})
}

func open(t *testing.T, text string, plugins ...config.Defaults) *config.Site {
	t.Helper()
	site, err := read(t, text, append([]config.Defaults{Defaults()}, plugins...)...)
	if err != nil {
		t.Fatal(err)
	}
	return site
}

// inSystem is an NGINX of a machine whose kernel has IPv6, with nginx's files
// below a directory that is empty.
func inSystem(t *testing.T, text string) *NGINX {
	t.Helper()
	n, err := New(open(t, text))
	if err != nil {
		t.Fatal(err)
	}
	n.ipv6 = true
	return n
}

func blog(domains ...string) deployer.Route {
	dir := "/var/local/scotch/blog"
	return deployer.Route{
		App: &config.App{
			Name: "blog", Domains: domains, URLPrefix: "/", MaxBody: 100 << 20, Timeout: time.Minute,
		},
		Dir: dir, Socket: dir + "/current/run/uwsgi.sock", Source: dir + "/current/src", Data: "/var/lib/scotch/data/blog",
		Stopped: dir + "/stopped",
	}
}

func file(t *testing.T, files []deployer.File, path string) deployer.File {
	t.Helper()
	var have []string
	for _, f := range files {
		if f.Path == path {
			return f
		}
		have = append(have, f.Path)
	}
	t.Fatalf("there is no %s in\n%s", path, strings.Join(have, "\n"))
	return deployer.File{}
}

func TestRender(t *testing.T) {
	n := inSystem(t, "[nginx]\nconfig_path = /srv/nginx\n")
	files, err := n.Render(blog("blog.example.org", "*.example.net"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 4 {
		t.Errorf("two domains give %d files, want 4", len(files))
	}
	domain := file(t, files, "/srv/nginx/sites-enabled/scotch-blog.example.org.conf")
	golden(t, "domain.conf", domain.Data)
	golden(t, "app.conf", file(t, files, "/srv/nginx/scotch-apps/blog.example.org/blog.conf").Data)
	golden(t, "wildcard.conf", file(t, files, "/srv/nginx/sites-enabled/scotch-_.example.net.conf").Data)
	if want := "/srv/nginx/scotch-apps/blog.example.org/*.conf"; domain.SharedBy != want || domain.Mode != 0o600 {
		t.Errorf("the domain's file is shared by %q with mode %o, want %q and 600", domain.SharedBy, domain.Mode, want)
	}
	if f := file(t, files, "/srv/nginx/scotch-apps/_.example.net/blog.conf"); f.SharedBy != "" {
		t.Errorf("the app's own file is shared by %q", f.SharedBy)
	}

	r := blog("shop.example.org")
	r.App.URLPrefix = "/a/b/"
	r.App.Static = []config.Static{{URL: "/static/", Path: "static"}, {URL: "/media/", Path: "up/loads/", Data: true}}
	r.App.Values = open(t, "[nginx]\ninclude = /etc/nginx/own/*.conf\n").Values
	r.App.Timeout = 1500 * time.Millisecond
	if files, err = n.Render(r); err != nil {
		t.Fatal(err)
	}
	golden(t, "prefix.conf", file(t, files, "/srv/nginx/scotch-apps/shop.example.org/blog.conf").Data)

	r.Protocol, r.Socket = deployer.ProtocolHTTP, "/var/local/scotch/blog/current/run/http.sock"
	if files, err = n.Render(r); err != nil {
		t.Fatal(err)
	}
	golden(t, "http-prefix.conf", file(t, files, "/srv/nginx/scotch-apps/shop.example.org/blog.conf").Data)
	r = blog("blog.example.org")
	r.Protocol = deployer.ProtocolHTTP
	if files, err = n.Render(r); err != nil {
		t.Fatal(err)
	}
	golden(t, "http-app.conf", file(t, files, "/srv/nginx/scotch-apps/blog.example.org/blog.conf").Data)

	// The server of every host is one of Base's files.
	if files, err = n.Render(blog("*")); err != nil || len(files) != 1 || files[0].Path != "/srv/nginx/scotch-apps/_/blog.conf" {
		t.Errorf("* gives %v, %v", files, err)
	}
}

func TestBase(t *testing.T) {
	dir := t.TempDir()
	n := inSystem(t, "[nginx]\nconfig_path = "+dir+"\nacme_path = /run/scotch/acme\naccess_log = /var/log/scotch.log\n")
	files, err := n.Base()
	if err != nil {
		t.Fatal(err)
	}
	clean := func(f deployer.File) []byte { return []byte(strings.ReplaceAll(string(f.Data), dir, "DIR")) }
	golden(t, "http.conf", clean(file(t, files, dir+"/conf.d/00-scotch.conf")))
	golden(t, "server.conf", clean(file(t, files, dir+"/scotch-server.conf")))
	golden(t, "uwsgi.conf", clean(file(t, files, dir+"/scotch-uwsgi.conf")))
	golden(t, "proxy.conf", clean(file(t, files, dir+"/scotch-proxy.conf")))
	golden(t, "default.conf", clean(file(t, files, dir+"/sites-enabled/scotch-_.conf")))
	if len(files) != 5 {
		t.Errorf("there are %d files, want 5", len(files))
	}
}

func TestBaseStandalone(t *testing.T) {
	made, err := New(open(t, "[server]\nmode = standalone\n[paths]\nrun = /home/ann/var/run\nlogs = /home/ann/var/logs\ninstances = /home/ann/var/instances\n"+
		"[nginx]\nacme_path = /home/ann/acme\ntest_command = x\nreload_command = x\n", StandaloneDefaults()))
	if err != nil {
		t.Fatal(err)
	}
	n := &NGINX{standalone: true, settings: made.settings, instances: made.instances, logs: made.logs, owner: "root root"}
	files, err := n.Base()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "nginx.conf", file(t, files, "/home/ann/var/run/nginx/nginx.conf").Data)
	file(t, files, "/home/ann/var/run/nginx/mime.types")
}

// nginx takes a directive of http and a default server once alone: what an
// administrator has written stays.
func TestOthersConfiguration(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"conf.d", "sites-enabled"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n := inSystem(t, "[nginx]\nconfig_path = "+dir+"\n")
	has := func(text string) bool {
		t.Helper()
		files, err := n.Base()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.Contains(string(f.Data), text) {
				return true
			}
		}
		return false
	}
	write("nginx.conf", "http {\n\t# server_names_hash_bucket_size 64;\n}\n")
	write("sites-enabled/other", "server { listen 8080 default_server; }\n# listen 80 default_server;\nserver { listen 80; }\n")
	write("sites-enabled/scotch-_.conf", "listen 80 default_server;")
	if !has("bucket_size") || !has("max_size") || !has("default_server") {
		t.Error("comments, other ports and our own files count as somebody's configuration")
	}
	write("nginx.conf", "http {\n\tserver_names_hash_bucket_size 128;\n}\n")
	if has("bucket_size") || !has("max_size") {
		t.Error("a size that nginx.conf sets is set again")
	}
	for _, listen := range []string{"80 default_server", "[::]:80 default_server", "*:80 reuseport default_server", "0.0.0.0:80 default"} {
		write("sites-enabled/default", "server {\n\tlisten "+listen+";\n}\n")
		if has("default_server") {
			t.Errorf("with %q elsewhere there are two default servers", listen)
		}
		_, err := n.Render(blog("*"))
		if err == nil || !strings.Contains(err.Error(), dir+"/sites-enabled/default") {
			t.Errorf("an app for every host can't be with %q elsewhere, and the error is %v", listen, err)
		}
		if _, err := n.Render(blog("blog.example.org")); err != nil {
			t.Errorf("an app with a domain can: %v", err)
		}
	}
}

// "nginx -t" passes ~.*, $host, line feeds and duplicates. CVE-class:
// configuration injection by way of an app's domains, prefix or static paths.
func TestHostileValues(t *testing.T) {
	n := inSystem(t, "[nginx]\nconfig_path = /srv/nginx\n")
	refused := func(what string, change func(r *deployer.Route)) {
		t.Helper()
		r := blog("blog.example.org")
		change(&r)
		if files, err := n.Render(r); err == nil {
			t.Errorf("%s: got into\n%s", what, files[len(files)-1].Data)
		}
	}
	for _, d := range []string{
		"", "~.*", "~^(?<x>.+)$", "$host", "$hostname", "a.org;", "a.org b.org", "a.org\n", "\na.org", "a.org\r", "a\x00", "a.org{", "A.org", "a..org",
		".a.org", "a.org.", "*.*.org", "a.*", "*a.org", "**", "_", "_.a.org", "a/b", "../a", "'a'", `"a"`, `a\`, "a#b", "ä.org", "[::1]", "-a.org", strings.Repeat("a", 64) + ".org",
		strings.Repeat("abc.", 64) + "org",
	} {
		refused("domain "+d, func(r *deployer.Route) { r.App.Domains = []string{d} })
	}
	refused("no domain", func(r *deployer.Route) { r.App.Domains = nil })
	refused("domain twice", func(r *deployer.Route) { r.App.Domains = []string{"a.org", "a.org"} })
	for _, p := range []string{"", "a", "/a", "a/", "//", "/a//b/", "/../", "/a/../b/", "/./", "/a b/", "/a;/", "/$a/", "/a{/", "/a\n/", "/a/\n", "/%41/", "/~a/", `/"/`, acmePath} {
		refused("prefix "+p, func(r *deployer.Route) { r.App.URLPrefix = p })
		refused("static URL "+p, func(r *deployer.Route) { r.App.Static = []config.Static{{URL: p, Path: "static"}} })
	}
	for _, p := range []string{"", ".", "..", "../x", "a/../../x", "/etc", "a b", "a;", "$a", "a\n", `a"`, "./a", "a//b", "a{", `a\b`} {
		refused("static path "+p, func(r *deployer.Route) { r.App.Static = []config.Static{{URL: "/static/", Path: p}} })
	}
	refused("static for all", func(r *deployer.Route) { r.App.Static = []config.Static{{URL: "/", Path: "public"}} })
	refused("static twice", func(r *deployer.Route) {
		r.App.Static = []config.Static{{URL: "/s/", Path: "a"}, {URL: "/s/", Path: "b"}}
	})
	for _, s := range []string{" x", ";", "$x", "\n", `"`, "'", "{", `\`, "\x00", "x" + strings.Repeat("y", 100)} {
		refused("socket "+s, func(r *deployer.Route) { r.Socket += s })
	}
	for _, s := range []string{" x", ";", "$x", "\n", `"`, "{"} {
		refused("source "+s, func(r *deployer.Route) { r.Source += s })
		refused("data "+s, func(r *deployer.Route) { r.Data += s })
		refused("stopped "+s, func(r *deployer.Route) { r.Stopped += s })
		refused("name "+s, func(r *deployer.Route) { r.App.Name += s })
		refused("include "+s, func(r *deployer.Route) { r.App.Values = values(t, n, "/etc/nginx/own"+s) })
	}
	refused("relative include", func(r *deployer.Route) { r.App.Values = values(t, n, "own.conf") })
	for _, p := range []string{"HTTP", "fastcgi", "http;", " "} {
		refused("protocol "+p, func(r *deployer.Route) { r.Protocol = p })
	}
	refused("no timeout", func(r *deployer.Route) { r.App.Timeout = 0 })
	refused("negative body", func(r *deployer.Route) { r.App.MaxBody = -1 })
}

// values are an app's, with an include that may hold anything.
func values(t *testing.T, _ *NGINX, include string) *config.Values {
	t.Helper()
	lines := strings.ReplaceAll(strings.ReplaceAll(include, "$", "$$"), "\n", "\n  x")
	site, err := read(t, "[nginx]\ninclude = "+lines+"\n", config.Defaults{Name: "nginx", Text: []byte(defaults)})
	if err != nil {
		t.Fatal(err)
	}
	return site.Values
}

func TestSettings(t *testing.T) {
	for _, bad := range []string{
		"config_path = relative", "config_path = /a b", "sites_path = /a;b", "domains_path = /a*", "pid_path = /$$a", "acme_path =", "failed_log =", "failed_log = /a b",
		"listen =", "listen = http", "listen = 0", "listen = 70000", "listen = localhost:80", "listen = ::1:80", "listen = 80;", "listen = unix:/x", "listen = [fe80::1%%eth0]:80",
		"config_mode = rw", "config_mode = 7777", "access_log = yes please", "group = a b", "test_command =", "reload_command =", "program =",
	} {
		_, err := read(t, "[nginx]\n"+bad+"\n", Defaults())
		if key, _, _ := strings.Cut(bad, " "); err == nil || !strings.Contains(err.Error(), "scotch.cfg:2: [nginx] "+key+": ") {
			t.Errorf("%q gives %v", bad, err)
		}
	}
	n := inSystem(t, "[nginx]\nlisten = 80, 127.0.0.1:8080 [::1]:8080\ntest_command = nginx -t -c /x\n")
	var all []string
	for _, a := range n.listen {
		all = append(all, a.directives(true)...)
	}
	if got, want := strings.Join(all, " "), "80 [::]:80 127.0.0.1:8080 [::1]:8080"; got != want {
		t.Errorf("it listens on %q, want %q", got, want)
	}
	if c := n.Test(); c.Timeout <= 0 {
		t.Error("a check that hangs stops every deploy")
	} else if strings.Join(c.Args, "|") != "nginx|-t|-c|/x" || c.Env == nil {
		t.Errorf("it is tested by %+v", c)
	}
	if n.Process() != nil {
		t.Error("in system mode nginx is the distribution's")
	}
}

func TestURL(t *testing.T) {
	for _, tt := range []struct {
		listen, domains, prefix, want string
	}{
		{"80", "blog.example.org www.example.org", "/", "http://blog.example.org/"},
		{"80", "* *.example.org blog.example.org", "/a/", "http://blog.example.org/a/"},
		{"127.0.0.1:8080", "blog.localhost", "/", "http://blog.localhost:8080/"},
		{"80", "*.example.org", "/", "http://blog.example.org/"},
		{"80", "*", "/", "http://localhost/"},
	} {
		n := inSystem(t, "[nginx]\nlisten = "+tt.listen+"\n")
		a := &config.App{Name: "blog", Domains: strings.Fields(tt.domains), URLPrefix: tt.prefix}
		if got := n.URL(a); got != tt.want {
			t.Errorf("%+v gives %q", tt, got)
		}
	}
}

func TestFileName(t *testing.T) {
	long := strings.Repeat("abc.", 62) + "org"
	for _, d := range []string{"*", "*.example.org", "blog.example.org", long, long[4:], "*." + long[4:]} {
		name := fileName(d)
		if len("scotch-"+name+".conf") > 255 || strings.ContainsAny(name, "*/") {
			t.Errorf("%q is in the file %q", d, name)
		}
		if len(d) < 200 && name != strings.Replace(d, "*", "_", 1) {
			t.Errorf("%q is in the file %q, hard to find", d, name)
		}
	}
}
