package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// crashWorld is a server that can be killed, broken or held at each of its named
// operations (failpoint.go). Two apps are asked all the time: blog, which is
// worked on, and other, which nothing may ever touch.
type crashWorld struct {
	*pushWorld
	blog   *project
	bodies map[string]string // what a commit of blog answers
	guards []*guard          // blog's, and other's
	before otherApp
	base   map[string]bool // the web server's files of no app
	tmp    string          // the server's TMPDIR
	points string          // the file of its failpoints
	ended  []string        // operations at which something was done to it
}

const (
	crashApp = `import os
TEXT = %q
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [TEXT.encode()]
`
	// No watch: an old instance would stay for ten seconds.
	crashConfig = "[health]\nwatch = 0\n"
	crashFile   = "[app]\nworkers = 1\nthreads = 2\nkeep = 2\n"
)

// soak tells that the long variants of the tests are asked for.
func soak() bool { return os.Getenv("SCOTCH_SOAK") != "" }

// buildFailpoints builds the program with its failpoints, without the race
// detector: it is started some hundred times.
func buildFailpoints(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers; run without -short")
	}
	program := filepath.Join(t.TempDir(), "scotch")
	if out, err := exec.Command("go", "build", "-tags", "failpoint", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building scotch: %v\n%s", err, out)
	}
	return program
}

func newCrashWorld(t *testing.T, program string) *crashWorld {
	t.Helper()
	w := &crashWorld{pushWorld: newPushWorldOf(t, program), bodies: map[string]string{}}
	w.points, w.tmp = filepath.Join(w.home, "failpoints"), filepath.Join(w.home, "tmp")
	if err := os.Mkdir(w.tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "SCOTCH_FAILPOINTS="+w.points, "TMPDIR="+w.tmp)
	return w
}

// open starts the server, deploys both apps and asks them from then on.
func (w *crashWorld) open() {
	w.t.Helper()
	w.serve()
	w.base = w.webFiles()
	w.must("create", "blog")
	w.must("create", "other")
	w.appFile("blog", crashFile)
	w.appFile("other", crashFile)
	other := w.project("other", "other-project")
	other.commit("", "Other", map[string]string{"app.py": fmt.Sprintf(crashApp, "other"), "scotch.cfg": crashConfig})
	if out, status := other.push(); status != 0 {
		w.t.Fatalf("pushing other: %s", out)
	}
	w.blog = w.project("blog", "blog-project")
	w.version("v0")
	if out, status := w.blog.push(); status != 0 {
		w.t.Fatalf("pushing blog: %s", out)
	}
	w.before = w.lookAtOther()
	w.guards = []*guard{w.guard("blog", "v0"), w.guard("other", "other")}
	w.t.Cleanup(func() {
		for _, g := range w.guards {
			g.end()
		}
	})
}

// version commits a version of blog that answers text, with more files.
func (w *crashWorld) version(text string, more ...string) {
	w.t.Helper()
	files := map[string]string{"app.py": fmt.Sprintf(crashApp, text), "scotch.cfg": crashConfig}
	for i := 0; i+1 < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	w.bodies[w.blog.commit("", text, files)] = text
}

// arm writes what is to happen at which of the server's operations from now on.
func (w *crashWorld) arm(action, at string) {
	w.t.Helper()
	os.Remove(w.points + ".log")
	// In one step: the server reads it at each operation.
	tmp := w.points + ".new"
	if err := os.WriteFile(tmp, []byte(action+" "+at), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, w.points); err != nil {
		w.t.Fatal(err)
	}
}

func (w *crashWorld) disarm() { os.Remove(w.points) }

// operations are the names of those since arm, in order.
func (w *crashWorld) operations() []string {
	data, _ := os.ReadFile(w.points + ".log")
	var names []string
	for line := range strings.Lines(string(data)) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			names = append(names, name)
		}
	}
	return names
}

// died tells whether the server has ended.
func (w *crashWorld) died(patience time.Duration) bool {
	select {
	case <-w.exited:
		w.server, w.ending = nil, false
		return true
	case <-time.After(patience):
		return false
	}
}

// settle returns when the server has finished what it does behind people's
// backs, or has ended.
func (w *crashWorld) settle() (ended bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for n, quiet := -1, 0; quiet < 2; {
		if w.died(100 * time.Millisecond) {
			return true
		}
		// Old instances are let go of without a named operation at first.
		if now := len(w.operations()); now == n && !strings.Contains(w.psJSON(), `"retiring"`) {
			quiet++
		} else {
			n, quiet = now, 0
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the server does not come to rest:\n%s", w.psJSON())
		}
	}
	return w.died(0)
}

func (w *crashWorld) psJSON() string {
	out, _ := w.scotch("ps", "--json")
	return out
}

// again starts the server after its end.
func (w *crashWorld) again() {
	w.t.Helper()
	w.disarm()
	if err := w.start(); err != nil {
		w.t.Fatalf("the next start: %v", err)
	}
}

// attempt is one try of something that the server is killed in, and its retry.
type attempt struct {
	do func() (out string, status int)
	// retry is do where it is nil.
	retry func() (out string, status int)
	// answers are those that blog may give meanwhile, in the order in which they
	// may follow.
	answers []string
	// holds tells what is wrong once it was done.
	holds func() error
}

// crashCase is something that a person does.
type crashCase struct {
	name string
	// open deploys what it needs.
	open func(w *crashWorld)
	// try makes the k-th attempt; what it does to blog itself is done by then.
	try func(w *crashWorld, k int) attempt
	// all tells to take each name; else those are left out that other cases take.
	// SCOTCH_SOAK takes each operation, not only each name.
	all bool
	// fails tells that operations fail and nobody is killed.
	fails bool
	// goesOn tells that a start goes on with it behind people's backs: right after it
	// refs may be on their way.
	goesOn bool
	// must are names of operations that must have been among those killed at.
	must []string
	skip func(w *crashWorld) string
}

// TestCrash kills the server at each named operation of what a person does, one
// after the other, by SIGKILL: apps answer all the time, after the next start all
// that belongs together agrees and nothing half-made is left, and the same thing
// done again succeeds. SCOTCH_SOAK=1 takes each operation of each case.
func TestCrash(t *testing.T) {
	program := buildFailpoints(t)
	cases := crashCases()
	atOnce(t, len(cases), func(i int) {
		c := cases[i]
		t.Run(c.name, func(t *testing.T) {
			w := newCrashWorld(t, program)
			w.open()
			if c.skip != nil {
				if why := c.skip(w); why != "" {
					t.Skip(why)
				}
			}
			if c.open != nil {
				c.open(w)
			}
			w.crash(c)
		})
	})
}

// atOnce calls run for 0 to n-1, some at the same time: what these tests do
// is mostly to wait for processes.
func atOnce(t *testing.T, n int, run func(i int)) {
	t.Helper()
	var all errgroup.Group
	all.SetLimit(2 * runtime.NumCPU())
	for i := range n {
		all.Go(func() error { run(i); return nil })
	}
	all.Wait()
}

func (w *crashWorld) crash(c crashCase) {
	w.t.Helper()
	if soak() {
		for k := 1; w.attempt(c, k, "kill", strconv.Itoa(k)); k++ {
		}
	} else {
		for k := 1; w.attempt(c, k, "kill", w.unseen(c)); k++ {
		}
	}
	w.t.Logf("%s: killed at %s", c.name, strings.Join(w.ended, " "))
	for _, g := range w.guards {
		w.t.Logf("%s: %d requests", g.host, g.count())
	}
	for _, name := range c.must {
		if !slices.Contains(w.ended, name) {
			w.t.Errorf("it was never killed at %q", name)
		}
	}
}

// unseen stands for the operations whose names have had their turn neither here
// nor, where c leaves that to them, in other cases.
func (w *crashWorld) unseen(c crashCase) string {
	// Killed after a rename, or after its sync, is the same but to a fail.
	done := append([]string{"new"}, w.ended...)
	if !c.fails {
		done = append(done, "switch/sync")
	}
	done = append(done, "link-source/sync", "link-venv/sync")
	if !c.all {
		for _, name := range []string{
			"make-instance", "make-run", "make-source", "link-source", "link-source/rename", "spare-source", "export", "link-venv", "sync-instance",
			"write-instance-file", "write-instance-file/rename", "start-process", "await-ready", "write-record/rename", "switch/rename",
			"write-release/rename", "start-app", "free-instance", "free-outside",
		} {
			if !slices.Contains(c.must, name) {
				done = append(done, name)
			}
		}
	}
	return strings.Join(done, " ")
}

// attempt does one thing with a failpoint, and what follows from that. It tells
// whether the server was killed.
func (w *crashWorld) attempt(c crashCase, k int, action, at string) bool {
	w.t.Helper()
	a := c.try(w, k)
	where := fmt.Sprintf("%s, attempt %d", c.name, k)
	if !w.guards[0].paused() {
		w.expect(a.answers...)
	}
	w.arm(action, at)
	w.step("%s", where)
	out, status := a.do()
	killed := false
	if status == 0 {
		killed = w.settle()
	} else {
		killed = w.died(5 * time.Second)
	}
	w.disarm()
	ops := w.operations()
	if !killed {
		if status != 0 {
			w.t.Fatalf("%s: it failed by itself:\n%s", where, out)
		}
		w.expect(w.serves())
		w.verify(where)
		w.holds(where, a)
		return false
	}
	where += " " + ops[len(ops)-1]
	w.ended = append(w.ended, ops[len(ops)-1])
	w.step("%s: killed", where)
	w.again()
	if status == 0 { // it was acknowledged
		w.holds(where+", acknowledged", a)
	}
	if c.goesOn && len(w.disagreements()) > 0 {
		w.settle()
	}
	w.verify(where)
	w.expect(append([]string{w.serves()}, a.answers[len(a.answers)-1])...)
	do := a.do
	if a.retry != nil {
		do = a.retry
	}
	if out, status := do(); status != 0 {
		w.t.Fatalf("%s: the retry fails:\n%s", where, out)
	}
	w.settle()
	w.expect(w.serves())
	w.holds(where+", retried", a)
	w.verify(where + ", retried")
	if w.t.Failed() {
		w.t.FailNow()
	}
	return true
}

func (w *crashWorld) holds(where string, a attempt) {
	w.t.Helper()
	if err := a.holds(); err != nil {
		w.t.Errorf("%s: %v", where, err)
	}
}

// expect tells what blog may answer from now on.
func (w *crashWorld) expect(answers ...string) {
	w.t.Helper()
	for _, g := range w.guards {
		if bad := g.failures(); len(bad) > 0 {
			w.t.Fatalf("%d answers were wrong, the first: %s", len(bad), bad[0])
		}
	}
	w.guards[0].expect(slices.Compact(answers)...)
}

// answers checks that blog answers text.
func (w *crashWorld) answers(text string) func() error {
	return func() error {
		if got := w.answer("blog"); got != text {
			return fmt.Errorf("blog answers %q instead of %q", got, text)
		}
		return nil
	}
}

func crashCases() []crashCase {
	important := []string{"make-instance", "export", "start-process", "await-ready", "write-record", "prepare-refs", "switch", "commit-refs", "write-release"}
	push := func(w *crashWorld) (string, int) { return w.blog.push() }
	last := func(w *crashWorld) string { return w.serves() }
	return []crashCase{
		{name: "push", all: true, must: important, try: func(w *crashWorld, k int) attempt {
			was, text := last(w), "push "+strconv.Itoa(k)
			w.version(text)
			return attempt{do: func() (string, int) { return push(w) }, answers: []string{was, text}, holds: w.answers(text)}
		}},
		{name: "dependencies", must: []string{"clear-venv", "install", "sync-venv", "record-venv", "record-venv/rename", "free-venv"}, try: func(w *crashWorld, k int) attempt {
			was, text := last(w), "wheel "+strconv.Itoa(k)
			wheel := fmt.Sprintf("crashdep-1.%d-py3-none-any.whl", k)
			w.version(text, "requirements.txt", "./"+wheel+"\n", wheel, makeWheel(w.t, k))
			return attempt{do: func() (string, int) { return push(w) }, answers: []string{was, text}, holds: w.answers(text)}
		}},
		{name: "domains", must: []string{"write-web-file", "write-web-file/rename", "remove-web-file", "mark-reload", "reload-web"}, try: func(w *crashWorld, k int) attempt {
			was, text := last(w), "domain "+strconv.Itoa(k)
			w.version(text)
			prefix := []string{"/", "/p/"}[k%2]
			w.appFile("blog", fmt.Sprintf("%sdomains = blog.localhost d%d.localhost\nurl_prefix = %s\n", crashFile, k, prefix))
			return attempt{do: func() (string, int) { return push(w) }, answers: []string{was, text}, holds: func() error {
				if status, body, _, err := w.request(fmt.Sprintf("d%d.localhost", k), "/p/"); err != nil || status != 200 || body != text {
					return fmt.Errorf("the new domain answers %d %q, %v", status, body, err)
				}
				return w.answers(text)()
			}}
		}},
		{name: "restart", must: []string{"spare-source", "link-source/rename", "start-process", "write-record", "switch/rename", "free-instance", "switch", "write-release"}, try: func(w *crashWorld, k int) attempt {
			was := last(w)
			return attempt{do: func() (string, int) { return w.scotch("restart", "blog") }, answers: []string{was}, holds: w.answers(was)}
		}},
		{name: "rollback", must: []string{"switch", "commit-refs", "annotate-release"}, open: func(w *crashWorld) {
			w.version("v1")
			w.expect("v0", "v1")
			if out, status := push(w); status != 0 {
				w.t.Fatal(out)
			}
			w.settle()
		}, try: func(w *crashWorld, k int) attempt {
			if last(w) == "v0" { // back takes something back, forward doesn't
				w.expect("v0", "v1")
				w.must("rollback", "blog", "v2")
				w.settle()
			}
			return attempt{
				do: func() (string, int) {
					out, status := w.scotch("rollback", "blog", "v1")
					if strings.Contains(out, "is live already") {
						status = 0
					}
					return out, status
				},
				answers: []string{"v1", "v0"}, holds: w.answers("v0"),
			}
		}},
		{name: "stop", must: []string{"stop-app"}, try: func(w *crashWorld, k int) attempt {
			if last(w) == stoppedAnswer {
				w.expect(stoppedAnswer, "v0")
				w.must("start", "blog")
				w.settle()
			}
			return attempt{do: func() (string, int) { return w.scotch("stop", "blog") }, answers: []string{"v0", stoppedAnswer}, holds: w.answers(stoppedAnswer)}
		}},
		{name: "start", must: []string{"switch", "start-app"}, try: func(w *crashWorld, k int) attempt {
			if last(w) != stoppedAnswer {
				w.expect("v0", stoppedAnswer)
				w.must("stop", "blog")
				w.settle()
			}
			return attempt{do: func() (string, int) { return w.scotch("start", "blog") }, answers: []string{stoppedAnswer, "v0"}, holds: w.answers("v0")}
		}},
		{name: "change", must: []string{"change-app", "switch"}, skip: func(w *crashWorld) string {
			if out, status := w.scotch("env", "blog", "set", "A=1"); status != 0 {
				return "no command changes an app's file yet: " + out
			}
			w.settle()
			return ""
		}, try: func(w *crashWorld, k int) attempt {
			return attempt{do: func() (string, int) { return w.scotch("env", "blog", "set", fmt.Sprintf("A=set %d", k)) }, answers: []string{"v0"}, holds: func() error {
				if out, _ := w.scotch("run", "blog", "--", "printenv", "A"); strings.TrimSpace(out) != fmt.Sprintf("set %d", k) {
					return fmt.Errorf("A is %q", out)
				}
				return w.answers("v0")()
			}}
		}},
		{name: "destroy", must: []string{"write-destruction", "destroy-app"}, try: func(w *crashWorld, k int) attempt {
			p := w.doomed(k)
			return attempt{
				do: func() (string, int) { return w.scotch("destroy", "--force", p.app) },
				retry: func() (string, int) {
					out, status := w.scotch("destroy", "--force", p.app)
					if strings.Contains(out, "no app") {
						status = 0 // the next start has finished it
					}
					return out, status
				},
				answers: []string{"v0"}, holds: func() error { return w.nothingOf(p.app) },
			}
		}},
		{name: "watch", goesOn: true, must: []string{"switch", "commit-refs", "annotate-release"}, try: func(w *crashWorld, k int) attempt {
			return w.dying(k)
		}},
	}
}

// doomed makes an app that is going to be destroyed.
func (w *crashWorld) doomed(k int) *project {
	w.t.Helper()
	p := w.project("doomed", fmt.Sprintf("doomed-%d", k))
	w.bodies[p.commit("", "Doomed", map[string]string{"app.py": fmt.Sprintf(crashApp, "doomed"), "scotch.cfg": crashConfig})] = "doomed"
	if out, status := p.push(); status != 0 {
		w.t.Fatalf("pushing what is to be destroyed: %s", out)
	}
	w.settle()
	return p
}

const dyingApp = `import os, signal
TEXT = %q
def app(environ, start_response):
    if environ["PATH_INFO"].endswith("/die"):
        os.kill(os.getppid(), signal.SIGKILL)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [TEXT.encode()]
`

// dying pushes a version whose process ends within its watch; what is attempted
// is scotch's own way back.
func (w *crashWorld) dying(k int) attempt {
	w.t.Helper()
	was, text := w.serves(), "dying "+strconv.Itoa(k)
	commit := w.blog.commit("", text, map[string]string{"app.py": fmt.Sprintf(dyingApp, text), "scotch.cfg": "[health]\nwatch = 20\n"})
	w.bodies[commit] = text
	w.expect(was, text)
	if out, status := w.blog.push(); status != 0 {
		w.t.Fatalf("pushing what is to die: %s", out)
	}
	live, err := w.live("blog")
	if err != nil {
		w.t.Fatal(err)
	}
	w.guards[0].pause() // its process is about to end
	then := was
	good := "good " + strconv.Itoa(k)
	return attempt{
		do: func() (string, int) {
			w.request("blog.localhost", "/p/die")
			deadline := time.Now().Add(20 * time.Second)
			for time.Now().Before(deadline) {
				if w.died(20 * time.Millisecond) {
					return "", 1
				}
				// The last thing that is done of it.
				if r, err := recordOf(filepath.Join(w.instances("blog"), "releases", fmt.Sprintf("v%d.json", live.Release))); err == nil && r.Undone != nil {
					return "", 0
				}
			}
			return "it was not taken back", 1
		},
		retry: func() (string, int) {
			w.version(good)
			then = good
			return w.blog.push()
		},
		answers: []string{was, text, good},
		holds:   func() error { return w.answers(then)() },
	}
}

// TestCrashInRecovery kills the server while it mends what a kill before left,
// at each named operation of its start.
func TestCrashInRecovery(t *testing.T) {
	program := buildFailpoints(t)
	wrecks := []string{"write-record/rename", "commit-refs"}
	atOnce(t, len(wrecks), func(i int) {
		wreck := wrecks[i]
		t.Run(strings.ReplaceAll(wreck, "/", "-"), func(t *testing.T) {
			w := newCrashWorld(t, program)
			w.open()
			for k := 1; ; k++ {
				was, text := w.serves(), fmt.Sprintf("again %d", k)
				wheel := fmt.Sprintf("crashdep-1.%d-py3-none-any.whl", k)
				w.version(text, "requirements.txt", "./"+wheel+"\n", wheel, makeWheel(t, k))
				w.appFile("blog", fmt.Sprintf("%sdomains = blog.localhost d%d.localhost\n", crashFile, k))
				w.expect(was, text)
				w.arm("kill", wreck)
				w.blog.push()
				if !w.died(5 * time.Second) {
					t.Fatalf("attempt %d: the server was not killed at %s", k, wreck)
				}
				w.arm("kill", strings.Join(append([]string{"new"}, w.ended...), " "))
				w.step("start after %s, to be killed at a new operation", wreck)
				err := w.start()
				last := err == nil && !w.settle()
				ops := w.operations()
				if !last {
					w.server = nil
					w.ended = append(w.ended, ops[len(ops)-1])
					w.again()
				}
				w.disarm()
				where := fmt.Sprintf("%s, then %v", wreck, w.ended)
				w.verify(where)
				w.expect(w.serves(), text)
				if out, status := w.blog.push(); status != 0 {
					t.Fatalf("%s: the retry fails:\n%s", where, out)
				}
				w.settle()
				w.expect(text)
				w.verify(where + ", retried")
				if last {
					break
				}
			}
			t.Logf("after %s killed again at %s", wreck, strings.Join(w.ended, " "))
			if len(w.ended) < 3 {
				t.Error("the start has fewer operations than it should have")
			}
		})
	})
}
