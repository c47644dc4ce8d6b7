package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// doomedWorld is a server with an app, blog, that is to be destroyed.
type doomedWorld struct {
	*crashWorld
	p *project
}

func newDoomedWorld(t *testing.T, program string) *doomedWorld {
	t.Helper()
	w := &doomedWorld{crashWorld: newCrashWorld(t, program)}
	w.serve()
	w.p = w.project("blog", "doomed")
	return w
}

// alive makes blog live, with a text as its answer and in its data.
func (w *doomedWorld) alive(text string) {
	w.t.Helper()
	w.arm("log", "all")
	defer w.disarm()
	w.p.commit("", text, map[string]string{"app.py": fmt.Sprintf(crashApp, text), "scotch.cfg": crashConfig})
	if out, status := w.p.push(); status != 0 {
		w.t.Fatalf("pushing %q: %s", text, out)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "data", "blog", "text"), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.settle() // what it does behind people's backs would be counted
}

// steps are the numbers of the operations of one name in what do does, from arm on.
func (w *doomedWorld) steps(name string, do func()) []string {
	w.t.Helper()
	w.arm("log", "all")
	do()
	var all []string
	for i, op := range w.operations() {
		if op == name {
			all = append(all, strconv.Itoa(i+1))
		}
	}
	w.disarm()
	return all
}

// refuses checks that a command fails with a reason.
func (w *doomedWorld) refuses(reason string, args ...string) {
	w.t.Helper()
	if out, status := w.scotch(args...); status != 1 || !strings.Contains(out, reason) {
		w.t.Errorf("scotch %v exits with %d, without %q:\n%s", args, status, reason, out)
	}
}

// answersWith checks what blog answers and what its data holds.
func (w *doomedWorld) answersWith(text string) {
	w.t.Helper()
	if got := w.answer("blog"); got != text {
		w.t.Errorf("blog answers %q instead of %q", got, text)
	}
	if data, err := os.ReadFile(filepath.Join(w.dir, "data", "blog", "text")); string(data) != text {
		w.t.Errorf("the data of blog is %q instead of %q, %v", data, text, err)
	}
}

// restarts ends the server with all apps, as a person does, and starts it again.
func (w *doomedWorld) restarts() {
	w.t.Helper()
	if err := w.end(syscall.SIGINT); err != nil {
		w.t.Fatal(err)
	}
	if err := w.start(); err != nil {
		w.t.Fatal(err)
	}
}

// TestDestroyThatFails: a destroy that failed half way left its plan, nothing
// refused a push meanwhile, and the next start destroyed what that had brought.
func TestDestroyThatFails(t *testing.T) {
	w := newDoomedWorld(t, buildFailpoints(t))
	w.alive("v0")
	w.must("destroy", "blog", "--force") // makes directories
	w.must("create", "blog", "--from")
	w.alive("v0")
	places := w.steps("destroy-app", func() { w.must("destroy", "blog", "--force") })
	if len(places) < 5 {
		t.Fatalf("a destroy renames only at %v", places)
	}
	w.must("create", "blog", "--from")
	w.answersWith("v0")
	for k, at := range places {
		text := "v" + strconv.Itoa(k+1)
		w.alive(text)
		w.step("fails at %s", at)
		w.arm("fail", at)
		w.refuses("finish it: destroy blog --force", "destroy", "blog", "--force")
		w.disarm()
		// Nobody builds upon what the next start takes away.
		for _, args := range [][]string{
			{"create", "blog"}, {"deploy", "blog"}, {"restart", "blog"}, {"start", "blog"}, {"stop", "blog"}, {"lock", "blog", "x"},
			{"env", "blog", "set", "A=1"}, {"run", "blog", "--", "true"}, {"run", "--detach", "blog", "--", "true"}, {"key", "blog"}, {"unlock", "blog"},
		} {
			w.refuses("a destroy of app \"blog\" was begun and is not finished", args...)
		}
		w.p.commit("", "not "+text, nil)
		if out, status := w.p.push(); status == 0 || !strings.Contains(out, "destroy blog --force") {
			t.Errorf("a push exits with %d:\n%s", status, out)
		}
		if out := w.must("list"); !strings.Contains(out, "being destroyed") || !strings.Contains(out, "destroy blog --force") {
			t.Errorf("list says nothing of it:\n%s", out)
		}
		if k%2 == 0 {
			w.restarts()
		} else {
			w.must("destroy", "blog", "--force")
			if got := w.answer("blog"); got != "status 404" {
				t.Errorf("it answers %q", got)
			}
		}
		if err := w.nothingOf("blog"); err != nil {
			t.Error(err)
		}
		// All of it lies together.
		w.must("create", "blog", "--from")
		w.answersWith(text)
		if t.Failed() {
			t.FailNow()
		}
	}
	// What --purge has begun is not said to be kept, and is not kept.
	w.arm("fail", "destroy-app")
	w.refuses("destroy blog --force --purge", "destroy", "blog", "--force", "--purge")
	w.disarm()
	w.refuses("destroy blog --force --purge", "destroy", "blog", "--force")
	w.must("destroy", "blog", "--force", "--purge")
	if err := w.nothingOf("blog"); err != nil {
		t.Error(err)
	}
	w.nothingKept("blog")
}

// nothingKept checks that no destroy has left anything of an app.
func (w *doomedWorld) nothingKept(app string) {
	w.t.Helper()
	left, _ := filepath.Glob(filepath.Join(w.dir, "*", "destroyed", app+"-*"))
	if len(left) > 0 {
		w.t.Errorf("%v is left", left)
	}
}

// TestPurgeCutOff: a server that was killed while it removed what a destroy with
// --purge had renamed left that, and nothing told of it.
func TestPurgeCutOff(t *testing.T) {
	w := newDoomedWorld(t, buildFailpoints(t))
	w.alive("v0")
	w.must("destroy", "blog", "--force", "--purge") // makes directories
	w.alive("v0")
	removals := w.steps("purge-app", func() { w.must("destroy", "blog", "--force", "--purge") })
	if len(removals) < 5 {
		t.Fatalf("--purge removes only at %v", removals)
	}
	if !soak() {
		removals = []string{removals[0], removals[3], removals[len(removals)-1]}
	}
	for _, at := range append(removals, "purge-plan") {
		w.alive("v1")
		w.step("killed at %s", at)
		w.arm("kill", at)
		w.scotch("destroy", "blog", "--force", "--purge")
		if !w.died(5 * time.Second) {
			t.Fatalf("it was not killed at %s", at)
		}
		w.again()
		if err := w.nothingOf("blog"); err != nil {
			t.Error(err)
		}
		w.nothingKept("blog")
	}
}

// beside runs a command while the test goes on.
func (w *doomedWorld) beside(args ...string) *pushing {
	p := &pushing{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.out, p.status = w.scotch(args...)
	}()
	return p
}

// TestDestroyDuringAStart: a detached command that was just being started when its
// app was destroyed went on, and made the app's directory anew; a lock did so too.
func TestDestroyDuringAStart(t *testing.T) {
	w := newDoomedWorld(t, buildFailpoints(t))
	for _, c := range []struct {
		at   string
		args []string
	}{
		{"make-runs", []string{"run", "--detach", "blog", "--", "sleep", "1000"}},
		{"record-run", []string{"run", "--detach", "blog", "--", "sleep", "1000"}},
		{"lock-app", []string{"lock", "blog", "why"}},
	} {
		w.alive("v0")
		w.step("paused at %s", c.at)
		w.arm("pause", c.at)
		guest := w.beside(c.args...)
		if !w.pausedAt(guest) {
			t.Fatalf("%v was over before %s:\n%s", c.args, c.at, guest.out)
		}
		destroy := w.beside("destroy", "blog", "--force")
		for !exists(filepath.Join(w.instances("blog"), "destroying.json")) {
			select {
			case <-destroy.done:
				t.Fatalf("it did not wait for %v:\n%s", c.args, destroy.out)
			case <-time.After(5 * time.Millisecond): // a file: there is no event to wait for
			}
		}
		w.resume(guest)
		<-destroy.done
		if destroy.status != 0 {
			t.Errorf("the destroy exits with %d:\n%s", destroy.status, destroy.out)
		}
		if err := w.nothingOf("blog"); err != nil {
			t.Error(err)
		}
		for _, pid := range w.processes() {
			if env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); strings.Contains(string(env), "SCOTCH_APP=blog") {
				t.Errorf("process %d of it goes on", pid)
			}
		}
	}
}

// TestDestroyCutOffBeforeTheReload: nginx went on with the files of an app that was
// destroyed, and answered 502 until somebody else's domains changed: the start after
// a crash found the files as they should be.
func TestDestroyCutOffBeforeTheReload(t *testing.T) {
	w := newDoomedWorld(t, buildFailpoints(t))
	w.alive("v0")
	w.arm("kill", "reload-web")
	w.scotch("destroy", "blog", "--force")
	if !w.died(5 * time.Second) {
		t.Fatal("it was not killed")
	}
	w.again()
	answer := w.answer("blog")
	for deadline := time.Now().Add(20 * time.Second); answer != "status 404" && time.Now().Before(deadline); answer = w.answer("blog") {
		time.Sleep(10 * time.Millisecond) // nginx reads its files after it was told to
	}
	if answer != "status 404" {
		t.Errorf("it answers %q", answer)
	}
	if mark := filepath.Join(w.dir, "run", "reload.json"); exists(mark) {
		t.Errorf("%s is left", mark)
	}
}

// TestRestoreCutOff: a crash at the last step of create --from left an app that
// served without its file, and could neither be pushed to nor brought back.
func TestRestoreCutOff(t *testing.T) {
	w := newDoomedWorld(t, buildFailpoints(t))
	w.alive("v0")
	w.must("destroy", "blog", "--force")
	moves := w.steps("restore-app", func() { w.must("create", "blog", "--from") })
	if len(moves) < 6 {
		t.Fatalf("it renames only at %v", moves)
	}
	for k, at := range moves {
		text := "v" + strconv.Itoa(k+1)
		w.alive(text)
		w.must("destroy", "blog", "--force")
		w.step("killed at %s", at)
		w.arm("kill", at)
		w.scotch("create", "blog", "--from")
		if !w.died(5 * time.Second) {
			t.Fatalf("it was not killed at %s", at)
		}
		w.again()
		if err := w.nothingOf("blog"); err != nil {
			t.Error(err)
		}
		w.step("fails at %s", at)
		w.arm("fail", at)
		w.refuses("again", "create", "blog", "--from")
		w.disarm()
		if k > 0 {
			w.refuses("create blog --from", "create", "blog")
			w.p.commit("", "not "+text, nil)
			if out, status := w.p.push(); status == 0 || !strings.Contains(out, "create blog --from") {
				t.Errorf("a push exits with %d:\n%s", status, out)
			}
		}
		w.must("create", "blog", "--from")
		w.answersWith(text)
		if t.Failed() {
			t.FailNow()
		}
	}
}
