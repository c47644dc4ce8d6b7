package direct_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/plugintest"
)

var quick = direct.Options{Interrupt: time.Second, Terminate: 300 * time.Millisecond, Grace: 5 * time.Second}

const path = "PATH=/usr/local/bin:/usr/bin:/bin"

// A test binary with this variable is a server that is going to be killed.
const helper = "DIRECT_TEST_SERVER"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == direct.Arg {
		os.Exit(direct.Child())
	}
	if how := os.Getenv(helper); how != "" {
		err := error(nil)
		if how == "box" {
			err = boxServer(os.Args[1], os.Args[2], os.Args[3])
		} else {
			err = server(os.Args[1], os.Args[2])
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func TestRunnerSuite(t *testing.T) {
	site := t.TempDir()
	plugintest.RunnerSuite(t, func(*testing.T) deployer.Runner { return direct.New(site, quick) })
	if left, _ := filepath.Glob(filepath.Join(site, "sessions", "*")); len(left) > 0 {
		t.Errorf("notes are left: %q", left)
	}
}

// daemonised starts a process that has left session, parent and environment,
// and writes its number to the standard output.
const daemonised = `(env -i setsid sh -c 'echo $$; exec sleep 1000' &) `

// server starts two apps, a program that hides its environment, and a build
// with a child, says so, and waits to be killed.
func server(site, dir string) error {
	r := direct.New(site, quick)
	for _, name := range []string{"kept", "dropped"} {
		p := appProcess(dir, name)
		got, err := r.Start(p)
		if err != nil {
			return err
		}
		fmt.Println(name, got.PID())
	}
	p := appProcess(dir, "hidden")
	// As nginx does with its title: what it was started with reads as zeros.
	p.Args = []string{"python3", "-c", `
import ctypes, os, time
f = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
start, end = int(f[47]), int(f[48])
ctypes.memset(start, 0, end - start)
child = os.fork()
if child: print(child, flush=True)
time.sleep(1000)
`}
	got, err := r.Start(p)
	if err != nil {
		return err
	}
	fmt.Println("hidden", got.PID())
	return r.Run(context.Background(), deployer.Command{
		Args: []string{"sh", "-c", `sleep 1000 & echo build $$; echo child $!; env -i setsid sleep 1000 & echo escaped $!;
			(env -i setsid sh -c 'echo daemon $$; exec sleep 1000' &) ; wait`},
		Env:    []string{path},
		Stdout: os.Stdout,
	})
}

func appProcess(dir, name string) deployer.Process {
	return deployer.Process{
		Name: name, Record: filepath.Join(dir, name+".json"), Log: filepath.Join(dir, name+".log"), Dir: dir,
		Args: []string{"sh", "-c", daemonised + "; sleep 1000 & wait"}, Env: []string{path}, Grace: 5 * time.Second,
	}
}

// The server is killed with SIGKILL in the middle of a build. The next one
// keeps the app that serves, ends all the rest and nothing of another site
// whose name begins alike.
func TestServerKilled(t *testing.T) {
	base := t.TempDir()
	site, other := filepath.Join(base, "run"), filepath.Join(base, "run2")
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], site, dir)
	cmd.Env = append(os.Environ(), helper+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{}
	lines := bufio.NewScanner(out)
	for len(pids) < 7 && lines.Scan() {
		name, n, _ := strings.Cut(lines.Text(), " ")
		if pids[name], err = strconv.Atoi(n); err != nil {
			t.Fatalf("the server said %q", lines.Text())
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	pids["hidden child"] = logged(t, filepath.Join(dir, "hidden.log"))
	pids["kept's daemon"] = logged(t, filepath.Join(dir, "kept.log"))
	pids["dropped's daemon"] = logged(t, filepath.Join(dir, "dropped.log"))

	neighbour, err := direct.New(other, quick).Start(appProcess(t.TempDir(), "neighbour"))
	if err != nil {
		t.Fatal(err)
	}
	defer neighbour.Stop(t.Context())

	next := direct.New(site, quick)
	kept, err := next.Adopt(appProcess(dir, "kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Stop(t.Context())
	if kept.PID() != pids["kept"] {
		t.Errorf("adopted %d, started %d", kept.PID(), pids["kept"])
	}
	n, err := next.Strays(t.Context(), []string{appProcess(dir, "kept").Record})
	if err != nil {
		t.Fatal(err)
	}
	if n != 9 { // three of dropped, two of hidden, four of the build
		t.Errorf("%d strays", n)
	}
	for name, pid := range pids {
		if running(pid) != strings.HasPrefix(name, "kept") {
			t.Errorf("%s (%d) runs: %t", name, pid, running(pid))
		}
	}
	if !running(neighbour.PID()) {
		t.Error("the neighbour was ended")
	}
	if _, err := next.Adopt(appProcess(dir, "dropped")); !errors.Is(err, deployer.ErrNotRunning) {
		t.Errorf("adopting what was ended: %v", err)
	}
	if err := kept.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if running(pids["kept"]) || running(pids["kept's daemon"]) {
		t.Error("the adopted process or its daemon runs on")
	}
	if kept.Err() == nil {
		t.Error("the end of the adopted process has no words")
	}
	if left, _ := filepath.Glob(filepath.Join(site, "sessions", "*")); len(left) > 0 {
		t.Errorf("notes are left: %q", left)
	}
}

// A record whose number belongs to another process now, or to another boot,
// must not make that one ours.
func TestAdoptForeign(t *testing.T) {
	r := direct.New(t.TempDir(), quick)
	p := appProcess(t.TempDir(), "blog")
	got, err := r.Start(p)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Stop(t.Context())
	b, err := os.ReadFile(p.Record)
	if err != nil {
		t.Fatal(err)
	}
	for field, value := range map[string]any{"start": 1, "boot": "another", "pid": os.Getpid()} {
		var rec map[string]any
		if err := json.Unmarshal(b, &rec); err != nil {
			t.Fatal(err)
		}
		rec[field] = value
		doctored, _ := json.Marshal(rec)
		q := p
		q.Record = filepath.Join(t.TempDir(), "record")
		if err := os.WriteFile(q.Record, doctored, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Adopt(q); !errors.Is(err, deployer.ErrNotRunning) {
			t.Errorf("with another %s: %v", field, err)
		}
	}
	q := p
	q.Record = filepath.Join(t.TempDir(), "record")
	os.WriteFile(q.Record, []byte("{half"), 0o600)
	if _, err := r.Adopt(q); !errors.Is(err, deployer.ErrNotRunning) {
		t.Errorf("a half-written record: %v", err)
	}
}

func TestSession(t *testing.T) {
	var out bytes.Buffer
	err := direct.New(t.TempDir(), quick).Run(t.Context(), deployer.Command{
		Args: []string{"python3", "-c", "import os; print(os.getpid() == os.getsid(0) == os.getpgrp(), sorted(os.environ))"},
		Env:  []string{path, "SCOTCH_SITE=forged", "SCOTCH_RECORD=forged"}, Stdout: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); !strings.HasPrefix(got, "True [") || strings.Contains(got, "RECORD") {
		t.Error(got)
	}
}

// No group of the server's may reach an app: whoever is in nginx's group may
// connect to every app's socket.
func TestUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("switching users takes root")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	daemon, err := user.LookupGroup("daemon")
	if err != nil {
		t.Skip(err)
	}
	r := direct.New(t.TempDir(), quick)
	for _, c := range []struct{ group, gid string }{{"", nobody.Gid}, {"daemon", daemon.Gid}} {
		var out bytes.Buffer
		err = r.Run(t.Context(), deployer.Command{
			Args: []string{"sh", "-c", "id -u; id -g; id -G; umask; grep NoNewPrivs /proc/self/status; ulimit -c"}, Env: []string{path}, User: "nobody", Group: c.group, Umask: 0o027, Stdout: &out,
		})
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Join([]string{nobody.Uid, c.gid, c.gid, "0027", "NoNewPrivs:\t1", "0", ""}, "\n")
		if out.String() != want {
			t.Errorf("group %q: %q, want %q", c.group, out.String(), want)
		}
	}
	err = r.Run(t.Context(), deployer.Command{Args: []string{"true"}, Env: []string{path}, Group: "scotch-no-such-group"})
	if err == nil || !strings.Contains(err.Error(), "scotch-no-such-group") || !strings.Contains(err.Error(), "\n") {
		t.Errorf("an unknown group gave %v", err)
	}
}

// What a process takes off besides session, parent and environment, its stamp, it
// can only have changed into one that gives it away.
func TestForgedStamp(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("switching users takes root")
	}
	const user = "games" // nothing else runs as that one
	opts := quick
	opts.Own = func(name string) bool { return name == user }
	r := direct.New(t.TempDir(), opts)
	p := appProcess(t.TempDir(), "other")
	p.User, p.Dir = user, "/"
	other, err := r.Start(p)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Stop(t.Context())
	cmd := exec.Command("setpriv", "--reuid="+user, "sleep", "1000") // as git is started
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	daemon := logged(t, p.Log)

	var said bytes.Buffer
	err = r.Run(t.Context(), deployer.Command{
		// What is said comes through a pipe that ends once all have said it.
		Args: []string{"sh", "-c", `for n in 0 1 4611686018427387904 unlimited; do
			echo "$(env -i setsid prlimit --locks=$n:$n sh -c 'echo $$; exec sleep 1000 >/dev/null' 2>/dev/null &)"; done`},
		Env: []string{path}, User: user, Stdout: &said,
	})
	if err != nil {
		t.Fatal(err)
	}
	pids := strings.Fields(said.String())
	if len(pids) != 3 { // the fourth limit is refused
		t.Errorf("the command said %q", said.String())
	}
	for _, word := range pids {
		if pid, err := strconv.Atoi(word); err != nil || running(pid) {
			t.Errorf("process %q runs on", word)
		}
	}
	for name, pid := range map[string]int{"app": other.PID(), "app's daemon": daemon, "child of another part": cmd.Process.Pid} {
		if !running(pid) {
			t.Errorf("the %s of the same user was ended", name)
		}
	}
	if err := other.Stop(t.Context()); err != nil || running(daemon) {
		t.Errorf("the daemon of the app that was stopped runs: %t, %v", running(daemon), err)
	}
}

// Apps are watched without a thread each, so that hundreds cost no memory.
func TestWatchTakesNoThread(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	r := direct.New(t.TempDir(), quick)
	dir := t.TempDir()
	before := threads(t)
	var all []deployer.Running
	for i := range 100 {
		p := appProcess(dir, strconv.Itoa(i))
		p.Args = []string{"sleep", "1000"}
		got, err := r.Start(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got)
	}
	if after := threads(t); after > before+20 {
		t.Errorf("%d threads, %d before", after, before)
	}
	for _, p := range all {
		if err := p.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func threads(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// logged waits for a number in a log.
func logged(t *testing.T, path string) int {
	t.Helper()
	for range 500 {
		b, _ := os.ReadFile(path)
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return n
		}
		time.Sleep(10 * time.Millisecond) // a file, by contract: there is no event to wait for
	}
	t.Fatalf("nothing in %q", path)
	return 0
}

func running(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n == 0 && err == nil
}

// The server's own commands have limits one by one, also as another user.
func TestLimitsOfEachProcess(t *testing.T) {
	t.Parallel()
	users := []string{""}
	if os.Geteuid() == 0 {
		users = append(users, "nobody")
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	r := direct.New(t.TempDir(), quick)
	for i, who := range users {
		for _, test := range []struct {
			script string
			each   deployer.ProcessLimits
			want   deployer.ExitError
		}{
			{"while :; do :; done", deployer.ProcessLimits{CPU: time.Millisecond}, deployer.ExitError{Status: -1, Signal: "SIGXCPU"}},
			{fmt.Sprintf("exec head -c 200000 /dev/zero > %s/file%d", dir, i), deployer.ProcessLimits{FileSize: 100_000}, deployer.ExitError{Status: -1, Signal: "SIGXFSZ"}},
			{"dd bs=30M count=1 if=/dev/zero of=/dev/null", deployer.ProcessLimits{Memory: 20 << 20}, deployer.ExitError{Status: 1}},
			{"ulimit -d; ulimit -t; ulimit -f; exit 7", deployer.ProcessLimits{Memory: 1 << 30, CPU: time.Hour, FileSize: 1 << 30}, deployer.ExitError{Status: 7}},
		} {
			var out bytes.Buffer
			err := r.Run(t.Context(), deployer.Command{Args: []string{"sh", "-c", test.script}, Dir: "/", Env: []string{path}, User: who, Each: test.each, Stdout: &out, Stderr: &out})
			var exit *deployer.ExitError
			if !errors.As(err, &exit) || exit.Signal != test.want.Signal || exit.Status != test.want.Status {
				t.Errorf("%q %q: %v, want %+v; %s", who, test.script, err, test.want, &out)
			}
			if test.want.Status == 7 && out.String() != "1048576\n3600\n2097152\n" {
				t.Errorf("%q: the limits are %q", who, &out)
			}
		}
	}
}
