package nginx

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scotch/deployer"
)

func (w *world) failures(name string, since time.Time) int {
	w.t.Helper()
	n, err := w.n.Failures(w.t.Context(), w.route(name, "/").Socket, since)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// fail asks for something that fails, and returns when nginx has noted it: it
// does after the answer.
func (w *world) fail(name, host, path string, status int) {
	w.t.Helper()
	before := w.failures(name, time.Time{})
	if a := w.get(host, path); a.status != status {
		w.t.Errorf("%s%s gives %d, want %d", host, path, a.status, status)
	}
	w.wait("a line in the log", func() bool { return w.failures(name, time.Time{}) > before })
	if n := w.failures(name, time.Time{}); n != before+1 {
		w.t.Errorf("%s%s counts as %d failures", host, path, n-before)
	}
}

func (w *world) text(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return string(text)
}

func TestFailures(t *testing.T) { eachProtocol(t, askFailures) }

func askFailures(t *testing.T, w *world) {
	for _, name := range []string{"one", "two"} {
		w.start(name, "000001")
		w.current(name, "000001")
	}
	w.publish(w.route("one", "/", "one.example.org"), w.route("two", "/sub/", "two.example.org"), w.route("gone", "/", "gone.example.org"))
	start := time.Now()

	w.fail("one", "one.example.org", "/own503?token=SECRET", 503)
	w.fail("one", "one.example.org", "/error", 502) // uWSGI closes without an answer
	w.fail("one", "one.example.org", "/crash", 502) // a worker that dies
	w.fail("gone", "gone.example.org", "/caf%C3%A9%0A%22", 502)
	// What is no failure of an app.
	w.get("one.example.org", "/gone")
	w.get("nobody.example.org", "/own503")
	stopped := w.route("two", "/").Stopped
	if err := os.WriteFile(stopped, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if a := w.get("two.example.org", "/sub/"); a.status != 503 {
		t.Errorf("a stopped app gives %d", a.status)
	}
	if err := os.Remove(stopped); err != nil {
		t.Fatal(err)
	}
	middle := time.Now()
	w.fail("two", "two.example.org", "/sub/own503", 503)
	for name, want := range map[string]int{"one": 3, "gone": 1, "two": 1, "on": 0, "never": 0} {
		if n := w.failures(name, start); n != want {
			t.Errorf("%s failed %d times, want %d\n%s", name, n, want, w.text("failed-requests.log"))
		}
	}
	if a, b := w.failures("one", middle.Add(time.Millisecond)), w.failures("two", middle); a != 0 || b != 1 {
		t.Errorf("of late one failed %d times and two %d, want 0 and 1", a, b)
	}

	log := w.text("failed-requests.log")
	if strings.Contains(log, "SECRET") {
		t.Errorf("the log has queries:\n%s", log)
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	var got struct {
		App, Host, Method, Path, Time string
		Status                        int
	}
	if err := json.Unmarshal([]byte(lines[3]), &got); err != nil || got.App != "gone" || got.Status != 502 || got.Host != "gone.example.org" || got.Method != "GET" || got.Path != "/caf\u00e9\n\"" {
		t.Errorf("a line is %s, %v", lines[3], err)
	}
	if len(lines) != 5 {
		t.Errorf("there are %d lines, want 5:\n%s", len(lines), log)
	}
}

// A request counts by when it began: a straggler of the old instance that fails
// after the switch is not the new one's.
func TestFailuresOfStragglers(t *testing.T) {
	w := newWorld(t)
	served := w.listen("one")
	w.publish(w.route("one", "/", "one.example.org"))
	done := make(chan int)
	go func() {
		a, err := w.try("GET", "one.example.org", "/", nil)
		if err != nil {
			a.status = -1
		}
		done <- a.status
	}()
	c := served()
	time.Sleep(5 * time.Millisecond) // nginx measures in milliseconds
	since := time.Now()
	c.Close()
	if status := <-done; status != 502 {
		t.Errorf("a request that is cut off gives %d", status)
	}
	w.wait("a line in the log", func() bool { return w.failures("one", time.Time{}) == 1 })
	if n := w.failures("one", since); n != 0 {
		t.Errorf("the straggler counts as %d failures of the new instance", n)
	}
}

// An operator's logs go on, other sites do not get into scotch's, whatever
// [nginx] access_log says and wherever the others stand.
func TestAccessLogs(t *testing.T) {
	other := `server { listen ADDR; server_name other.example.com; location / { proxy_pass http://unix:DIR/one/none.sock; } location = /500 { return 500; } }`
	for _, tt := range []struct {
		name, http, settings  string
		operators, own, bysts string // what has the app's requests, and what has other sites'
	}{
		{"as Debian", "access_log DIR/operator.log;", "", "yes", "", "yes"},
		{"two logs", "access_log DIR/second.log; access_log 'DIR/operator.log' combined;", "", "yes", "", "yes"},
		{"off", "access_log off;", "", "", "", ""},
		{"own", "access_log DIR/operator.log;", "access_log = DIR/own.log", "", "yes", "yes"},
		{"own off", "access_log DIR/operator.log;", "access_log = off", "", "", "yes"},
		{"included", "include logs.inc;", "", "yes", "", "yes"},
		{"a site's", "access_log off; server { listen ADDR; server_name x.example.com; access_log DIR/operator.log; }", "", "", "", ""},
		{"sites in conf.d", "access_log DIR/operator.log;", "access_log = DIR/own.log\nsites_path = DIR/conf.d", "", "yes", "yes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/logs.inc", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			http := tt.http
			if tt.name == "included" {
				http = "include " + dir + "/*.inc;"
				if err := os.WriteFile(dir+"/logs.inc", []byte("# access_log off;\naccess_log "+dir+"/operator.log;\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w := newSystemWorld(t, http, tt.settings, other)
			w.publish(w.route("one", "/", "one.example.org"))
			w.fail("one", "one.example.org", "/app", 502)
			w.get("other.example.com", "/other")
			w.get("other.example.com", "/500")
			w.fail("one", "one.example.org", "/app2", 502) // by now the others are written too
			operators := w.text("operator.log")
			if tt.name == "included" {
				text, _ := os.ReadFile(dir + "/operator.log")
				operators = string(text)
			}
			has := func(what, text, part, want string) {
				t.Helper()
				if strings.Contains(text, part) != (want != "") {
					t.Errorf("%s: that it has %q should be %t:\n%s", what, part, want != "", text)
				}
			}
			has("the operator's log", operators, "/app", tt.operators)
			has("the operator's log", operators, "/other", tt.bysts)
			has("[nginx] access_log", w.text("own.log"), "/app", tt.own)
			has("[nginx] access_log", w.text("own.log"), "/other", "")
			has("the log of failures", w.text("failed-requests.log"), "other", "")
			has("the log of failures", w.text("failed-requests.log"), "/500", "")
		})
	}
}

// An app's include may have a log of its own, which would take the place of all
// others.
func TestIncludeWithLog(t *testing.T) {
	w := newWorld(t)
	r := w.route("one", "/", "one.example.org")
	own := deployer.File{Path: w.dir + "/own.conf", Data: []byte("access_log " + w.dir + "/own.log;\n"), Mode: 0o600}
	w.write([]deployer.File{own})
	r.App.Values = values(t, w.n, own.Path)
	w.start("one", "000001")
	w.current("one", "000001")
	w.publish(r)
	w.fail("one", "one.example.org", "/own503", 503)
	if log := w.text("own.log"); !strings.Contains(log, "/own503") {
		t.Errorf("the include's own log has\n%s", log)
	}
}

// Debian's own nginx.conf takes what scotch adds.
func TestDistribution(t *testing.T) {
	text, err := os.ReadFile("/etc/nginx/nginx.conf")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("as root, where nginx is installed")
	}
	w := newSystemWorld(t, "", "")
	// Modules are looked for beside the configuration, and are not ours.
	conf := strings.NewReplacer("include /etc/nginx/modules-enabled/*.conf;", "", "/etc/nginx/conf.d", w.dir+"/conf.d", "/etc/nginx/sites-enabled", w.dir+"/sites-enabled",
		"/var/log/nginx", w.dir, "/run/nginx.pid", w.dir+"/other.pid").Replace(string(text))
	w.write([]deployer.File{{Path: w.dir + "/nginx.conf", Data: []byte(conf), Mode: 0o644}})
	base, err := w.n.Base()
	if err != nil {
		t.Fatal(err)
	}
	w.write(base)
	if !strings.Contains(string(file(t, base, w.n.httpFile()).Data), "\naccess_log ") {
		t.Error("nginx.conf has an access_log, and ours is not beside it")
	}
	w.test()
}

// What is read does not grow with the log, nor with other apps' failures long ago.
func TestFailuresOfLongLog(t *testing.T) {
	dir := t.TempDir()
	n := inSystem(t, "[nginx]\nfailed_log = "+dir+"/failed.log\n")
	socket := "/srv/one/current/run/uwsgi.sock"
	now := time.Now()
	serial := 0
	line := func(addr string, ended time.Time, took time.Duration) string {
		serial++
		return fmt.Sprintf(`{"ended":%d.%03d,"took":%.3f,"status":502,"path":"/caf\u00e9","socket":"%s","id":"%d"}`+"\n",
			ended.Unix(), ended.Nanosecond()/1e6, took.Seconds(), addr, serial)
	}
	write := func(name string, parts ...string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(parts, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, want int, since time.Time) {
		t.Helper()
		if got, err := n.Failures(t.Context(), socket, since); err != nil || got != want {
			t.Errorf("%s: %d failures and %v, want %d", what, got, err, want)
		}
	}
	want("no log", 0, now)

	since := now.Add(-time.Second)
	ours := line("unix:"+socket, now, 0) + line("unix:"+socket, now, 2*time.Second) + line("unix:/srv/other.sock, unix:"+socket, now, time.Second/2) +
		line("unix:"+socket+" : unix:/srv/other.sock", now, 0) + line("unix:"+socket+".old", now, 0)
	write("failed.log", ours)
	want("a short log", 2, since)

	old := strings.Repeat(line("unix:"+socket, now.Add(-time.Hour), 0), 100000)
	write("failed.log", old, ours, `{"ended":17`)
	want("a long log", 2, since)
	cost := testing.AllocsPerRun(3, func() { n.Failures(t.Context(), socket, since) })
	if cost > 20000 {
		t.Errorf("counting in %d MB takes %.0f allocations", len(old)>>20, cost)
	}
	others := strings.Repeat(line("unix:/srv/two/current/run/uwsgi.sock", now, 0), 5000)
	write("failed.log", old, ours, others)
	want("a log with much of another app", 2, since)

	// A rotation under way: what is in both files counts once, and a line that
	// lies across them counts.
	write("failed.log", ours, others)
	write("failed.log.1", old, ours)
	want("a rotation half way", 2, since)
	write("failed.log.1", old, ours[:200])
	write("failed.log", ours[200:])
	want("after a rotation", 2, since)

	// More failures than are read: many are enough to know.
	write("failed.log.1", "")
	var many strings.Builder
	for many.Len() < failedMost+1<<20 {
		many.WriteString(line("unix:"+socket, now, 0))
	}
	write("failed.log", many.String())
	if got, err := n.Failures(t.Context(), socket, since); err != nil || got < 10000 || got >= serial {
		t.Errorf("of a flood %d failures are counted, %v", got, err)
	}
}
