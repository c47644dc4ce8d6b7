package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// fullDisk is what a person reads of ENOSPC.
const fullDisk = "no space left on device"

// everything is a push that changes all that a push can: source, dependencies,
// domains.
func (w *crashWorld) everything(k int) (was, text string) {
	w.t.Helper()
	was, text = w.serves(), fmt.Sprintf("everything %d", k)
	wheel := fmt.Sprintf("crashdep-1.%d-py3-none-any.whl", k)
	w.version(text, "requirements.txt", "./"+wheel+"\n", wheel, makeWheel(w.t, k))
	w.appFile("blog", fmt.Sprintf("%sdomains = blog.localhost d%d.localhost\n", crashFile, k))
	return was, text
}

// TestFullDisk makes each named operation fail as on a full disk, one after the
// other: what a person does fails with these words and the old version serves on,
// or it succeeds where the operation is not essential. The server goes on, needs
// no restart for all to agree, and the same thing done again succeeds.
func TestFullDisk(t *testing.T) {
	program := buildFailpoints(t)
	cases := []struct {
		name string
		all  bool
		open func(w *crashWorld)
		try  func(w *crashWorld, k int) attempt
		must []string
		// until is the operation after which it ends, and but those that it leaves
		// to another case.
		until string
		but   []string
	}{
		{name: "checkout", all: true, until: "await-ready", try: func(w *crashWorld, k int) attempt {
			was, text := w.everything(k)
			return attempt{do: func() (string, int) { return w.blog.push() }, answers: []string{was, text}, holds: w.answers(text)}
		}, must: []string{"make-instance", "export", "install", "record-venv", "record-venv/rename", "start-process"}},
		{name: "register", all: true, but: []string{
			"make-instance", "make-run", "make-source", "link-source", "export", "clear-venv", "install", "sync-venv", "record-venv", "record-venv/rename",
			"link-venv", "sync-instance", "write-instance-file", "write-instance-file/rename", "start-process", "await-ready",
		}, try: func(w *crashWorld, k int) attempt {
			was, text := w.everything(k)
			return attempt{do: func() (string, int) { return w.blog.push() }, answers: []string{was, text}, holds: w.answers(text)}
		}, must: []string{"write-record", "write-web-file", "prepare-refs", "switch", "switch/sync", "commit-refs", "write-release"}},
		{name: "rollback", open: func(w *crashWorld) {
			w.version("v1")
			w.expect("v0", "v1")
			if out, status := w.blog.push(); status != 0 {
				w.t.Fatal(out)
			}
			w.settle()
		}, try: func(w *crashWorld, k int) attempt {
			was, now, to := w.serves(), "v0", "v1"
			if was == "v0" {
				now, to = "v1", "v2"
			}
			return attempt{do: func() (string, int) {
				out, status := w.scotch("rollback", "blog", to)
				if strings.Contains(out, "is live already") {
					status = 0
				}
				return out, status
			}, answers: []string{was, now}, holds: w.answers(now)}
		}, must: []string{"switch", "switch/sync"}},
		{name: "change", try: func(w *crashWorld, k int) attempt {
			file := filepath.Join(w.dir, "apps-enabled", "blog.cfg")
			before, _ := os.ReadFile(file)
			return attempt{do: func() (string, int) {
				out, status := w.scotch("env", "blog", "set", fmt.Sprintf("A=set %d", k))
				if after, _ := os.ReadFile(file); status != 0 && string(after) != string(before) {
					w.t.Errorf("the change failed, and the file is changed:\n%s", after)
				}
				return out, status
			}, answers: []string{"v0"}, holds: w.answers("v0")}
		}, must: []string{"change-app", "change-app/rename", "switch/sync"}},
		{name: "destroy", all: true, try: func(w *crashWorld, k int) attempt {
			p := w.doomed(k)
			return attempt{do: func() (string, int) {
				out, status := w.scotch("destroy", "--force", p.app)
				if strings.Contains(out, "no app") {
					status = 0
				}
				return out, status
			}, answers: []string{"v0"}, holds: func() error { return w.nothingOf(p.app) }}
		}, must: []string{"write-destruction", "destroy-app"}},
	}
	atOnce(t, len(cases), func(i int) {
		c := cases[i]
		t.Run(c.name, func(t *testing.T) {
			w := newCrashWorld(t, program)
			w.open()
			if c.open != nil {
				c.open(w)
			}
			var passed []string
			for k := 1; ; k++ {
				a := c.try(w, k)
				w.expect(a.answers...)
				w.guards[0].loosen() // what fails after the switch is taken back
				before := len(w.ended)
				w.arm("fail", w.unseen(crashCase{all: c.all || soak(), fails: true})+" "+strings.Join(c.but, " "))
				out, status := a.do()
				if w.settle() {
					t.Fatalf("attempt %d: the server ended", k)
				}
				if failed, err := os.ReadFile(w.points + ".done"); err == nil {
					w.ended = append(w.ended, string(failed))
					os.Remove(w.points + ".done")
				}
				w.disarm()
				if len(w.ended) == before {
					break // each had its turn
				}
				where := "a full disk at " + w.ended[before]
				w.step("%s: exit %d", where, status)
				switch {
				case status == 0:
					passed = append(passed, w.ended[before])
					w.holds(where+", acknowledged", a)
				case !strings.Contains(out, fullDisk):
					t.Errorf("%s: nothing is said of it:\n%s", where, out)
				case c.name != "destroy" && w.serves() != a.answers[0]:
					t.Errorf("%s: it failed, and %q serves\n%s", where, w.serves(), out)
				}
				if c.name != "destroy" || status == 0 {
					w.verify(where)
				}
				w.expect(append([]string{w.serves()}, a.answers[len(a.answers)-1])...)
				if out, status := a.do(); status != 0 {
					t.Fatalf("%s: the retry fails:\n%s", where, out)
				}
				w.settle()
				w.expect(w.serves())
				w.holds(where+", retried", a)
				w.verify(where + ", retried")
				if w.ended[before] == c.until {
					break
				}
			}
			t.Logf("%s: full at %s", c.name, strings.Join(w.ended, " "))
			t.Logf("%s: it succeeded at %s", c.name, strings.Join(passed, " "))
			for _, name := range c.must {
				if !slices.Contains(w.ended, name) {
					t.Errorf("it never failed at %q", name)
				}
			}
		})
	})
}

// The rename of current was done, its sync failed, and so did the way back: the instance
// that current names was taken away as that of a failed deploy.
func TestSwitchThatCannotBeTakenBack(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	w.version("v1")
	w.expect("v0", "v1")
	w.arm("fails", "switch/sync switch-back")
	out, status := w.blog.push()
	if status != 1 || !strings.Contains(out, "deploy failed in register") || !strings.Contains(out, "could not be taken back: v2 serves") {
		t.Errorf("the push exits with %d and says\n%s", status, out)
	}
	w.disarm()
	w.settle()
	if err := w.answers("v1")(); err != nil {
		t.Fatalf("what current names does not serve: %v", err)
	}
	w.expect("v1")
	w.verify("not taken back")
	// What serves is what the server knows of: the old one is ended, and the
	// new one is watched and drained like any other.
	w.version("v2")
	w.expect("v1", "v2")
	if out, status := w.blog.push(); status != 0 {
		t.Fatalf("the next push fails:\n%s", out)
	}
	w.settle()
	w.expect("v2")
	w.verify("pushed again")
}

// TestFullTmpfs fills a small file system with all of the server's on it, while
// it waits at an operation of a deploy.
func TestFullTmpfs(t *testing.T) {
	program := buildFailpoints(t)
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs takes root")
	}
	w := newCrashWorld(t, program)
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		w.finish() // the mount goes when nothing runs in it
		if err := syscall.Unmount(w.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.serve()
	if err := w.world.end(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.dir, "scotch.cfg")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(strings.Replace(string(text), "[server]\n", "[server]\nmin_free = 0\n", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.open()
	ballast := filepath.Join(w.dir, "ballast")
	t.Cleanup(func() { os.Remove(ballast) })
	places := []string{"make-instance", "export", "install", "write-instance-file", "start-process", "write-web-file", "write-record", "prepare-refs", "switch", "commit-refs", "write-release"}
	if !soak() {
		places = []string{"make-instance", "export", "install", "start-process", "write-record", "prepare-refs", "commit-refs"}
	}
	for k, op := range places {
		was, text := w.everything(k)
		w.expect(was, text)
		w.guards[0].loosen()
		w.arm("pause", op)
		p := w.pushBeside()
		if !w.pausedAt(p) {
			t.Fatalf("the push was over before %s:\n%s", op, p.out)
		}
		fillDisk(t, ballast)
		w.step("full at %s", op)
		w.resume(p)
		where := "full at " + op
		t.Logf("%s: the push exits with %d: %s", where, p.status, lastLines(p.out, 3))
		if p.status != 0 && !strings.Contains(strings.ToLower(p.out), fullDisk) {
			t.Errorf("%s: nothing is said of it:\n%s", where, p.out)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if w.settle() {
			t.Fatalf("%s: the server ended", where)
		}
		if p.status == 0 {
			w.expect(text)
			if err := w.answers(text)(); err != nil {
				t.Errorf("%s, acknowledged: %v", where, err)
			}
		}
		w.expect(w.serves(), text)
		if out, status := w.blog.push(); status != 0 {
			t.Fatalf("%s: the retry fails:\n%s", where, out)
		}
		w.settle()
		w.expect(text)
		if err := w.answers(text)(); err != nil {
			t.Errorf("%s, retried: %v", where, err)
		}
		w.verify(where + ", retried")
	}
}

// fillDisk writes a file until there is no room left.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2] // the last bytes too
		}
	}
}
