package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// call is a line of `strace -f -y`: a system call of one thread.
type call struct {
	name, args string
	result     string
}

var (
	straceWhole  = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (.*)$`)
	straceCutOff = regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$`)
	straceGoesOn = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)$`)
	straceFile   = regexp.MustCompile(`^\d+<([^>]*)>`)
	straceString = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
	stracePaths  = regexp.MustCompile(`^(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)", (?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"`)
)

// calls reads a log of strace, each call where it ended.
func calls(t *testing.T, path string) []call {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begun := map[string]string{}
	var all []call
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := straceCutOff.FindStringSubmatch(line); m != nil {
			begun[m[1]] = m[3]
		} else if m := straceGoesOn.FindStringSubmatch(line); m != nil {
			all = append(all, call{m[2], begun[m[1]] + m[3], m[4]})
		} else if m := straceWhole.FindStringSubmatch(line); m != nil {
			all = append(all, call{m[2], m[3], m[4]})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// renamed are the absolute paths of a rename.
func (c call) renamed() (from, to string, ok bool) {
	if !strings.HasPrefix(c.name, "rename") || !strings.HasPrefix(c.result, "0") {
		return "", "", false
	}
	if m := stracePaths.FindStringSubmatch(c.args); m != nil {
		return under(m[1], m[2]), under(m[3], m[4]), true
	}
	if m := straceString.FindAllStringSubmatch(c.args, 2); len(m) == 2 {
		return m[0][1], m[1][1], true
	}
	return "", "", false
}

func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// file is the path of the open file that a call works on.
func (c call) file() string {
	if m := straceFile.FindStringSubmatch(c.args); m != nil {
		return m[1]
	}
	return ""
}

func (c call) done() bool { return !strings.HasPrefix(c.result, "-1") }

// TestFsyncOrder reads what one deploy does with the disk, by strace: each file
// is on disk before it is renamed in place, each directory before the push is
// answered, the whole instance before `current` is renamed.
func TestFsyncOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server; run without -short")
	}
	missing := t.Skipf
	if os.Getenv("CI") == "true" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath("strace"); err != nil {
		missing("strace is missing: apt-get install strace")
	}
	w := newCrashWorld(t, buildFailpoints(t))
	w.open()
	log := filepath.Join(w.home, "strace")
	was, text := w.everything(1)
	w.expect(was, text)

	tracer := exec.Command("strace", "-f", "-y", "-s", "256", "-o", log, "-p", fmt.Sprint(w.server.Process.Pid),
		"-e", "trace=write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,sync_file_range,syncfs,rename,renameat,renameat2,symlink,symlinkat")
	said := &lockedBuffer{}
	tracer.Stderr = said
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		tracer.Wait()
		close(gone)
	}()
	for attached := false; !attached; {
		select {
		case <-gone:
			missing("strace cannot watch a process here: %s", said.String())
		case <-time.After(10 * time.Millisecond):
			attached = strings.Contains(said.String(), "attached")
		}
	}
	out, status := w.blog.push()
	w.settle()
	tracer.Process.Signal(syscall.SIGINT) // it lets go
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		tracer.Process.Kill()
		<-gone
	}
	if status != 0 {
		t.Fatalf("the push fails under strace:\n%s", out)
	}
	w.expect(text)
	w.judgeOrder(calls(t, log))
	w.verify("after strace")
}

// judgeOrder is the oracle for TestFsyncOrder.
func (w *crashWorld) judgeOrder(all []call) {
	t := w.t
	t.Helper()
	answered := -1
	for i, c := range all {
		if strings.Contains(c.args, "ok refs/heads/main") && c.done() && (c.name == "write" || c.name == "writev") {
			answered = i
			break
		}
	}
	if answered < 0 {
		t.Fatal("the answer to git is not in the log")
	}
	seen := map[string]bool{}
	switched := -1
	for i, c := range all {
		from, to, ok := c.renamed()
		if !ok || !strings.HasPrefix(to, w.dir) || i > answered && !strings.Contains(to, "/instances/") {
			continue
		}
		git := strings.HasPrefix(to, w.repository("blog"))
		what := strings.TrimPrefix(to, w.dir)
		seen[what] = true
		if filepath.Base(to) == "current" {
			switched = i
		} else if fi, err := os.Lstat(to); (err != nil || fi.Mode().IsRegular()) && !notOurs(to) {
			// A file is whole on disk before it has its name.
			synced := false
			for _, before := range all[:i] {
				switch {
				case before.file() != from:
				case strings.HasPrefix(before.name, "write"), before.name == "pwrite64":
					synced = false
				case before.name == "fsync", before.name == "fdatasync":
					synced = before.done()
				}
			}
			if !synced {
				t.Errorf("%s is renamed in place before it is synced", what)
			}
		}
		if git || i > answered || notOurs(to) {
			// git syncs no directories; the next start moves the refs to what is
			// live, and a sync of any later file brings a journal up to it.
			continue
		}
		synced := false
		for _, after := range all[i+1 : answered+1] {
			synced = synced || after.name == "fsync" && after.done() && after.file() == filepath.Dir(to)
		}
		if !synced {
			t.Errorf("the directory of %s is not synced before the push is answered", what)
		}
	}
	if switched < 0 || switched > answered {
		t.Fatalf("`current` is renamed at %d, git is answered at %d", switched, answered)
	}
	last := ""
	whole := false
	for _, before := range all[:switched] {
		if before.name == "syncfs" && before.done() && strings.HasPrefix(before.file(), w.instances("blog")+"/0") {
			whole, last = true, before.file()
		}
	}
	if !whole {
		t.Error("the instance is not on disk before `current` names it")
	}
	live, err := w.live("blog")
	if err != nil {
		t.Fatal(err)
	}
	if last != filepath.Join(w.instances("blog"), live.Instance) {
		t.Errorf("%s was synced, live is %s", last, live.Instance)
	}
	for _, what := range []string{
		"/instances/blog/current", "/instances/blog/" + live.Instance + "/release.json", "/instances/blog/releases/v2.json",
		"/repositories/blog.git/refs/heads/main", "/repositories/blog.git/refs/releases/v2",
	} {
		if !seen[what] {
			t.Errorf("%s was not renamed in place", what)
		}
	}
	t.Logf("%d calls, %d renames", len(all), len(seen))
}

// notOurs tells of what installers write, which syncfs brings to disk, and of
// what Python keeps for itself.
func notOurs(path string) bool {
	return strings.Contains(path, "/.venvs/") && !strings.HasSuffix(path, "scotch-venv.json") ||
		strings.Contains(path, "/.cache/") || strings.Contains(path, "/__pycache__/")
}
