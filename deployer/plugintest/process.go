package plugintest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"scotch/deployer"
)

func process(t *testing.T, name, script string, args ...string) deployer.Process {
	dir := t.TempDir()
	return deployer.Process{
		Name: name, Record: filepath.Join(dir, "record"), Log: filepath.Join(dir, "log"),
		Args: sh(script, args...), Dir: dir, Env: []string{path}, Grace: 20 * time.Second,
	}
}

func testStart(t *testing.T, open func(t *testing.T) deployer.Runner) {
	f := newFIFO(t)
	p := process(t, "blog/1", `trap "echo bye; exit 0" TERM; echo out; echo err >&2; echo $$ >"$1"; while :; do sleep 1000 & wait $!; done`, f.path)
	if err := os.WriteFile(p.Log, []byte("earlier\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	got := start(t, open(t), p)
	if pid := f.pid(t); pid != got.PID() {
		t.Errorf("PID is %d, it says %d", got.PID(), pid)
	}
	if since := got.Since(); since.Before(before.Add(-time.Second)) || since.After(time.Now().Add(time.Second)) {
		t.Errorf("since %s", since)
	}
	select {
	case <-got.Done():
		t.Fatal("it has ended by itself")
	default:
	}
	if got.Err() != nil {
		t.Errorf("while it runs: %v", got.Err())
	}
	if err := got.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-got.Done():
	default:
		t.Error("stopped, and not done")
	}
	if got.Err() != nil {
		t.Errorf("it exited with 0: %v", got.Err())
	}
	if err := got.Stop(t.Context()); err != nil {
		t.Errorf("a second stop: %v", err)
	}
	if err := got.Signal(int(syscall.SIGTERM)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal to a process that has ended: %v", err)
	}
	if b, _ := os.ReadFile(p.Log); string(b) != "earlier\nout\nerr\nbye\n" {
		t.Errorf("the log is %q", b)
	}
}

func testErr(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	for script, want := range map[string]string{
		`exit 22`:    "exited with 22",
		`kill -9 $$`: "killed by SIGKILL",
		`exit 0`:     "",
	} {
		p := process(t, "blog/1", script)
		got := start(t, r, p)
		done(t, got)
		if err := got.Err(); fmt.Sprint(err) != want && (err != nil || want != "") {
			t.Errorf("%s: %v", script, err)
		}
		info, err := os.Stat(p.Log)
		if err != nil || info.Mode().Perm()&^0o640 != 0 {
			t.Errorf("the log: %v %v", info, err)
		}
	}
	p := process(t, "blog/1", `exit 0`)
	p.Args = []string{"no-such-program"}
	if _, err := r.Start(p); err == nil {
		t.Error("a program that is not there was started")
	}
}

// An instance that ended is started again under its name, also right after
// somebody killed it.
func testAgain(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	f := newFIFO(t)
	p := process(t, "blog-api/000001", `echo $$ >"$1"; exec sleep 1000`, f.path)
	last := 0
	for range 3 {
		got := start(t, r, p)
		pid := f.pid(t)
		if pid != got.PID() || pid == last {
			t.Errorf("PID is %d, it says %d, the last one was %d", got.PID(), pid, last)
		}
		last = pid
		syscall.Kill(pid, syscall.SIGKILL)
		done(t, got)
		if fmt.Sprint(got.Err()) != "killed by SIGKILL" {
			t.Errorf("it ended: %v", got.Err())
		}
	}
}

func testStopGroup(t *testing.T, open func(t *testing.T) deployer.Runner) {
	f := newFIFO(t)
	// The leader ends at SIGTERM and leaves a worker and two daemons behind.
	p := process(t, "blog/1", `sleep 1000 & echo $! >"$1"; python3 -c "$2" "$1"; python3 -c "$2" "$1" bare; wait`, f.path, daemonise)
	for _, adopted := range []bool{false, true} {
		got := start(t, open(t), p)
		left := []int{f.pid(t), f.pid(t), f.pid(t)}
		if adopted {
			var err error
			if got, err = open(t).Adopt(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := got.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		for _, pid := range left {
			gone(t, pid)
		}
	}
}

func testStopStubborn(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	const script = `trap "" TERM; echo $$ >"$1"; while :; do sleep 1000; done`
	f := newFIFO(t)
	p := process(t, "blog/1", script, f.path)
	p.Grace = 200 * time.Millisecond
	got := start(t, r, p)
	f.pid(t)
	if err := got.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	gone(t, got.PID())

	p = process(t, "blog/2", script, f.path)
	p.Grace = time.Hour
	got = start(t, r, p)
	f.pid(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := got.Stop(ctx); err != nil {
		t.Error(err)
	}
	gone(t, got.PID())
}

func testAdopt(t *testing.T, open func(t *testing.T) deployer.Runner) {
	f := newFIFO(t)
	p := process(t, "blog/1", `sleep 1000 & echo $! >"$1"; wait`, f.path)
	first := start(t, open(t), p)
	worker := f.pid(t)
	second, err := open(t).Adopt(p)
	if err != nil {
		t.Fatal(err)
	}
	if second.PID() != first.PID() || !second.Since().Equal(first.Since()) {
		t.Errorf("adopted %d since %s, started %d since %s", second.PID(), second.Since(), first.PID(), first.Since())
	}
	select {
	case <-second.Done():
		t.Error("the adopted process is done")
	default:
	}
	if err := second.Signal(0); err != nil {
		t.Errorf("it can't be signalled: %v", err)
	}
	if err := second.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	done(t, second)
	gone(t, worker)
	gone(t, first.PID())
}

func testAdoptGone(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	p := process(t, "blog/1", `exit 0`)
	if _, err := r.Adopt(p); !errors.Is(err, deployer.ErrNotRunning) {
		t.Errorf("without a record: %v", err)
	}
	done(t, start(t, r, p))
	if _, err := r.Adopt(p); !errors.Is(err, deployer.ErrNotRunning) {
		t.Errorf("after its end: %v", err)
	}
}

func testStrays(t *testing.T, open func(t *testing.T) deployer.Runner) {
	const script = `sleep 1000 & echo $! >"$1"; wait`
	f := newFIFO(t)
	earlier := open(t)
	kept := process(t, "blog/1", script, f.path)
	a := start(t, earlier, kept)
	aWorker := f.pid(t)
	b := start(t, earlier, process(t, "blog/2", `python3 -c "$2" "$1"; sleep 1000 & wait`, f.path, daemonise))
	bDaemon := f.pid(t)
	errs := background(t, earlier, t.Context(), command(script, f.path))
	installer := f.pid(t)

	later := open(t)
	own := start(t, later, process(t, "shop/1", script, f.path))
	f.pid(t)
	n, err := later.Strays(t.Context(), []string{kept.Record})
	if err != nil {
		t.Fatal(err)
	}
	if n < 2 { // some count families, others all of their processes
		t.Errorf("%d strays, and there were two families", n)
	}
	gone(t, b.PID())
	gone(t, bDaemon)
	gone(t, installer)
	await(t, errs)
	for _, pid := range []int{a.PID(), aWorker, own.PID()} {
		if syscall.Kill(pid, 0) != nil {
			t.Errorf("process %d was to be kept", pid)
		}
	}
	if n, err := later.Strays(t.Context(), []string{kept.Record}); n != 0 || err != nil {
		t.Errorf("a second time: %d, %v", n, err)
	}
}
