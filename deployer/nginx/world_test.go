package nginx

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// runner runs commands plainly.
type runner struct{ deployer.Runner }

func (runner) Run(ctx context.Context, c deployer.Command) error {
	path := c.Args[0]
	for dir := range strings.SplitSeq(strings.TrimPrefix(c.Env[0], "PATH="), ":") {
		if _, err := os.Stat(filepath.Join(dir, path)); err == nil {
			path = filepath.Join(dir, path)
			break
		}
	}
	cmd := exec.CommandContext(ctx, path, c.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.Env, c.Dir, c.Stdout, c.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &deployer.ExitError{Name: c.Args[0], Status: exit.ExitCode()}
	}
	return err
}

// world is a real nginx, run as in standalone mode, and apps behind it.
type world struct {
	t    *testing.T
	dir  string
	n    *NGINX
	addr string
	pid  int
	// protocol is what the apps speak.
	protocol string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip("there is no nginx: apt-get install nginx-light")
	}
	dir, err := os.MkdirTemp("", "sc") // short: sockets' paths are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	site := open(t, "[server]\nmode = standalone\n[nginx]\nlisten = "+addr+"\n[paths]\nrun = "+dir+"/run\nlogs = "+dir+"\ninstances = "+dir+"\n", StandaloneDefaults())
	n, err := New(site)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, n: n, addr: addr}
	files, err := n.Base()
	if err != nil {
		t.Fatal(err)
	}
	w.write(files)
	w.test()

	p := n.Process()
	w.boot(2, p.Log, p.Dir, p.Args...)
	return w
}

// newSystemWorld is a real nginx in the layout of Debian: an administrator's
// nginx.conf, with some lines in http, and sites beside scotch's. It has one
// worker, so that its logs are in order.
func newSystemWorld(t *testing.T, http, settings string, sites ...string) *world {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip("there is no nginx: apt-get install nginx-light")
	}
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root root;\n"
	}
	conf := user + `daemon off; worker_processes 1; pid DIR/nginx.pid; error_log DIR/nginx.log;
events { worker_connections 100; }
http {
	client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
	` + http + `
	include DIR/conf.d/*.conf;
	include DIR/sites-enabled/*;
}
`
	place := strings.NewReplacer("DIR", dir, "ADDR", addr)
	files := []deployer.File{{Path: dir + "/nginx.conf", Data: []byte(place.Replace(conf)), Mode: 0o644}}
	for i, text := range sites {
		files = append(files, deployer.File{Path: fmt.Sprintf("%s/sites-enabled/a-site-%d", dir, i), Data: []byte(place.Replace(text)), Mode: 0o644})
	}
	command := "nginx -p DIR -c DIR/nginx.conf "
	n, err := New(open(t, place.Replace("[nginx]\nconfig_path = DIR\nlisten = ADDR\npid_path = DIR/nginx.pid\ntest_command = "+command+"-t -q\nreload_command = "+command+"-s reload\n"+
		settings+"\n[paths]\nrun = DIR/run\nlogs = DIR\ninstances = DIR\n")))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, n: n, addr: addr}
	w.write(files)
	base, err := n.Base()
	if err != nil {
		t.Fatal(err)
	}
	w.write(base)
	w.test()
	w.boot(1, dir+"/nginx.log", dir, strings.Fields(place.Replace(command))...)
	return w
}

// boot starts nginx and waits until its workers run.
func (w *world) boot(count int, output, dir string, args ...string) {
	w.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	log, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = environment(), dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	w.pid = cmd.Process.Pid
	w.wait("nginx", func() bool { return len(workers(w.n.master())) == count })
}

func (w *world) log() string {
	b, _ := os.ReadFile(w.n.log()) // in both layouts
	return string(b)
}

func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waiting for %s: it takes too long\n%s", what, w.log())
		}
	}
}

func (w *world) write(files []deployer.File) {
	w.t.Helper()
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(f.Path, f.Data, f.Mode); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) test() {
	w.t.Helper()
	var out bytes.Buffer
	c := w.n.Test()
	c.Stdout, c.Stderr = &out, &out
	if err := (runner{}).Run(w.t.Context(), c); err != nil {
		w.t.Fatalf("%v: %v\n%s", c.Args, err, out.String())
	}
	if out.Len() > 0 {
		w.t.Errorf("nginx warns of its configuration:\n%s", out.String())
	}
}

func (w *world) reload() {
	w.t.Helper()
	w.test()
	if err := w.n.Reload(w.t.Context(), runner{}); err != nil {
		w.t.Fatalf("reloading: %v\n%s", err, w.log())
	}
}

func (w *world) route(name, prefix string, domains ...string) deployer.Route {
	dir := filepath.Join(w.dir, name)
	socket := "uwsgi.sock"
	if w.protocol == deployer.ProtocolHTTP {
		socket = "http.sock"
	}
	return deployer.Route{
		App: &config.App{
			Name: name, Domains: domains, URLPrefix: prefix, MaxBody: 1 << 20, Timeout: 10 * time.Second,
		},
		Dir: dir, Socket: dir + "/current/run/" + socket, Protocol: w.protocol, Source: dir + "/current/src", Data: dir + "/data", Stopped: dir + "/stopped",
	}
}

func (w *world) publish(routes ...deployer.Route) {
	w.t.Helper()
	for _, r := range routes {
		files, err := w.n.Render(r)
		if err != nil {
			w.t.Fatal(err)
		}
		w.write(files)
	}
	w.reload()
}

// start runs the echo app as an instance; it calls itself by NAME/ID.
func (w *world) start(name, id string) {
	w.t.Helper()
	if w.protocol == deployer.ProtocolHTTP {
		w.startHTTP(name, id)
		return
	}
	if _, err := exec.LookPath("uwsgi"); err != nil {
		w.t.Skip("there is no uwsgi: apt-get install uwsgi-core uwsgi-plugin-python3")
	}
	run := filepath.Join(w.dir, name, id, "run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		w.t.Fatal(err)
	}
	app, err := filepath.Abs("testdata/echo.py")
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("uwsgi", "--plugin", "python3", "--master", "--need-app", "--enable-threads", "--threads", "4", "--buffer-size", "32768",
		"--socket", run+"/uwsgi.sock", "--wsgi-file", app, "--hook-accepting1-once", "write:"+run+"/ready ready")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "NAME=" + name + "/" + id}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	w.wait("the app "+name, func() bool { _, err := os.Stat(run + "/ready"); return err == nil })
}

// current switches as the deployer does: by one rename.
func (w *world) current(name, id string) {
	w.t.Helper()
	link := filepath.Join(w.dir, name, "current")
	if err := os.Symlink(id, link+".new"); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		w.t.Fatal(err)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (w *world) ask(method, host, path string, body io.Reader, header ...string) answer {
	w.t.Helper()
	a, err := w.try(method, host, path, body, header...)
	if err != nil {
		w.t.Fatalf("%s %s%s: %v\n%s", method, host, path, err, w.log())
	}
	return a
}

// try is ask for any goroutine.
func (w *world) try(method, host, path string, body io.Reader, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.addr+path, body)
	if err != nil {
		return answer{}, err
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req) // no redirects
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

// listen takes the place of an app. The function that it returns waits for a
// request and reads it whole, so that a close does not reset the connection.
func (w *world) listen(name string) func() net.Conn {
	w.t.Helper()
	run := filepath.Join(w.dir, name, "000001", "run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(run, "uwsgi.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	w.current(name, "000001")
	return func() net.Conn {
		w.t.Helper()
		l.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
		c, err := l.Accept()
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { c.Close() })
		size := make([]byte, 4)
		if _, err := io.ReadFull(c, size); err != nil {
			w.t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.LittleEndian.Uint16(size[1:]))); err != nil {
			w.t.Fatal(err)
		}
		return c
	}
}

func (w *world) get(host, path string, header ...string) answer {
	w.t.Helper()
	return w.ask("GET", host, path, nil, header...)
}

// said is what the echo app got.
func (w *world) said(host, path string, header ...string) map[string]string {
	w.t.Helper()
	a := w.get(host, path, header...)
	said := map[string]string{}
	if err := json.Unmarshal([]byte(a.body), &said); err != nil {
		w.t.Fatalf("%s%s: %d %q\n%s", host, path, a.status, a.body, w.log())
	}
	return said
}
