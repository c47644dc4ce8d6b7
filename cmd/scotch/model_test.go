package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Random sequences of what people and accidents do to a server, against a simple
// model: what serves, refs, numbers and lists are compared after each step. One
// sequence is always the same, the other one is new each time. SCOTCH_SEED runs
// one again, SCOTCH_STEPS makes them longer.
func TestModel(t *testing.T) {
	t.Parallel()
	steps := envNumber(t, "SCOTCH_STEPS", 25)
	seeds := []uint64{1, uint64(rand.Uint32())}
	if os.Getenv("SCOTCH_SEED") != "" {
		seeds = []uint64{seedOf(t)}
	}
	for i, seed := range seeds {
		t.Run([]string{"same", "new"}[i], func(t *testing.T) {
			t.Parallel()
			t.Logf("SCOTCH_SEED=%d SCOTCH_STEPS=%d does it again", seed, steps)
			m := &model{pushWorld: newPushWorld(t), random: rand.New(rand.NewPCG(seed, 0))}
			m.step("SCOTCH_SEED=%d", seed)
			m.serve()
			for _, name := range []string{"red", "green", "blue"} {
				m.apps = append(m.apps, &modelApp{name: name, p: m.project(name, name)})
			}
			m.play(steps)
		})
	}
}

// play does random steps, until one goes wrong.
func (m *model) play(steps int) {
	operations := []struct {
		weight int
		do     func(*modelApp)
	}{
		{24, m.push}, {10, m.pushFails}, {4, m.pushOld}, {3, m.pushSame}, {4, m.deployAgain},
		{12, m.rollback}, {4, m.lock}, {6, m.restart}, {5, m.stop}, {6, m.startApp},
		{4, m.killServer}, {2, m.interrupt}, {6, m.killApp}, {5, m.killServerInPush}, {3, m.destroy}, {3, m.create},
	}
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	for i := 0; i < steps && !m.t.Failed(); i++ {
		// Two thirds of what is done is done to one app: its history gets long.
		a := m.apps[max(0, m.random.IntN(len(m.apps)+3)-3)]
		if a.live == nil && m.random.IntN(2) == 0 {
			m.push(a) // little can be done to what was never deployed
		}
		at := m.random.IntN(total)
		for _, o := range operations {
			if at -= o.weight; at < 0 {
				o.do(a)
				break
			}
		}
		m.check()
		m.checkRemote(a)
	}
	if !m.t.Failed() {
		m.checkEnd()
	}
}

// do runs a command whose status the model knows.
func (m *model) do(a *modelApp, ok bool, args ...string) string {
	m.t.Helper()
	m.step("%v, with %s", args, a)
	out, status := m.scotch(args...)
	if want := map[bool]int{true: 0, false: 1}[ok]; status != want {
		m.t.Fatalf("%s\nscotch %v exits with %d, want %d\n%s", a, args, status, want, out)
	}
	return out
}

// next makes a commit that would serve a new text.
func (m *model) next(a *modelApp, parent, more string) *modelRelease {
	m.n++
	r := &modelRelease{text: fmt.Sprintf("%s %d", a.name, m.n), watch: []int{0, 0, 0, 1, 30}[m.random.IntN(5)]}
	if m.watch > 0 {
		r.watch = m.watch
	}
	cfg := fmt.Sprintf("[health]\nwatch = %d\n", r.watch)
	if r.reports = m.random.IntN(6) == 0; r.reports {
		cfg += "[app]\nrelease = true\n"
	}
	if parent == "" && a.live != nil {
		parent = a.live.commit
	}
	files := map[string]string{"app.py": loadedVersion(r.text, more), "scotch.cfg": cfg}
	switch more {
	case "build":
		files["scotch.cfg"], files["app.py"] = "[app]\nbuild = exit 3\n", loadedVersion(r.text, "")
	case "release":
		files["scotch.cfg"], files["app.py"] = "[app]\nrelease = exit 3\n", loadedVersion(r.text, "")
	}
	r.commit = a.p.commit(parent, r.text, files)
	return r
}

// goes pushes what is checked out, which goes live unless the app is locked.
func (m *model) goes(a *modelApp, r *modelRelease, flags ...string) {
	m.step("push %q, watch %d, release command %v, %v, to %s", r.text, r.watch, r.reports, flags, a)
	out, status := a.p.push(flags...)
	if a.locked {
		if status != 1 || !strings.Contains(out, "locked by") {
			m.t.Fatalf("%s\nthe push exits with %d\n%s", a, status, out)
		}
		return
	}
	if status != 0 || !strings.Contains(out, "live at") {
		m.t.Fatalf("%s\nthe push exits with %d\n%s", a, status, out)
	}
	a.there = true
	a.went(r)
}

func (m *model) push(a *modelApp) {
	if a.locked && m.random.IntN(2) == 0 {
		m.lock(a) // unlocks it
	}
	m.goes(a, m.next(a, "", ""))
}

func (m *model) pushFails(a *modelApp) {
	how := []string{"raise RuntimeError('as planned')", "STATUS = '500 As Planned'", "build", "release"}[m.random.IntN(4)]
	m.next(a, "", how)
	m.step("push what fails (%s) to %s", how, a)
	out, status := a.p.push()
	why := "deploy failed in"
	if a.locked {
		why = "locked by"
	}
	if status != 1 || !strings.Contains(out, why) {
		m.t.Fatalf("%s\nthe push exits with %d\n%s", a, status, out)
	}
	a.there = true // made by the push
	if !a.locked {
		a.unwatched()
	}
}

// pushOld pushes on top of an older release: refused without --force.
func (m *model) pushOld(a *modelApp) {
	if a.live == nil {
		return
	}
	old := a.releases[m.random.IntN(len(a.releases))]
	if old.commit == a.live.commit || a.p.git("merge-base", old.commit, a.live.commit) != old.commit {
		return
	}
	r := m.next(a, old.commit, "")
	m.step("push on top of v%d to %s", old.number, a)
	if out, status := a.p.push(); status != 1 || !strings.Contains(out, "rejected") {
		m.t.Fatalf("%s\nthe push exits with %d\n%s", a, status, out)
	}
	if m.random.IntN(2) == 0 {
		m.goes(a, r, "--force")
	}
}

// pushSame pushes what is live already: git sends nothing.
func (m *model) pushSame(a *modelApp) {
	if a.live == nil {
		return
	}
	a.p.git("reset", "-q", "--hard", a.live.commit)
	m.step("push what is live to %s", a)
	if out, status := a.p.push(); status != 0 || !strings.Contains(out, "up-to-date") {
		m.t.Fatalf("%s\nthe push exits with %d\n%s", a, status, out)
	}
}

func (m *model) deployAgain(a *modelApp) {
	ok := a.live != nil && !a.locked
	m.do(a, ok, "deploy", a.name)
	if ok {
		again := *a.live
		a.went(&again)
	} else if a.there && !a.locked {
		a.unwatched()
	}
}

func (m *model) rollback(a *modelApp) {
	if a.live == nil {
		m.do(a, false, "rollback", a.name)
		return
	}
	var target *modelRelease
	args := []string{"rollback", a.name}
	if m.random.IntN(2) == 0 {
		for _, r := range a.releases[:a.live.number-1] {
			if !r.undone {
				target = r // the last one
			}
		}
		if target == nil && a.live.number > 1 {
			target = a.releases[a.live.number-2] // taken back too, but better than none
		}
	} else {
		target = a.releases[m.random.IntN(len(a.releases))]
		args = append(args, fmt.Sprintf("v%d", target.number))
	}
	ok := target != nil && target != a.live
	if ok && !a.kept(target) {
		return // it may be there still
	}
	m.do(a, ok, args...)
	if ok {
		before := a.live
		a.serves(target)
		before.undone = target.number < before.number // a way forward takes nothing back
	}
}

func (m *model) lock(a *modelApp) {
	if a.locked {
		m.do(a, true, "unlock", a.name)
		a.locked = false
		return
	}
	m.do(a, a.there, "lock", a.name, "for the model")
	a.locked = a.there
}

func (m *model) restart(a *modelApp) {
	m.do(a, a.live != nil, "restart", a.name)
	if a.live != nil {
		a.serves(a.live)
	}
}

func (m *model) stop(a *modelApp) {
	m.do(a, a.live != nil, "stop", a.name)
	if a.live != nil {
		a.unwatched()
		a.stopped = true
	}
}

func (m *model) startApp(a *modelApp) {
	m.do(a, a.live != nil, "start", a.name)
	if a.stopped {
		a.serves(a.live)
	}
}

// killServer ends the server without its apps. They answer meanwhile.
func (m *model) killServer(*modelApp) {
	sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[m.random.IntN(2)]
	m.step("%s for the server", sig)
	if err := m.end(sig); err != nil {
		m.t.Fatal(err)
	}
	for _, a := range m.apps {
		m.checkAnswer(a, 0)
	}
	m.serve()
}

// interrupt ends the server with its apps: a reboot.
func (m *model) interrupt(*modelApp) {
	m.step("SIGINT for the server and all its apps")
	if err := m.end(syscall.SIGINT); err != nil {
		m.t.Fatal(err)
	}
	m.serve()
	for _, a := range m.apps {
		a.unwatched()
		m.checkAnswer(a, 30*time.Second)
	}
}

// killApp ends the process that serves. It is started again, or, within the
// watch, what was before serves again.
func (m *model) killApp(a *modelApp) {
	if !a.locked && m.random.IntN(2) == 0 {
		// Most watches are short or over by now: one that is not.
		m.watch = 30
		m.push(a)
		m.watch = 0
	}
	if a.live == nil || a.stopped {
		return
	}
	pid := m.livePID(a.name)
	if pid == 0 {
		m.t.Fatalf("%s\nhas no process", a)
	}
	yes, surely := a.takenBack()
	m.step("kill -9 of %s, taken back %v, surely %v", a, yes, surely)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
	if !surely {
		m.t.Logf("either may serve now")
		yes = m.settled(a)
	}
	if yes {
		before := a.live
		a.serves(a.warm)
		before.undone = true
	} else {
		a.unwatched()
	}
	m.settle(a, pid)
}

// settled waits until an app whose process was killed serves what it is going
// to, and tells whether that is what was warm.
func (m *model) settled(a *modelApp) bool {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, r := range m.releases(a.name) {
			if r.State == "live" && r.Release == a.warm.number {
				return true
			}
		}
		if pid := m.livePID(a.name); pid != 0 && time.Until(a.until) < -time.Second {
			return false
		}
	}
	return false
}

// settle waits for what follows from a kill of pid: another process, its answer,
// and the record of it. Workers answer for a moment without their master.
func (m *model) settle(a *modelApp, pid int) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if now := m.livePID(a.name); now != 0 && now != pid {
			break
		}
	}
	m.checkAnswer(a, 30*time.Second)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		list, same := m.releases(a.name), true
		for _, r := range list {
			same = same && (r.Undone != nil) == a.releases[r.Release-1].undone
		}
		if same && m.livePID(a.name) != 0 {
			return
		}
	}
}

// killServerInPush kills the server at any moment of a push. What git was told
// holds; where it was told nothing, the release is there or not, but whole.
func (m *model) killServerInPush(a *modelApp) {
	r := m.next(a, "", "")
	after := time.Duration(m.random.IntN(1500)) * time.Millisecond
	m.step("push %q, watch %d, with SIGKILL for the server after %s, to %s", r.text, r.watch, after, a)
	var out lockedBuffer
	status := make(chan int, 1)
	go func() { status <- a.p.pushTo(&out) }()
	time.Sleep(after)
	if err := m.end(syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
	got := <-status
	m.serve()
	text := out.String()
	was := a.there
	a.there = a.there || m.listed(a)
	live := false
	if a.there {
		list := m.releases(a.name)
		live = len(list) == len(a.releases)+1 && list[0].Commit == r.commit && list[0].State == "live"
	}
	m.step("the push exited with %d, live: %v", got, live)
	switch {
	case got == 0 && !live:
		m.t.Fatalf("%s\nwas told that it is live, and it is not\n%s", a, text)
	case live && (a.locked || strings.Contains(text, "remote rejected")):
		m.t.Fatalf("%s\nwas told that it is refused, and it is live\n%s", a, text)
	}
	if live {
		a.went(r)
	}
	a.vague = true
	if !was && a.there && a.live == nil {
		m.step("the killed push made %s", a.name)
	}
	m.checkAnswer(a, 10*time.Second)
}

func (m *model) listed(a *modelApp) bool {
	return strings.Contains(m.must("list", "--json"), fmt.Sprintf("%q", a.name))
}

func (m *model) destroy(a *modelApp) {
	args := []string{"destroy", a.name, "--force"}
	if m.random.IntN(2) == 0 {
		args = append(args, "--purge")
	}
	m.do(a, a.there, args...)
	*a = modelApp{name: a.name, p: a.p}
}

func (m *model) create(a *modelApp) {
	m.do(a, !a.there, "create", a.name)
	a.there = true
}
