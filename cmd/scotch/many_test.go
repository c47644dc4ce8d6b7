package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"scotch/bench/traffic"
)

// gatedBuild notes in a file that all apps share when a deploy has one of the
// server's slots, and that it is about to give it back. No deploy goes on before
// the gate is open.
const gatedBuild = `[app]
build = echo "begin $$SCOTCH_APP" >> %[1]s/slots; while ! test -e %[1]s/gate; do sleep 0.05; done
release = echo "end $$SCOTCH_APP" >> %[1]s/slots
`

// 20 pushes to 20 apps at once: all go live, each app serves its own, at most
// [server] deploys of them work at a time and the others are told.
func TestTwentyPushesAtOnce(t *testing.T) {
	t.Parallel()
	const apps, wide = 20, 2
	w := newPushWorld(t)
	w.configureServer("deploys", fmt.Sprint(wide))
	w.serve()
	projects := make([]*project, apps)
	for i := range projects {
		name := fmt.Sprintf("app%d", i)
		projects[i] = w.project(name, name)
		projects[i].commit("", "One", map[string]string{
			"app.py": loadedVersion("this is "+name, ""), "scotch.cfg": fmt.Sprintf(gatedBuild, w.home),
		})
	}
	begin := time.Now()
	outputs := make([]*lockedBuffer, apps)
	statuses := make([]int, apps)
	var wg sync.WaitGroup
	for i, p := range projects {
		outputs[i] = &lockedBuffer{}
		wg.Go(func() { statuses[i] = p.pushTo(outputs[i]) })
	}
	const told = "waiting for one of the server's 2 deploy slots"
	waits := func() (n int) {
		for _, out := range outputs {
			if strings.Contains(out.String(), told) {
				n++
			}
		}
		return n
	}
	working := func() int {
		slots, _ := os.ReadFile(filepath.Join(w.home, "slots"))
		return strings.Count(string(slots), "begin")
	}
	eventually(time.Minute, func() bool { return waits() == apps-wide && working() == wide })
	if n := waits(); n != apps-wide {
		t.Errorf("%d pushes are told that they wait for a slot, %d do", n, apps-wide)
	}
	if err := os.WriteFile(filepath.Join(w.home, "gate"), nil, 0o644); err != nil {
		t.Error(err)
	}
	wg.Wait()
	t.Logf("%d pushes at once, %d at a time: %s", apps, wide, time.Since(begin).Round(time.Millisecond))
	for i, p := range projects {
		if out := outputs[i].String(); statuses[i] != 0 || !strings.Contains(out, "live at") {
			t.Errorf("the push to %s exits with %d\n%s", p.app, statuses[i], out)
			continue
		}
		if status, body, _, err := w.request(p.app+".localhost", "/"); err != nil || status != 200 || body != "this is "+p.app+"\n" {
			t.Errorf("%s answers %d %q %v", p.app, status, body, err)
		}
		if id := p.git("rev-parse", "HEAD"); !strings.HasPrefix(p.git("ls-remote", "scotch", "refs/heads/main"), id) {
			t.Errorf("the branch of %s is not at what was pushed", p.app)
		}
	}
	slots, err := os.ReadFile(filepath.Join(w.home, "slots"))
	if err != nil {
		t.Fatal(err)
	}
	now, most := 0, 0
	for line := range strings.Lines(string(slots)) {
		if strings.HasPrefix(line, "begin") {
			now++
		} else {
			now--
		}
		most = max(most, now)
	}
	if most != wide || now != 0 {
		t.Errorf("at most %d deploys worked at a time, [server] deploys = %d; %d did not end\n%s", most, wide, now, slots)
	}
}

// Several people push other commits on top of the same one at the very same
// moment: one of them goes live and each other is told to fetch first, as git
// itself does it. The same commit from several is no conflict.
func TestPushesToOneAppAtOnce(t *testing.T) {
	t.Parallel()
	const people = 4
	w := newPushWorld(t)
	w.serve()
	base := w.project("shared", "base")
	first := base.commit("", "One", map[string]string{"app.py": loadedVersion("one", "")})
	if out, status := base.push(); status != 0 {
		t.Fatal(out)
	}
	all := make([]*project, people)
	for i := range all {
		all[i] = w.project("shared", fmt.Sprintf("person%d", i))
		all[i].git("fetch", "-q", "scotch", "main")
	}
	release := 1
	for round := range envNumber(t, "SCOTCH_ROUNDS", 2) {
		same := round%2 == 1
		ids := make([]string, people)
		for i, p := range all {
			text := fmt.Sprintf("round %d", round)
			if !same {
				text += fmt.Sprintf(", person %d", i)
			}
			if i > 0 && same {
				p.git("fetch", "-q", all[0].dir, "HEAD")
				p.git("reset", "-q", "--hard", "FETCH_HEAD")
				ids[i] = ids[0]
				continue
			}
			p.git("fetch", "-q", "scotch", "main")
			ids[i] = p.commit(first, text, map[string]string{"app.py": loadedVersion(text, "")})
		}
		w.step("%d people push at once, the same commit: %v", people, same)
		outs, statuses := make([]string, people), make([]int, people)
		var wg sync.WaitGroup
		for i, p := range all {
			wg.Go(func() { outs[i], statuses[i] = p.push() })
		}
		wg.Wait()
		var winner string
		for i := range all {
			switch {
			case statuses[i] == 0:
				if winner != "" && winner != ids[i] {
					t.Errorf("round %d: more than one went live", round)
				}
				winner = ids[i]
			case same || statuses[i] != 1 || !strings.Contains(outs[i], "fetch first"):
				t.Errorf("round %d: the push of person %d exits with %d\n%s", round, i, statuses[i], outs[i])
			}
		}
		if winner == "" {
			t.Fatalf("round %d: nobody went live\n%s", round, outs)
		}
		release++
		list := w.releases("shared")
		if list[0].State != "live" || list[0].Commit != winner || list[0].Release != release {
			t.Errorf("round %d: the releases are %+v, want v%d of %s live", round, list, release, winner)
		}
		if now := all[0].git("ls-remote", "scotch", "refs/heads/main"); !strings.HasPrefix(now, winner) {
			t.Errorf("round %d: the branch is %s, %s is live", round, now, winner)
		}
		if _, body, _, err := w.request("shared.localhost", "/"); err != nil || !strings.HasPrefix(body, fmt.Sprintf("round %d", round)) {
			t.Errorf("round %d: it answers %q %v", round, body, err)
		}
		first = winner
	}
}

// CONTRACT 6.4: the server goes and comes in the middle of slow requests and of
// an upload, by SIGTERM and by SIGKILL, and none of them notices.
func TestServeRestartedMidRequest(t *testing.T) {
	t.Parallel()
	w := newPushWorld(t)
	w.serve()
	p, plan := w.project("steady", "steady"), &traffic.Schedule{}
	p.commit("", "One", map[string]string{"app.py": loadedVersion("one", "")})
	if out, status := p.push(); status != 0 {
		t.Fatal(out)
	}
	plan.May("one")
	pid := w.livePID("steady")
	var quickKinds, slowKinds []traffic.Kind
	for _, k := range traffic.Kinds() {
		if k.Fresh {
			slowKinds = append(slowKinds, k)
		} else {
			quickKinds = append(quickKinds, k)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		// On a machine that takes more than 3 s for it the slow ones may be over.
		for spans, try := false, 0; !spans && try < 3; try++ {
			quick, slow := w.traffic("steady", plan, quickKinds...), w.traffic("steady", plan, slowKinds...)
			if !eventually(20*time.Second, func() bool { return slow.Connected() == len(slowKinds) && quick.Total() > 50 }) {
				t.Error("the traffic does not begin")
			}
			w.step("%s, start", sig)
			err := w.end(sig)
			if err == nil {
				err = w.start()
			}
			spans = slow.Total() == 0
			for _, tr := range []*traffic.Load{quick, slow} {
				for _, why := range tr.End() {
					t.Errorf("%s: %s", sig, why)
				}
				t.Logf("%s: %s", sig, tr)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !spans && try == 2 {
				t.Errorf("%s: slow requests were over before the server was back: this shows nothing", sig)
			}
			if now := w.livePID("steady"); now != pid {
				t.Errorf("after %s the app's process is %d, it was %d", sig, now, pid)
			}
		}
	}
}

// eventually asks again and again until it is so, or the time is over.
func eventually(patience time.Duration, so func() bool) bool {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if so() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
