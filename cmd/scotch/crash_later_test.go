package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a killed server had left, and the next one took for something else.

// dies waits for the end of a server that is to be killed at an operation.
func (w *crashWorld) dies(at string) {
	w.t.Helper()
	if !w.died(20 * time.Second) {
		w.t.Fatalf("the server was not killed at %s", at)
	}
}

// waits returns once what is wrong no longer is.
func (w *crashWorld) waits(wrong func() string) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for wrong() != "" {
		if time.Now().After(deadline) {
			w.t.Fatal(wrong())
		}
		time.Sleep(20 * time.Millisecond) // processes, by themselves: there is no event to wait for
	}
}

func (w *crashWorld) toServe(text string) {
	w.t.Helper()
	w.waits(func() string {
		if got := w.serves(); got != text {
			return fmt.Sprintf("blog answers %q, want %q", got, text)
		}
		return ""
	})
}

// A stopped app that was pushed to stayed stopped when the server was killed between
// the switch and the removal of its mark: current, refs and releases said v2, and it
// answered 503.
func TestKilledBeforeAStoppedAppIsUnmarked(t *testing.T) {
	program := buildFailpoints(t)
	w := newCrashWorld(t, program)
	w.open()
	for n, at := range []string{"write-release", "start-app"} {
		w.expect(w.serves(), stoppedAnswer)
		w.must("stop", "blog")
		w.settle()
		text := fmt.Sprintf("started %d", n)
		w.version(text)
		w.expect(stoppedAnswer, text)
		w.arm("kill", at)
		w.blog.push()
		w.dies(at)
		w.again()
		w.toServe(text)
		w.verify("killed at " + at)
	}
	// One that is stopped stays so.
	w.expect(w.serves(), stoppedAnswer)
	w.must("stop", "blog")
	if err := w.end(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.again()
	w.settle()
	w.toServe(stoppedAnswer)
}

// A start that failed ended the apps and the nginx that an earlier server had left
// serving.
func TestFailedStartLeavesWhatServes(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	if err := w.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// So that the next start has a file of nginx's to write.
	found, _ := filepath.Glob(filepath.Join(w.dir, "run", "nginx", "scotch-*.conf"))
	if len(found) == 0 {
		t.Fatal("there are no files of nginx")
	}
	was, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(found[0], append(was, "# changed\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	w.arm("fail", "write-web-file")
	if err := w.start(); err == nil {
		t.Fatal("it starts")
	}
	w.server = nil
	if got := w.serves(); got != "v0" {
		t.Errorf("after a start that failed blog answers %q", got)
	}
	w.again()
	w.verify("the next start")
}

// A watch that a killed server had left was not gone on with where the new instance
// had died meanwhile: the old one, which was warm and well, was ended.
func TestWatchGoesOnAfterItsInstanceDied(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	w.expect("v0", "v1")
	w.guards[0].loosen()
	w.bodies[w.blog.commit("", "v1", map[string]string{"app.py": fmt.Sprintf(crashApp, "v1"), "scotch.cfg": "[health]\nwatch = 600\n"})] = "v1"
	if out, status := w.blog.push(); status != 0 {
		t.Fatal(out)
	}
	w.guards[0].pause()
	pid := w.livePID("blog")
	if err := w.end(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(-pid, syscall.SIGKILL)
	w.again()
	w.waits(func() string {
		if out, _ := w.scotch("releases", "blog"); !strings.Contains(out, "was taken back by scotch") {
			return "v2 was not taken back:\n" + out
		}
		return ""
	})
	w.toServe("v0")
}

// A virtualenv that was live was removed by a start that could not read its record.
func TestStartLeavesAVirtualenvThatIsInUse(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	live, err := w.live("blog")
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(live.Venv, "scotch-venv.json")
	for _, damage := range []func() error{
		func() error { return os.WriteFile(record, nil, 0o644) },
		func() error { return os.Remove(record) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if err := w.end(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.again()
		w.settle()
		if !exists(filepath.Join(live.Venv, "pyvenv.cfg")) {
			t.Fatal("the virtualenv of what is live is gone")
		}
	}
	// The next deploy makes one of its own beside it.
	w.version("v1")
	w.expect("v0", "v1")
	if out, status := w.blog.push(); status != 0 {
		t.Fatal(out)
	}
	w.toServe("v1")
}

// A rollback that holds was not held where the server was killed right after the
// switch: the next push brought back what somebody had just taken back.
func TestKilledRollbackHolds(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	w.version("v1")
	w.expect("v0", "v1")
	if out, status := w.blog.push(); status != 0 {
		t.Fatal(out)
	}
	w.settle()
	w.expect("v1", "v0")
	w.arm("kill", "annotate-release")
	w.scotch("rollback", "blog", "--hold", "v1 is bad")
	w.dies("annotate-release")
	w.again()
	w.toServe("v0")
	w.version("v2")
	if out, status := w.blog.push(); status != 1 || !strings.Contains(out, "v1 is bad") {
		t.Errorf("a push after it exits with %d:\n%s", status, out)
	}
	w.must("unlock", "blog")

	// One that fails leaves the lock that was there.
	w.must("lock", "blog", "a first reason")
	w.arm("fail", "switch")
	if out, status := w.scotch("rollback", "blog", "v2", "--hold", "another"); status == 0 {
		t.Errorf("it does not fail:\n%s", out)
	}
	w.disarm()
	if out, _ := w.blog.push(); !strings.Contains(out, "a first reason") {
		t.Errorf("after a rollback that failed a push says:\n%s", out)
	}
	w.must("unlock", "blog")
}
