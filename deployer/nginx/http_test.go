package nginx

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"scotch/deployer"
)

// eachProtocol asks the same of apps behind uWSGI and of apps that speak HTTP.
func eachProtocol(t *testing.T, ask func(t *testing.T, w *world)) {
	for _, protocol := range []string{deployer.ProtocolUWSGI, deployer.ProtocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			w := newWorld(t)
			w.protocol = protocol
			ask(t, w)
		})
	}
}

// startHTTP runs an app that speaks HTTP as an instance. It answers as echo.py does,
// with what a WSGI server makes of the request.
func (w *world) startHTTP(name, id string) {
	w.t.Helper()
	run := filepath.Join(w.dir, name, id, "run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(run, "http.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		said := environ(r)
		if path := said["PATH_INFO"]; path == "/crash" || path == "/error" {
			panic(http.ErrAbortHandler) // no answer
		}
		n, _ := io.Copy(io.Discard, r.Body)
		said["NAME"], said["SIZE"] = name+"/"+id, strconv.FormatInt(n, 10)
		text, _ := json.MarshalIndent(said, "", "")
		out.Header().Set("Content-Type", "application/json")
		out.Header().Set("Server", "evil")
		switch said["PATH_INFO"] {
		case "/own503":
			out.WriteHeader(503)
		case "/gone":
			out.WriteHeader(410)
		}
		out.Write(text)
	})}
	go server.Serve(l)
	w.t.Cleanup(func() { server.Close() })
}

// environ is what PEP 3333 makes of a request.
func environ(r *http.Request) map[string]string {
	latin1 := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			b.WriteRune(rune(c))
		}
		return b.String()
	}
	said := map[string]string{
		"REQUEST_URI": r.RequestURI, "QUERY_STRING": r.URL.RawQuery, "HTTP_HOST": r.Host, "SERVER_PROTOCOL": r.Proto,
		"REMOTE_ADDR": r.Header.Get("X-Real-IP"), "scheme": r.Header.Get("X-Forwarded-Proto"), "connection": fmt.Sprint(r.Close),
	}
	said["SERVER_NAME"], _, _ = strings.Cut(r.Host, ":")
	for k, v := range r.Header {
		said["HTTP_"+strings.ToUpper(strings.ReplaceAll(k, "-", "_"))] = strings.Join(v, ",")
	}
	said["SCRIPT_NAME"] = said["HTTP_SCRIPT_NAME"]
	path, below := strings.CutPrefix(r.URL.Path, said["SCRIPT_NAME"])
	if !below {
		path = "not below the prefix: " + r.URL.Path
	}
	said["PATH_INFO"] = latin1(path)
	return said
}

// One request has one connection, since each connection looks up what is live; the
// path that is handed on is the one by which nginx has chosen the app.
func TestRequestsByHTTP(t *testing.T) {
	w := newWorld(t)
	w.protocol = deployer.ProtocolHTTP
	w.start("one", "000001")
	w.current("one", "000001")
	w.publish(w.route("one", "/a/b/", "shop.example.org"))
	for path, want := range map[string]string{
		"/a/b/": "/a/b/", "/a/b/x?q=%2F&r=a+b": "/a/b/x?q=%2F&r=a+b", "//a//b///x": "/a/b/x", "/z/../a/b/x": "/a/b/x", "/a%2Fb/x": "/a/b/x", "/a/%62/x": "/a/b/x",
		"/a/b/a%20b%23%3F%25%0D%0AX:1": "/a/b/a%20b%23%3F%25%0D%0AX:1", "/a/b/caf%C3%A9": "/a/b/caf%C3%A9", "/a/b/%2e%2e/b/x": "/a/b/x",
	} {
		said := w.said("shop.example.org", path)
		if said["REQUEST_URI"] != want || said["SCRIPT_NAME"] != "/a/b" || said["SERVER_PROTOCOL"] != "HTTP/1.1" || said["connection"] != "true" || said["HTTP_X_SCOTCH_APP"] != "one" {
			t.Errorf("%s came as %+v, want %s", path, said, want)
		}
	}
}

func TestPendingByHTTP(t *testing.T) {
	w := newWorld(t)
	w.protocol = deployer.ProtocolHTTP
	run := filepath.Join(w.dir, "one", "000001", "run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "http.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan bool)
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })}
	go server.Serve(l)
	defer server.Close()
	w.current("one", "000001")
	w.publish(w.route("one", "/", "shop.example.org"))
	pending := func() int {
		t.Helper()
		n, err := w.n.Pending(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	done := make(chan error)
	go func() {
		_, err := w.try("GET", "shop.example.org", "/", nil)
		done <- err
	}()
	w.wait("a request under way", func() bool { return pending() == 1 })
	release <- true
	if err := <-done; err != nil {
		t.Error(err)
	}
	// No connection is kept for the next one.
	w.wait("the request's end", func() bool { return pending() == 0 })
}

// Whose a file is is told by its upstream, in either protocol, and while it names
// one instance.
func TestInstancesOfFiles(t *testing.T) {
	n := inSystem(t, "[nginx]\nconfig_path = /srv/nginx\n")
	for _, protocol := range []string{"", deployer.ProtocolUWSGI, deployer.ProtocolHTTP} {
		for _, at := range []string{"current", "000042", "1000000"} {
			r := blog("blog.example.org")
			r.App.URLPrefix = "/a/b/"
			r.Protocol, r.Socket = protocol, r.Dir+"/"+at+"/run/x.sock"
			files, err := n.Render(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.Instances(files[1].Data); got != "/var/local/scotch" {
				t.Errorf("a file with %q by way of %s is of %q", protocol, at, got)
			}
		}
	}
}
