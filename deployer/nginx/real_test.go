package nginx

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
)

func TestPlaces(t *testing.T) { eachProtocol(t, askPlaces) }

func askPlaces(t *testing.T, w *world) {
	for _, name := range []string{"one", "two", "three", "four"} {
		w.start(name, "000001")
		w.current(name, "000001")
	}
	w.publish(
		w.route("one", "/", "shop.example.org", "www.example.org"),
		w.route("two", "/a/", "shop.example.org"),
		w.route("three", "/a/b/", "shop.example.org", "*.example.net"),
		w.route("four", "/", "*"),
	)
	for _, tt := range []struct{ host, path, name, script, info string }{
		{"shop.example.org", "/", "one", "", "/"},
		{"www.example.org", "/x", "one", "", "/x"},
		{"shop.example.org", "/ab/", "one", "", "/ab/"},
		{"shop.example.org", "/a/", "two", "/a", "/"},
		{"shop.example.org", "/a/x/y?q=1", "two", "/a", "/x/y"},
		{"shop.example.org", "/a/bc", "two", "/a", "/bc"},
		{"shop.example.org", "/a/b/", "three", "/a/b", "/"},
		{"shop.example.org", "/a/b/a/b/", "three", "/a/b", "/a/b/"},
		{"SHOP.example.org", "/a/", "two", "/a", "/"},
		{"x.example.net", "/a/b/z", "three", "/a/b", "/z"},
		{"y.x.example.net", "/a/b/z", "three", "/a/b", "/z"},
		{"nobody.example.com", "/any", "four", "", "/any"},
		{"127.0.0.1", "/", "four", "", "/"},
		// Bytes of the path arrive decoded, line feeds among them.
		{"shop.example.org", "/a/caf%C3%A9%0Ax%0A", "two", "/a", "/caf\u00c3\u00a9\nx\n"},
		{"shop.example.org", "/a/%3Fx:/a/y", "two", "/a", "/?x:/a/y"},
	} {
		said := w.said(tt.host, tt.path)
		if said["NAME"] != tt.name+"/000001" || said["SCRIPT_NAME"] != tt.script || said["PATH_INFO"] != tt.info {
			t.Errorf("%s%s came to %s with SCRIPT_NAME %q and PATH_INFO %q, want %+v", tt.host, tt.path, said["NAME"], said["SCRIPT_NAME"], said["PATH_INFO"], tt)
		}
		uri := tt.path
		if w.protocol == deployer.ProtocolHTTP {
			uri = said["REQUEST_URI"] // see TestRequestsByHTTP
		}
		if said["REQUEST_URI"] != uri || !strings.EqualFold(said["HTTP_HOST"], tt.host) || said["scheme"] != "http" {
			t.Errorf("%s%s came as %+v", tt.host, tt.path, said)
		}
	}
	for path, want := range map[string]string{"/a": "/a/", "/a/b?q=1": "/a/b/?q=1"} {
		if a := w.get("shop.example.org", path); a.status != 301 || a.header.Get("Location") != want {
			t.Errorf("%s gives %d to %q, want 301 to %q", path, a.status, a.header.Get("Location"), want)
		}
	}
	// A domain answers nothing that no app of its own has.
	if a := w.get("x.example.net", "/"); a.status != 404 {
		t.Errorf("outside of every prefix: %d", a.status)
	}
	if got := w.get("shop.example.org", "/").header.Get("Server"); got != "nginx" {
		t.Errorf("the server calls itself %q", got)
	}
}

func TestWhatClientsClaim(t *testing.T) { eachProtocol(t, askWhatClientsClaim) }

func askWhatClientsClaim(t *testing.T, w *world) {
	w.start("one", "000001")
	w.current("one", "000001")
	w.publish(w.route("one", "/", "shop.example.org"))
	said := w.said("shop.example.org:8443", "/",
		"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil", "X-Forwarded-Port", "1", "X-Forwarded-Prefix", "/evil",
		"X-Forwarded-Ssl", "on", "X-Forwarded-Protocol", "https", "X-Script-Name", "/evil", "Https", "on", "Front-End-Https", "on", "X-Url-Scheme", "https",
		"Forwarded", "for=evil", "Proxy", "http://evil", "X-Real-IP", "6.6.6.6", "X-Scotch-App", "evil", "SCRIPT_NAME", "/evil", "PATH_INFO", "/evil", "X_Forwarded_Proto", "https", "Cookie", strings.Repeat("c", 7000), "X-Own", "kept")
	for k, want := range map[string]string{
		"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_X_REAL_IP": "127.0.0.1", "HTTP_X_FORWARDED_PROTO": "http",
		"HTTP_X_FORWARDED_HOST": "shop.example.org:8443", "HTTP_HOST": "shop.example.org:8443", "SERVER_NAME": "shop.example.org",
		"HTTP_X_FORWARDED_SSL": "", "HTTP_X_FORWARDED_PROTOCOL": "", "HTTP_X_SCRIPT_NAME": "", "HTTP_HTTPS": "", "HTTP_FRONT_END_HTTPS": "", "HTTP_X_URL_SCHEME": "",
		"HTTP_X_FORWARDED_PORT": "", "HTTP_X_FORWARDED_PREFIX": "", "HTTP_FORWARDED": "", "HTTP_PROXY": "", "HTTP_X_OWN": "kept",
	} {
		if said[k] != want {
			t.Errorf("%s is %q, want %q", k, said[k], want)
		}
	}
	mine := "SCOTCH_APP"
	if w.protocol == deployer.ProtocolHTTP {
		mine = "HTTP_X_SCOTCH_APP"
	}
	if said[mine] != "one" || said["SCRIPT_NAME"] != "" || said["PATH_INFO"] != "/" {
		t.Errorf("the request is for %q at %q below %q", said[mine], said["PATH_INFO"], said["SCRIPT_NAME"])
	}
	if len(said["HTTP_COOKIE"]) != 7000 {
		t.Errorf("of a long cookie %d bytes arrived", len(said["HTTP_COOKIE"]))
	}

	// A whole URL as target chooses the server, whatever the Host header says.
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET http://shop.example.org/ HTTP/1.1\r\nHost: evil.example.com:99\r\nConnection: close\r\n\r\n")
	text, _ := io.ReadAll(c)
	if !bytes.Contains(text, []byte(`"HTTP_HOST": "shop.example.org:99"`)) {
		t.Errorf("with another host in the target the app sees\n%s", text)
	}
}

// Renaming the link switches, without a reload: no worker of nginx changes.
func TestSwitch(t *testing.T) { eachProtocol(t, askSwitch) }

func askSwitch(t *testing.T, w *world) {
	w.start("one", "000001")
	w.start("one", "000002")
	w.current("one", "000001")
	w.publish(w.route("one", "/", "shop.example.org"))
	before := fmt.Sprint(workers(w.pid))
	for _, id := range []string{"000001", "000002", "000001"} {
		w.current("one", id)
		if got := w.said("shop.example.org", "/")["NAME"]; got != "one/"+id {
			t.Errorf("after the switch to %s %s answers", id, got)
		}
	}
	if after := fmt.Sprint(workers(w.pid)); after != before {
		t.Errorf("workers changed from %s to %s", before, after)
	}
}

func TestErrorsOfItsOwn(t *testing.T) { eachProtocol(t, askErrorsOfItsOwn) }

func askErrorsOfItsOwn(t *testing.T, w *world) {
	w.start("one", "000001")
	w.current("one", "000001")
	r := w.route("one", "/a/", "shop.example.org")
	r.App.Static = []config.Static{{URL: "/static/", Path: "static"}}
	w.publish(r)

	for path, status := range map[string]int{"/a/own503": 503, "/a/gone": 410} {
		if a := w.get("shop.example.org", path); a.status != status || !strings.Contains(a.body, "PATH_INFO") {
			t.Errorf("the app's own %d arrives as %d %q", status, a.status, a.body)
		}
	}
	if a := w.ask("POST", "shop.example.org", "/a/", bytes.NewReader(make([]byte, 1<<20))); a.status != 200 || !strings.Contains(a.body, `"SIZE": "1048576"`) {
		t.Errorf("a body of [app] max_body gives %d", a.status)
	}
	// A body of unknown length (chunked) has one for the app.
	if a := w.ask("POST", "shop.example.org", "/a/", io.MultiReader(strings.NewReader("12345"))); !strings.Contains(a.body, `"SIZE": "5"`) {
		t.Errorf("a chunked body gives %d %s", a.status, a.body)
	}
	if a := w.ask("POST", "shop.example.org", "/a/", bytes.NewReader(make([]byte, 1<<20+1))); a.status != 413 {
		t.Errorf("a body over [app] max_body gives %d", a.status)
	}

	// Stopped: a file, no reload.
	if err := os.WriteFile(r.Stopped, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a/", "/a/static/x"} {
		a := w.get("shop.example.org", path)
		if a.status != 503 || !strings.Contains(a.body, "stopped") || a.header.Get("Retry-After") == "" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s of a stopped app gives %+v", path, a)
		}
	}
	if a := w.ask("POST", "shop.example.org", "/a/", strings.NewReader("x")); a.status != 503 {
		t.Errorf("a POST to a stopped app gives %d", a.status)
	}
	if err := os.Remove(r.Stopped); err != nil {
		t.Fatal(err)
	}
	if a := w.get("shop.example.org", "/a/"); a.status != 200 {
		t.Errorf("started again it gives %d", a.status)
	}

	// Down: nobody at the socket.
	if err := os.Remove(filepath.Join(w.dir, "one", "current")); err != nil {
		t.Fatal(err)
	}
	if a := w.get("shop.example.org", "/a/"); a.status != 502 || !strings.Contains(a.body, "not answering") {
		t.Errorf("an app that is down gives %+v", a)
	}
}

func TestStatic(t *testing.T) {
	w := newWorld(t)
	src, data := filepath.Join(w.dir, "one", "000001", "src"), filepath.Join(w.dir, "one", "data")
	for path, text := range map[string]string{
		src + "/static/css/site.css": "body{}", src + "/static/app.mjs": "1", src + "/settings.py": "SECRET",
		src + "/static/.env": "SECRET", src + "/static/deep/.git/config": "SECRET", data + "/uploads/a b.txt": "mine", w.dir + "/secret": "SECRET",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.current("one", "000001")
	r := w.route("one", "/a/", "shop.example.org")
	r.App.Static = []config.Static{{URL: "/static/", Path: "static"}, {URL: "/up/", Path: "uploads", Data: true}}
	w.publish(r)
	for path, want := range map[string]string{"/a/static/css/site.css": "text/css", "/a/static/app.mjs": "text/javascript", "/a/up/a%20b.txt": "text/plain"} {
		if a := w.get("shop.example.org", path); a.status != 200 || a.header.Get("Content-Type") != want {
			t.Errorf("%s gives %d %q, want %q", path, a.status, a.header.Get("Content-Type"), want)
		}
	}
	for _, path := range []string{
		"/a/static/../settings.py", "/a/static/%2e%2e/settings.py", "/a/static..%2fsettings.py", "/a/static../settings.py", "/a/static/nope", "/a/static/", "/a/up/",
		"/a/static/.env", "/a/static/%2eenv", "/a/static/deep/.git/config", "/a/static/deep/%2egit/config", "/a/static//.env", "/a/up/../../secret",
	} {
		if a := w.get("shop.example.org", path); a.status == 200 || strings.Contains(a.body, "SECRET") {
			t.Errorf("%s gives %d %q", path, a.status, a.body)
		}
	}

	// Kept for long is what can't change: names with a sum of their content.
	for name, kept := range map[string]bool{
		"site.0123456789ab.css": true, "jquery.min.0a1b2c3d4e5f.js": true, "main.8e1b2c3d.chunk.js": true, "app-8e1b2c3d.js.map": true,
		"d41d8cd98f00b204e9800998ecf8427e.js": false, "style.css": false, "report-20240131.pdf": false, "report.202401311200.pdf": false,
		"scan-20240131a.pdf": false, "my-document.pdf": false, "face-deadbeef.png": false, "v1.10000000.css": false, "x.0123456789ab": false,
		"IMG-Holiday2.jpg": false, "site.0123456789AB.css": false,
	} {
		for dir, url := range map[string]string{src + "/static/": "/a/static/", data + "/uploads/": "/a/up/"} {
			if err := os.WriteFile(dir+name, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			want := "no-cache"
			if kept {
				want = "public, max-age=31536000, immutable"
			}
			a := w.get("shop.example.org", url+name)
			if got := a.header.Get("Cache-Control"); a.status != 200 || got != want || a.header.Get("ETag") == "" {
				t.Errorf("%s%s gives %d with Cache-Control %q, want %q", url, name, a.status, got, want)
			}
			if a := w.get("shop.example.org", url+name, "If-None-Match", a.header.Get("ETag")); a.status != 304 {
				t.Errorf("%s%s asked for again gives %d", url, name, a.status)
			}
		}
	}
	if got := w.get("shop.example.org", "/a/static/gone.0123456789ab.css").header.Get("Cache-Control"); got != "" {
		t.Errorf("a file that is not there is kept: %q", got)
	}

	// The app makes a link in its data to a file of somebody else.
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Symlink(w.dir+"/secret", data+"/uploads/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(data+"/uploads/link", 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if a := w.get("shop.example.org", "/a/up/link"); a.status != 403 && a.status != 404 {
		t.Errorf("a link to another's file gives %d %q", a.status, a.body)
	}
}

func TestWithoutApps(t *testing.T) {
	w := newWorld(t)
	if a := w.get("nobody.example.org", "/"); a.status != 404 {
		t.Errorf("a host that no app claims gives %d", a.status)
	}
	path := filepath.Join(w.n.acme, acmePath, "token")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("token.thumbprint"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.publish(w.route("one", "/", "shop.example.org"))
	for _, host := range []string{"nobody.example.org", "shop.example.org"} {
		if a := w.get(host, acmePath+"token"); a.status != 200 || a.body != "token.thumbprint" {
			t.Errorf("a challenge for %s gives %d", host, a.status)
		}
		if a := w.get(host, acmePath+"nope"); a.status != 404 {
			t.Errorf("a challenge that is not there, for %s, gives %d", host, a.status)
		}
	}
}

// nginx answers "nginx -s reload" before any worker has changed: right after
// Reload each of many connections must see the new configuration.
func TestReloadWaits(t *testing.T) {
	w := newWorld(t)
	w.start("one", "000001")
	w.current("one", "000001")
	for i := range 5 {
		host := fmt.Sprintf("h%d.example.org", i)
		if a := w.get(host, "/"); a.status != 404 {
			t.Fatalf("%s before it is published gives %d", host, a.status)
		}
		w.publish(w.route("one", "/", host))
		for range 20 {
			if a := w.get(host, "/"); a.status != 200 {
				t.Fatalf("%s right after the reload gives %d", host, a.status)
			}
		}
	}

	// What nginx can't use it says, and goes on with what it has.
	bad := filepath.Join(w.n.sitesPath, "scotch-bad.conf")
	if err := os.WriteFile(bad, []byte("server { nonsense; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := w.n.Reload(soon, runner{}); err == nil {
		t.Error("a bad file is loaded")
	}
	w.n.named = map[string]config.Origin{"reload_command": {}}
	if err := w.n.Reload(t.Context(), runner{}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a bad file and a command of the operator's give %v", err)
	}
	if a := w.get("h0.example.org", "/"); a.status != 200 {
		t.Errorf("after a bad reload: %d", a.status)
	}
}

// Long names, and many of them: nginx's hashes are sized for them.
func TestLongNames(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("abcdefghi.", 24) + "example.org"
	routes := []deployer.Route{w.route("one", "/", long, "*."+long[10:])}
	for i := range 50 {
		routes = append(routes, w.route("one", "/", fmt.Sprintf("a-long-name-of-a-host-number-%d.apps.example.org", i)))
	}
	w.publish(routes...)
	if a := w.get(long, "/"); a.status != 502 {
		t.Errorf("a long name gives %d, want 502: there is no app", a.status)
	}
}
