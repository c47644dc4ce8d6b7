package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// loadedApp answers its version in the first line and then what was sent to it.
// Its length is declared, so that an answer that is cut off shows.
const loadedApp = `import os, sys, time

VERSION = %q
%s

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(3)
    sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    answer = VERSION.encode() + b"\n" + sent
    start_response(STATUS, [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
`

func loadedVersion(version, more string) string {
	if !strings.Contains(more, "STATUS") {
		more += "\nSTATUS = \"200 OK\""
	}
	return fmt.Sprintf(loadedApp, version, more)
}

// loadTest is one run of TestSwitchesUnderLoad.
type loadTest struct {
	*pushWorld
	p      *project
	plan   *schedule
	live   string // version
	commit string // what the branch names
	n      int    // versions made
}

// CONTRACT 6.2 and 8: under constant traffic of every kind, no request is lost,
// reset or answered by a version that has no business to, while versions come
// and go, half of the deploys fail, and nginx reloads for an app beside it.
// scotch 0.3 restarted all of uWSGI for that, and failed 57,000 requests.
func TestSwitchesUnderLoad(t *testing.T) {
	t.Parallel()
	w := newPushWorld(t)
	w.serve()
	l := &loadTest{pushWorld: w, p: w.project("busy", "busy"), plan: &schedule{}}
	switches := envNumber(t, "SCOTCH_SWITCHES", 10)
	seed := seedOf(t)
	w.step("seed %d, %d switches", seed, switches)
	random := rand.New(rand.NewPCG(seed, 0))

	// Slow requests of this test alone keep four threads busy.
	w.must("create", "busy")
	w.appFile("busy", "[app]\nworkers = 2\nthreads = 8\n")
	calm, calmPlan := w.project("calm", "calm"), &schedule{}
	other := w.project("other", "other")
	for _, p := range []*project{calm, other} {
		p.commit("", "One", map[string]string{"app.py": loadedVersion("one", "")})
		if out, status := p.push(); status != 0 {
			t.Fatalf("the first push of %s: %s", p.app, out)
		}
	}
	calmPlan.may("one")
	l.deploy("")
	busy := w.traffic("busy", l.plan, everyKind()...)
	beside := w.traffic("calm", calmPlan, kind{name: "keep-alive GET", path: "/", pause: 10 * time.Millisecond},
		kind{name: "slow upload", path: "/", body: 20_000, over: 4 * time.Second, fresh: true})
	var ended atomic.Bool
	end := func() {
		if !ended.Swap(true) {
			for _, tr := range []*traffic{busy, beside} {
				bad := tr.end()
				t.Log(tr)
				for i, why := range bad {
					if i == 20 {
						t.Errorf("%s: and %d more", tr.host, len(bad)-i)
						break
					}
					t.Errorf("%s: %s", tr.host, why)
				}
			}
		}
	}
	defer end() // also after t.Fatal, before the server goes

	reload := func(what func()) {
		l.plan.beginReload()
		calmPlan.beginReload()
		what()
		l.plan.endReload()
		calmPlan.endReload()
	}
	failures := []string{"import error", "hang at import", "500 on health", "exit of the release command", "bad nginx include"}
	for i := range switches {
		if i%2 == 1 {
			l.deployFails(failures[i/2%len(failures)], reload)
		} else {
			// Old instances that are retired at once, and ones that a watch keeps warm.
			l.deploy([]string{"", "[health]\nwatch = 0\n", "[health]\nwatch = 1\n"}[random.IntN(3)])
		}
		if t.Failed() {
			return
		}
	}
	l.step("restart busy")
	w.must("restart", "busy")
	l.rollback(random)
	l.deploy("")
	l.rollback(random) // while the old one is warm

	for i, lines := range []string{
		"domains = other.localhost more.localhost\n", "domains = more.localhost\nurl_prefix = /shop/\n", "domains = *.other.localhost\n",
	} {
		reload(func() {
			l.step("other: %q", lines)
			w.appFile("other", "[app]\n"+lines)
			w.must("restart", "other")
		})
		host, path := []string{"more.localhost", "more.localhost", "any.other.localhost"}[i], []string{"/", "/shop/", "/"}[i]
		if status, body, _, err := w.request(host, path); err != nil || status != 200 || body != "one\n" {
			t.Errorf("http://%s%s: %d %q %v", host, path, status, body, err)
		}
	}
	reload(func() { // its own domains, with the switch to another version
		l.step("busy gets another domain")
		w.appFile("busy", "[app]\nworkers = 2\nthreads = 8\ndomains = busy.localhost extra.localhost\n")
		l.deploy("")
	})
	if _, body, _, err := w.request("extra.localhost", "/"); err != nil || body != l.live+"\n" {
		t.Errorf("http://extra.localhost: %q %v", body, err)
	}
	end()
	for _, tr := range []*traffic{busy, beside} {
		if len(tr.counts) == 0 {
			t.Errorf("%s was asked nothing", tr.host)
		}
	}
	if n := busy.counts["slow GET"] + busy.counts["slow upload"]; n < 10 {
		t.Errorf("only %d slow requests were answered: this shows nothing", n)
	}
}

// deploy pushes a new version that must go live.
func (l *loadTest) deploy(cfg string) {
	l.t.Helper()
	files := map[string]string{"scotch.cfg": cfg}
	version := l.version()
	files["app.py"] = loadedVersion(version, "")
	l.commit = l.p.commit(l.commit, version, files)
	l.step("push %s, which goes live, with %q", version, cfg)
	l.switches(version, func() (string, int) { return l.p.push() })
}

func (l *loadTest) version() string {
	l.n++
	return fmt.Sprintf("version %d", l.n)
}

// switches runs what must make a version live.
func (l *loadTest) switches(version string, run func() (string, int)) {
	l.t.Helper()
	if l.live != "" {
		l.plan.may(l.live, version)
	} else {
		l.plan.may(version)
	}
	out, status := run()
	if status != 0 {
		l.t.Fatalf("%s does not go live:\n%s", version, out)
	}
	l.live = version
	l.plan.may(version)
}

// deployFails pushes a version that must be refused, and never answer.
func (l *loadTest) deployFails(how string, reload func(func())) {
	l.t.Helper()
	version := l.version() + ", " + how
	files := map[string]string{"app.py": loadedVersion(version, "")}
	file, want := "[app]\nworkers = 2\nthreads = 8\n", "register"
	switch how {
	case "import error":
		files["app.py"] = loadedVersion(version, "raise RuntimeError('as planned')")
	case "hang at import":
		files["app.py"] = loadedVersion(version, "time.sleep(600)")
		files["scotch.cfg"] = "[health]\ntimeout = 2\n"
	case "500 on health":
		files["app.py"] = loadedVersion(version, "STATUS = '500 As Planned'")
	case "exit of the release command":
		files["scotch.cfg"] = "[app]\nrelease = exit 3\n"
	case "bad nginx include":
		lines := filepath.Join(l.home, "include.conf")
		if err := os.WriteFile(lines, []byte("no_such_directive on;\n"), 0o644); err != nil {
			l.t.Fatal(err)
		}
		l.appFile("busy", file+"[nginx]\ninclude = "+lines+"\n")
		defer l.appFile("busy", file)
	}
	l.p.commit(l.commit, version, files)
	l.step("push %s, which is refused", version)
	var out string
	var status int
	push := func() { out, status = l.p.push() }
	if how == "bad nginx include" {
		reload(push) // the files are put back, and nginx reads them again
	} else {
		push()
	}
	if status != 1 || !strings.Contains(out, "remote rejected") || !strings.Contains(out, "deploy failed in "+want) {
		l.t.Fatalf("%s: the push exits with %d\n%s", version, status, out)
	}
}

// rollback goes to one of the kept releases.
func (l *loadTest) rollback(random *rand.Rand) {
	l.t.Helper()
	list := l.releases("busy")
	var kept []listedRelease
	for _, r := range list {
		if r.State == "kept" {
			kept = append(kept, r)
		}
	}
	r := kept[random.IntN(min(2, len(kept)))]
	version := l.p.git("log", "-1", "--format=%s", r.Commit)
	l.step("rollback to v%d, %s", r.Release, version)
	l.switches(version, func() (string, int) { return l.scotch("rollback", "busy", fmt.Sprintf("v%d", r.Release)) })
	l.commit = r.Commit
}
