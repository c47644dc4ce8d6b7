package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pushing is a push that runs beside the test.
type pushing struct {
	out    string
	status int
	done   chan struct{}
}

func (w *crashWorld) pushBeside(args ...string) *pushing {
	p := &pushing{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.out, p.status = w.blog.push(args...)
	}()
	return p
}

// pausedAt waits until the server waits at the operation that arm has named. It
// tells whether the push was over before.
func (w *crashWorld) pausedAt(p *pushing) bool {
	w.t.Helper()
	for range 6000 {
		if exists(w.points + ".paused") {
			return true
		}
		select {
		case <-p.done:
			return exists(w.points + ".paused")
		case <-time.After(5 * time.Millisecond): // a file: there is no event to wait for
		}
	}
	w.t.Fatal("the server is neither paused nor done")
	return false
}

// resume lets the server go on and waits for the end of the push.
func (w *crashWorld) resume(p *pushing) {
	w.t.Helper()
	w.disarm()
	<-p.done
	for range 6000 {
		_, err := os.Lstat(w.points + ".paused")
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Fatal("the server is paused still")
}

// finished returns when blog's last deploy has told its end.
func (w *crashWorld) finished() {
	w.t.Helper()
	for range 6000 {
		logs, _ := filepath.Glob(filepath.Join(w.instances("blog"), "0*", "deploy.log"))
		if len(logs) > 0 {
			text, _ := os.ReadFile(logs[len(logs)-1])
			if bytes.Contains(text, []byte("-----> live at")) || bytes.Contains(text, []byte("\n !     blog: ")) {
				return
			}
		}
		time.Sleep(5 * time.Millisecond) // a file: there is no event to wait for
	}
	w.t.Fatal("the deploy has no end")
}

// find is the process of this world whose command line holds all of these.
func (w *crashWorld) find(parts ...string) int {
	for range 500 {
		for _, pid := range w.processes() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			text := string(bytes.ReplaceAll(line, []byte{0}, []byte(" ")))
			all := sessionOf(pid) != 0
			for _, p := range parts {
				all = all && strings.Contains(text, p)
			}
			if all {
				return pid
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0
}

// newMaster is the process of an instance that is not live yet, or just is.
func (w *crashWorld) newMaster(was string) int {
	for range 500 {
		found, _ := filepath.Glob(filepath.Join(w.instances("blog"), "0*", "process.json"))
		for _, path := range found {
			if id := filepath.Base(filepath.Dir(path)); id > was {
				if pid := pidIn(path); pid != 0 {
					return pid
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0
}

// TestKilled ends other processes than the server by SIGKILL while it waits at
// an operation: git, its hook, the git that holds the refs, the new uWSGI. The
// push fails or succeeds, and says so; the server goes on, and needs no restart
// for all to agree.
func TestKilled(t *testing.T) {
	program := buildFailpoints(t)
	places := []string{"make-instance", "export", "await-ready", "prepare-refs", "switch", "commit-refs", "write-release"}
	short := []string{"export", "commit-refs"}
	cases := []struct {
		victim       string
		short, all   []string
		find         func(w *crashWorld, was string) int
		maySelfServe bool // the process that is killed is the one that serves then
	}{
		{"receive-pack", short, places, func(w *crashWorld, _ string) int { return w.find("receive-pack", w.repository("blog")) }, false},
		{"proc-receive", short, places, func(w *crashWorld, _ string) int { return w.find("proc-receive") }, false},
		{"update-ref", []string{"switch", "commit-refs"}, []string{"switch", "switch/rename", "commit-refs"}, func(w *crashWorld, _ string) int { return w.find("update-ref", w.repository("blog")) }, false},
		{"uwsgi", []string{"await-ready", "write-record"}, []string{"await-ready", "write-record", "prepare-refs", "switch", "commit-refs", "write-release"},
			func(w *crashWorld, was string) int { return w.newMaster(was) }, true},
	}
	atOnce(t, len(cases), func(i int) {
		c := cases[i]
		t.Run(c.victim, func(t *testing.T) {
			w := newCrashWorld(t, program)
			w.open()
			at := c.short
			if soak() {
				at = c.all
			}
			for i, op := range at {
				where := fmt.Sprintf("%s killed at %s", c.victim, op)
				live, err := w.live("blog")
				if err != nil {
					t.Fatal(err)
				}
				was, text := w.serves(), fmt.Sprintf("kill %d", i)
				w.version(text)
				w.expect(was, text)
				w.guards[0].loosen() // what fails after the switch is taken back
				if c.maySelfServe && op != "await-ready" {
					w.guards[0].pause()
				}
				w.arm("pause", op)
				p := w.pushBeside()
				if !w.pausedAt(p) {
					t.Fatalf("%s: the push was over before:\n%s", where, p.out)
				}
				pid := c.find(w, live.Instance)
				if pid == 0 {
					t.Fatalf("%s: there is no such process", where)
				}
				w.step("%s: %d", where, pid)
				syscall.Kill(pid, syscall.SIGKILL)
				w.resume(p)
				w.finished() // its client may be gone long before
				if w.settle() {
					t.Fatalf("%s: the server ended", where)
				}
				w.verify(where)
				t.Logf("%s: the push exits with %d: %s", where, p.status, lastLines(p.out, 3))
				if now := w.serves(); p.status == 0 && now != text {
					t.Errorf("%s: the push was acknowledged, but %q serves", where, now)
				}
				w.expect(w.serves(), text)
				if out, status := w.blog.push(); status != 0 {
					t.Fatalf("%s: the retry fails:\n%s", where, out)
				}
				w.settle()
				w.expect(text)
				if err := w.answers(text)(); err != nil {
					t.Errorf("%s: %v", where, err)
				}
				w.verify(where + ", retried")
			}
		})
	})
}

// The program that installs is killed while it waits for an index of packages
// that does not answer: the push fails and says so.
func TestKilledInstaller(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	index, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer index.Close()
	w.version("v1", "requirements.txt", "no-such-thing-at-all==1.0\n")
	w.appFile("blog", fmt.Sprintf("%s[build_env]\nPIP_INDEX_URL = http://%[2]s/simple\nUV_DEFAULT_INDEX = http://%[2]s/simple\n", crashFile, index.Addr()))
	p := w.pushBeside()
	c, err := index.Accept() // the installer asks, and is not answered
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pid := 0
	for _, program := range []string{"uv pip install", "uv pip sync", "pip install", "-m pip", "uv "} {
		for _, one := range w.processes() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", one))
			if pid == 0 && strings.Contains(string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))), program) {
				pid = one
			}
		}
	}
	if pid == 0 {
		t.Fatal("there is no installer")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	<-p.done
	if p.status != 1 || !strings.Contains(p.out, "SIGKILL") || !strings.Contains(p.out, "deploy failed in checkout") {
		t.Errorf("the push exits with %d and says\n%s", p.status, p.out)
	}
	w.settle()
	w.verify("the installer was killed")
	w.appFile("blog", crashFile)
	w.version("v2")
	w.expect("v0", "v2")
	if out, status := w.blog.push(); status != 0 {
		t.Fatalf("the retry fails:\n%s", out)
	}
	w.settle()
	w.expect("v2")
	w.verify("retried")
}

// The git that holds the refs dies when it has moved the branch and not yet said
// so. Of an app's first push the branch stayed where it was moved to, though
// nothing was live: the same push was "up to date" from then on.
func TestKilledInTheFirstCommit(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.serve()
	w.must("create", "blog")
	w.appFile("blog", crashFile)
	w.blog = w.project("blog", "blog-project")
	w.version("first")
	for _, next := range []string{"", "restore-web-file"} { // the server dies too, before it has mended that
		w.arm("pause", "commit-refs")
		p := w.pushBeside()
		if !w.pausedAt(p) {
			t.Fatalf("the push was over before:\n%s", p.out)
		}
		pid := w.find("update-ref", w.repository("blog"))
		if pid == 0 {
			t.Fatal("no git holds the refs")
		}
		syscall.Kill(pid, syscall.SIGKILL)
		// So git moves a ref: its lock file is the new value.
		branch := filepath.Join(w.repository("blog"), "refs", "heads", "main")
		if err := os.Rename(branch+".lock", branch); err != nil {
			t.Fatal(err)
		}
		if next == "" {
			w.resume(p)
		} else {
			w.arm("kill", next)
			<-p.done
			if !w.died(10 * time.Second) {
				t.Fatalf("the server lives on\n%s", p.out)
			}
			w.again()
		}
		if p.status == 0 {
			t.Errorf("the push was acknowledged:\n%s", p.out)
		}
		if refs := w.blog.git("ls-remote", "scotch"); refs != "" {
			t.Fatalf("nothing is live, and there are refs:\n%s", refs)
		}
	}
	if out, status := w.blog.push(); status != 0 || w.serves() != "first" {
		t.Errorf("the retry fails:\n%s", out)
	}
}

// The new uWSGI dies behind its health check and is started again: what is booting has
// not answered, and was switched to.
func TestKilledBehindItsHealthCheck(t *testing.T) {
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	w.version("v1")
	live, err := w.live("blog")
	if err != nil {
		t.Fatal(err)
	}
	w.arm("pause", "prepare-refs")
	p := w.pushBeside()
	if !w.pausedAt(p) {
		t.Fatalf("the push was over before:\n%s", p.out)
	}
	probed := w.newMaster(live.Instance)
	if probed == 0 {
		t.Fatal("no new master")
	}
	syscall.Kill(probed, syscall.SIGKILL)
	again := 0
	for range 200 {
		if again = w.newMaster(live.Instance); again != 0 && again != probed {
			break
		}
		time.Sleep(10 * time.Millisecond) // a file: there is no event to wait for
	}
	if again == 0 || again == probed {
		t.Fatal("it is not started again")
	}
	w.resume(p)
	if p.status != 1 || !strings.Contains(p.out, "ended just before the switch") {
		t.Errorf("the push exits with %d and says\n%s", p.status, p.out)
	}
	w.settle()
	w.expect("v0")
	w.verify("the new master was killed behind its health check")
	w.expect("v0", "v1")
	if out, status := w.blog.push(); status != 0 {
		t.Fatalf("the retry fails:\n%s", out)
	}
	w.settle()
	w.expect("v1")
	w.verify("retried")
}
