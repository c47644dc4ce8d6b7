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

	"scotch/bench/traffic"
)

// loadTest is one run of TestSwitchesUnderLoad.
type loadTest struct {
	*pushWorld
	p      *project
	plan   *traffic.Schedule
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
	l := &loadTest{pushWorld: w, p: w.project("busy", "busy"), plan: &traffic.Schedule{}}
	switches := envNumber(t, "SCOTCH_SWITCHES", 10)
	seed := seedOf(t)
	w.step("seed %d, %d switches", seed, switches)
	random := rand.New(rand.NewPCG(seed, 0))

	// Slow requests of this test alone keep four threads busy.
	w.must("create", "busy")
	w.appFile("busy", "[app]\nworkers = 2\nthreads = 8\n")
	calm, calmPlan := w.project("calm", "calm"), &traffic.Schedule{}
	other := w.project("other", "other")
	for _, p := range []*project{calm, other} {
		p.commit("", "One", map[string]string{"app.py": loadedVersion("one", "")})
		if out, status := p.push(); status != 0 {
			t.Fatalf("the first push of %s: %s", p.app, out)
		}
	}
	calmPlan.May("one")
	l.deploy("")
	busy := w.traffic("busy", l.plan, traffic.Kinds()...)
	beside := w.traffic("calm", calmPlan, traffic.Kind{Name: "keep-alive GET", Path: "/", Pause: 10 * time.Millisecond},
		traffic.Kind{Name: "slow upload", Path: "/", Body: 20_000, Over: 4 * time.Second, Fresh: true})
	var ended atomic.Bool
	end := func() {
		if !ended.Swap(true) {
			for _, tr := range []*traffic.Load{busy, beside} {
				bad := tr.End()
				t.Log(tr)
				for i, why := range bad {
					if i == 20 {
						t.Errorf("and %d more", len(bad)-i)
						break
					}
					t.Error(why)
				}
			}
		}
	}
	defer end() // also after t.Fatal, before the server goes

	reload := func(what func()) {
		l.plan.BeginReload()
		calmPlan.BeginReload()
		what()
		l.plan.EndReload()
		calmPlan.EndReload()
	}
	failures := traffic.Failures()
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
	for _, tr := range []*traffic.Load{busy, beside} {
		if tr.Total() == 0 {
			t.Errorf("nothing was asked: %s", tr)
		}
	}
	if n := busy.Count("slow GET") + busy.Count("slow upload"); n < 10 {
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
		l.plan.May(l.live, version)
	} else {
		l.plan.May(version)
	}
	out, status := run()
	if status != 0 {
		l.t.Fatalf("%s does not go live:\n%s", version, out)
	}
	l.live = version
	l.plan.May(version)
}

// deployFails pushes a version that must be refused, and never answer.
func (l *loadTest) deployFails(how traffic.Failure, reload func(func())) {
	l.t.Helper()
	version := l.version() + ", " + how.Name
	files := map[string]string{"app.py": loadedVersion(version, how.Python), "scotch.cfg": how.Config}
	if how.Include {
		const file = "[app]\nworkers = 2\nthreads = 8\n"
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
	if how.Include {
		reload(push) // the files are put back, and nginx reads them again
	} else {
		push()
	}
	if status != 1 || !strings.Contains(out, "remote rejected") || !strings.Contains(out, "deploy failed in register") {
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
