package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"scotch/deployer"
)

// stoppedAnswer is that of an app that is stopped.
const stoppedAnswer = "status 503"

// guard asks one app all the time, over connections that stay open and over new
// ones, and judges each answer.
type guard struct {
	host, url string
	stop      chan struct{}
	wg        sync.WaitGroup

	mu      sync.Mutex
	epoch   int
	allowed []string // in the order in which they may follow; nil for anything
	loose   bool     // in any order
	asked   int
	bad     []string
}

func (w *crashWorld) guard(app, answer string) *guard {
	// Below /p/, which a later url_prefix may be.
	g := &guard{host: app + ".localhost", url: fmt.Sprintf("http://127.0.0.1:%d/p/", w.http), stop: make(chan struct{}), allowed: []string{answer}}
	for _, alive := range []bool{true, false} {
		g.wg.Go(func() { g.ask(alive) })
	}
	return g
}

func (g *guard) end() {
	close(g.stop)
	g.wg.Wait()
}

func (g *guard) expect(answers ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch++
	g.allowed, g.loose = answers, false
}

// loosen allows what may follow to follow in any order, until expect.
func (g *guard) loosen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loose = true
}

// pause lets everything pass until expect.
func (g *guard) pause() { g.expect() }

func (g *guard) paused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.allowed == nil
}

func (g *guard) now() (int, []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.epoch, g.allowed
}

func (g *guard) failures() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.bad)
}

func (g *guard) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

func (g *guard) ask(alive bool) {
	transport := &http.Transport{DisableKeepAlives: !alive}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	last, reached := -1, 0
	for {
		select {
		case <-g.stop:
			return
		case <-time.After(6 * time.Millisecond): // the machine has others to serve
		}
		epoch, allowed := g.now()
		if epoch != last {
			last, reached = epoch, 0
		}
		begin := time.Now()
		answer := answerOf(client, g.url, g.host)
		after, later := g.now()
		at := slices.Index(allowed, answer)
		// Once a new version was seen the old one does not come back.
		wrong := at < reached
		if wrong && (allowed == nil || later == nil || after != epoch && slices.Contains(later, answer)) {
			wrong = false
		}
		g.mu.Lock()
		if at > reached && !g.loose {
			reached = at
		}
		g.asked++
		if wrong {
			g.bad = append(g.bad, fmt.Sprintf("%s answered %q at %s after %s (connection kept: %t), allowed from %d on: %q",
				g.host, answer, begin.Format("05.000"), time.Since(begin), alive, reached, allowed))
		}
		g.mu.Unlock()
	}
}

// answerOf is the body of a 200, else the status or the error.
func answerOf(client *http.Client, url, host string) string {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err.Error()
	case resp.StatusCode != http.StatusOK:
		return "status " + strconv.Itoa(resp.StatusCode)
	}
	return string(body)
}

// answer asks an app once.
func (w *crashWorld) answer(app string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	return answerOf(client, fmt.Sprintf("http://127.0.0.1:%d/p/", w.http), app+".localhost")
}

// serves is what blog answers now.
func (w *crashWorld) serves() string { return w.answer("blog") }

// verify is the oracle: it returns once all that belongs together agrees, and
// fails the test where that does not become so. What a start of the server
// promises to be true when it is ready is looked at first and once.
func (w *crashWorld) verify(where string) {
	w.t.Helper()
	if wrong := w.disagreements(); len(wrong) > 0 {
		w.t.Errorf("%s:\n\t%s", where, strings.Join(wrong, "\n\t"))
	}
	deadline := time.Now().Add(15 * time.Second)
	for {
		wrong := w.unsettled()
		if len(wrong) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.t.Errorf("%s: it does not come to this:\n\t%s", where, strings.Join(wrong, "\n\t"))
			break
		}
		time.Sleep(20 * time.Millisecond) // processes, by themselves: there is no event to wait for
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// apps are those that have a file.
func (w *crashWorld) apps() []string {
	files, _ := filepath.Glob(filepath.Join(w.dir, "apps-enabled", "*.cfg"))
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".cfg"))
	}
	return names
}

func (w *crashWorld) instances(app string) string { return filepath.Join(w.dir, "instances", app) }
func (w *crashWorld) repository(app string) string {
	return filepath.Join(w.dir, "repositories", app+".git")
}

func recordOf(path string) (*deployer.Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(deployer.Record)
	return r, json.Unmarshal(data, r)
}

// live is the record of what current names, nil where there is none.
func (w *crashWorld) live(app string) (*deployer.Record, error) {
	dir := filepath.Join(w.instances(app), "current")
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return recordOf(filepath.Join(dir, "release.json"))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// disagreements are what is wrong with files and refs.
func (w *crashWorld) disagreements() []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	web := map[string]deployer.File{}
	for _, app := range w.apps() {
		live, err := w.live(app)
		if err != nil {
			add("%s: current: %v", app, err)
			continue
		}
		if live != nil {
			for _, f := range live.WebFiles {
				web[f.Path] = f
			}
			target, _ := os.Readlink(filepath.Join(w.instances(app), "current"))
			if filepath.Base(target) != live.Instance || live.App != app {
				add("%s: current names %s, its record says %s of %s", app, target, live.Instance, live.App)
			}
		}
		wrong = append(wrong, w.wrongReleases(app, live)...)
		wrong = append(wrong, w.wrongRepository(app)...)
		half := w.wrongInstances(app, live)
		if len(half) > 0 {
			// What retention no longer keeps is removed behind people's backs, also
			// after a start.
			w.settle()
			half = w.wrongInstances(app, live)
		}
		wrong = append(wrong, half...)
	}
	wrong = append(wrong, w.wrongWeb(web)...)
	wrong = append(wrong, w.leftovers()...)
	if now := w.lookAtOther(); now != w.before {
		add("other was touched: %v, was %v", now, w.before)
	}
	return wrong
}

// wrongReleases compares records, refs and what is live.
func (w *crashWorld) wrongReleases(app string, live *deployer.Record) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, app+": "+fmt.Sprintf(format, args...)) }
	refs := map[string]string{}
	out, status := w.run(w.home, "git", "--git-dir="+w.repository(app), "for-each-ref", "--format=%(refname) %(objectname)")
	if status != 0 {
		add("%s", out)
	}
	for line := range strings.Lines(out) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		refs[name] = id
	}
	files, _ := filepath.Glob(filepath.Join(w.instances(app), "releases", "v*.json"))
	for i := range files {
		path := filepath.Join(w.instances(app), "releases", fmt.Sprintf("v%d.json", i+1))
		r, err := recordOf(path)
		if err != nil {
			add("releases without a gap: %v", err)
			continue
		}
		if id := refs[fmt.Sprintf("refs/releases/v%d", i+1)]; id != r.Commit {
			add("refs/releases/v%d is %q, %s says %s", i+1, id, path, r.Commit)
		}
	}
	for name := range refs {
		if n, ok := strings.CutPrefix(name, "refs/releases/"); ok && !exists(filepath.Join(w.instances(app), "releases", n+".json")) {
			add("%s has no record", name)
		}
	}
	if live == nil {
		if len(refs) > 0 || len(files) > 0 {
			add("nothing is live, but there are %v and %v", refs, files)
		}
		return wrong
	}
	if id := refs[live.Ref]; id != live.Commit {
		add("%s is %q, live is %s", live.Ref, id, live.Commit)
	}
	kept, err := recordOf(filepath.Join(w.instances(app), "releases", fmt.Sprintf("v%d.json", live.Release)))
	if err != nil {
		add("%v", err)
	} else if kept.Instance != live.Instance {
		add("v%d.json names %s, live is %s", live.Release, kept.Instance, live.Instance)
	}
	return wrong
}

// wrongRepository looks for what a killed git leaves, and has git judge the rest.
func (w *crashWorld) wrongRepository(app string) []string {
	var wrong []string
	dir := w.repository(app)
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		if strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_") || strings.HasPrefix(name, "incoming-") || strings.HasPrefix(name, ".tmp-") {
			wrong = append(wrong, "left over: "+path)
		}
		return err
	})
	out, status := w.run(w.home, "git", "--git-dir="+dir, "fsck", "--strict", "--no-dangling", "--no-progress")
	if status != 0 || out != "" && !strings.HasPrefix(out, "notice: HEAD points to an unborn branch") {
		wrong = append(wrong, fmt.Sprintf("git fsck of %s exits with %d: %s", app, status, out))
	}
	return wrong
}

var instanceName = regexp.MustCompile(`^\d{6,}$`)

// wrongInstances looks for what is half made.
func (w *crashWorld) wrongInstances(app string, live *deployer.Record) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, app+": "+fmt.Sprintf(format, args...)) }
	dir := w.instances(app)
	entries, err := os.ReadDir(dir)
	if err != nil && live == nil {
		return nil
	}
	sources := map[string]bool{}
	for _, e := range entries {
		if !instanceName.MatchString(e.Name()) {
			continue
		}
		r, err := recordOf(filepath.Join(dir, e.Name(), "release.json"))
		if err == nil {
			sources[r.Source] = true
			for _, part := range []string{"src", "venv/scotch-venv.json", "run", "deploy.log"} {
				if _, err := os.Stat(filepath.Join(dir, e.Name(), part)); err != nil {
					add("half an instance: %v", err)
				}
			}
			if !exists(filepath.Join(dir, "releases", fmt.Sprintf("v%d.json", r.Release))) {
				add("instance %s of v%d, which never was", e.Name(), r.Release)
			}
			continue
		}
		parts, _ := os.ReadDir(filepath.Join(dir, e.Name()))
		for _, p := range parts {
			if p.Name() != "deploy.log" {
				add("half an instance: %s has %s", e.Name(), p.Name())
			}
		}
	}
	venvs, _ := filepath.Glob(filepath.Join(dir, ".venvs", "*"))
	for _, v := range venvs {
		if !exists(filepath.Join(v, "scotch-venv.json")) {
			add("half a virtualenv: %s", v)
		}
	}
	trees, _ := filepath.Glob(filepath.Join(dir, ".src", "*"))
	for _, tree := range trees {
		if !sources[tree] {
			add("nobody's source: %s", tree)
		}
	}
	return wrong
}

// webFiles are the files of nginx's configuration.
func (w *crashWorld) webFiles() map[string]bool {
	found := map[string]bool{}
	root := filepath.Join(w.dir, "run", "nginx")
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".pid") {
			found[path] = true
		}
		return nil
	})
	return found
}

// wrongWeb compares nginx's files with those that the live records name.
func (w *crashWorld) wrongWeb(wanted map[string]deployer.File) []string {
	var wrong []string
	for path := range w.webFiles() {
		if _, ok := wanted[path]; !ok && !w.base[path] && !strings.Contains(path, "/uwsgi/") && !strings.Contains(path, "/body/") {
			wrong = append(wrong, "nobody's file of nginx: "+path)
		}
	}
	for path, f := range wanted {
		have, err := os.ReadFile(path)
		if err != nil {
			wrong = append(wrong, err.Error())
		} else if !bytes.Equal(have, f.Data) {
			wrong = append(wrong, fmt.Sprintf("%s is not as its record says:\n%s", path, have))
		}
	}
	conf := filepath.Join(w.dir, "run", "nginx")
	if out, status := w.run(w.home, "nginx", "-p", conf, "-c", filepath.Join(conf, "nginx.conf"), "-t", "-q"); status != 0 {
		wrong = append(wrong, "nginx -t: "+out)
	}
	return wrong
}

// temporary is how names of files look that are to be renamed in place.
var temporary = regexp.MustCompile(`^\.[^/]*[^0-9/]\d{4,}$`)

// leftovers are temporary files.
func (w *crashWorld) leftovers() []string {
	var wrong []string
	entries, _ := os.ReadDir(w.tmp)
	for _, e := range entries {
		wrong = append(wrong, "left in TMPDIR: "+e.Name())
	}
	filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		switch name := d.Name(); {
		case name == ".venvs" || name == ".cache" || strings.HasSuffix(name, ".git"):
			return fs.SkipDir
		case temporary.MatchString(name):
			wrong = append(wrong, "left over: "+path)
		}
		return nil
	})
	return wrong
}

// unsettled are what is wrong with processes and answers.
func (w *crashWorld) unsettled() []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	sessions := map[int]string{}
	if pid := numberIn(filepath.Join(w.dir, "run", "nginx", "nginx.pid")); pid != 0 {
		sessions[pid] = "nginx"
	} else {
		add("nginx has no pid")
	}
	var list []struct {
		App, State, Instance string
		PID                  int
	}
	out := w.psJSON()
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		add("ps: %v: %s", err, out)
	}
	shown := map[string]int{}
	for _, p := range list {
		if p.State != "live" {
			add("%s: %s is %s", p.App, p.Instance, p.State)
			continue
		}
		shown[p.App] = p.PID
	}
	for _, app := range w.apps() {
		live, err := w.live(app)
		if err != nil || live == nil {
			continue
		}
		want := stoppedAnswer
		if !exists(filepath.Join(w.instances(app), "stopped")) {
			want = w.bodies[live.Commit]
			if app == "other" {
				want = "other"
			}
			var p struct{ PID int }
			data, err := os.ReadFile(filepath.Join(w.instances(app), "current", "process.json"))
			if err == nil {
				err = json.Unmarshal(data, &p)
			}
			if err != nil {
				add("%s: %v", app, err)
			}
			sessions[p.PID] = app
			if shown[app] != p.PID {
				add("%s: ps shows %d, its record says %d", app, shown[app], p.PID)
			}
		}
		if got := w.answer(app); got != want {
			add("%s answers %q, current is %q", app, got, want)
		}
	}
	seen := map[int]bool{}
	for _, pid := range w.processes() {
		if w.server != nil && pid == w.server.Process.Pid {
			continue
		}
		s := sessionOf(pid)
		if sessions[s] == "" && s != 0 {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			add("process %d of session %d is nobody's: %q", pid, s, bytes.ReplaceAll(line, []byte{0}, []byte(" ")))
		}
		seen[s] = true
	}
	for pid, what := range sessions {
		if !seen[pid] {
			add("%s does not run as %d", what, pid)
		}
	}
	return wrong
}

func numberIn(path string) int {
	data, _ := os.ReadFile(path)
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n
}

// sessionOf is the sixth field of /proc/PID/stat, 0 where there is no such process.
func sessionOf(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 4 || fields[0] == "Z" {
		return 0
	}
	n, _ := strconv.Atoi(fields[3])
	return n
}

// otherApp is what nobody may touch.
type otherApp struct {
	pid  int
	hash string
}

// lookAtOther reads all of other's files but its logs and what its process makes.
func (w *crashWorld) lookAtOther() otherApp {
	h := sha256.New()
	for _, root := range []string{w.instances("other"), w.repository("other"), filepath.Join(w.dir, "apps-enabled", "other.cfg"), filepath.Join(w.dir, "data", "other")} {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				fmt.Fprintln(h, err)
				return nil
			}
			if d.Name() == "run" && d.IsDir() || d.Name() == ".venvs" {
				return fs.SkipDir
			}
			fi, err := d.Info()
			fmt.Fprintln(h, path, fi.Mode(), err)
			switch {
			case fi.Mode()&fs.ModeSymlink != 0:
				to, _ := os.Readlink(path)
				fmt.Fprintln(h, to)
			case fi.Mode().IsRegular():
				data, err := os.ReadFile(path)
				fmt.Fprintf(h, "%x %v\n", sha256.Sum256(data), err)
			}
			return nil
		})
	}
	var p struct{ PID int }
	data, _ := os.ReadFile(filepath.Join(w.instances("other"), "current", "process.json"))
	json.Unmarshal(data, &p)
	return otherApp{p.PID, hex.EncodeToString(h.Sum(nil))}
}

// nothingOf tells what is left of a destroyed app.
func (w *crashWorld) nothingOf(app string) error {
	var left []string
	for _, path := range []string{
		w.instances(app), w.repository(app), filepath.Join(w.dir, "apps-enabled", app+".cfg"),
		filepath.Join(w.dir, "logs", app), filepath.Join(w.dir, "data", app),
	} {
		if exists(path) {
			left = append(left, path)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("of %s are left: %v", app, left)
	}
	return nil
}

// makeWheel is a wheel of nothing, so that an installer has work to do without
// any network.
func makeWheel(t *testing.T, n int) string {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	info := fmt.Sprintf("crashdep-1.%d.dist-info/", n)
	var record strings.Builder
	for _, f := range [][2]string{
		{"crashdep.py", fmt.Sprintf("VERSION = %d\n", n)},
		{info + "METADATA", fmt.Sprintf("Metadata-Version: 2.1\nName: crashdep\nVersion: 1.%d\n", n)},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: scotch\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "RECORD", ""},
	} {
		fmt.Fprintf(&record, "%s,,\n", f[0])
		if f[1] == "" {
			f[1] = record.String()
		}
		w, err := z.Create(f[0])
		if err == nil {
			_, err = io.WriteString(w, f[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// pidIn reads the record of a process, 0 where there is none.
func pidIn(path string) int {
	var p struct{ PID int }
	if data, err := os.ReadFile(path); err != nil || json.Unmarshal(data, &p) != nil {
		return 0
	}
	return p.PID
}
