package systemd_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
	"scotch/deployer/plugintest"
	"scotch/deployer/systemd"
)

var quick = systemd.Options{Interrupt: time.Second, Terminate: 300 * time.Millisecond, Grace: 5 * time.Second}

const (
	path = "PATH=/usr/local/bin:/usr/bin:/bin"
	// These tests start and end units on the machine that they run on. make
	// test-system sets this, inside of a container of its own.
	allowed = "SCOTCH_TEST_SYSTEMD"
	// A test binary with this variable is a server that is going to be killed.
	helper = "SYSTEMD_TEST_SERVER"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == systemd.Arg {
		os.Exit(systemd.Child())
	}
	if os.Getenv(helper) != "" {
		if err := server(os.Args[1], os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func open(t *testing.T, site string) *systemd.Runner {
	t.Helper()
	if os.Getenv(allowed) == "" || !systemd.Here() {
		t.Skip("runs inside of a container with systemd: make test-system")
	}
	r, err := systemd.New(site, quick)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// output of a command that may fail.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Logf("%s %q: %v", name, args, err)
	}
	return string(out)
}

func TestRunnerSuite(t *testing.T) {
	site := t.TempDir()
	open(t, site)
	plugintest.RunnerSuite(t, func(t *testing.T) deployer.Runner { return open(t, site) })
	if out := output(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "scotch_*.service"); out != "" {
		t.Errorf("units are left:\n%s", out)
	}
}

func process(dir, name string) deployer.Process {
	return deployer.Process{
		Name: name, Record: filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".json"), Log: filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".log"),
		Dir: dir, Args: []string{"sh", "-c", "sleep 1000 & wait"}, Env: []string{path}, Grace: 5 * time.Second,
	}
}

func start(t *testing.T, r *systemd.Runner, p deployer.Process) deployer.Running {
	t.Helper()
	got, err := r.Start(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := got.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return got
}

// server starts two apps and a build with a daemon, says so, and waits to be killed.
func server(site, dir string) error {
	r, err := systemd.New(site, quick)
	if err != nil {
		return err
	}
	for _, name := range []string{"blog/1", "blog-api/1"} {
		got, err := r.Start(process(dir, name))
		if err != nil {
			return err
		}
		fmt.Println(name, got.PID())
	}
	return r.Run(context.Background(), deployer.Command{
		Args:   []string{"sh", "-c", `sleep 1000 & echo build $$; echo child $!; env -i setsid sleep 1000 & echo escaped $!; wait`},
		Env:    []string{path},
		App:    "blog",
		Stdout: os.Stdout,
	})
}

// The server is killed with SIGKILL in the middle of a build. The next one keeps
// the app that serves, and ends all the rest and nothing of another site.
func TestServerKilled(t *testing.T) {
	site, dir := t.TempDir(), t.TempDir()
	next := open(t, site)
	neighbour := start(t, open(t, site+"2"), process(t.TempDir(), "blog/1"))

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
	for len(pids) < 5 && lines.Scan() {
		name, n, _ := strings.Cut(lines.Text(), " ")
		if pids[name], err = strconv.Atoi(n); err != nil {
			t.Fatalf("the server said %q", lines.Text())
		}
	}
	cmd.Process.Kill()
	cmd.Wait()

	kept, err := next.Adopt(process(dir, "blog-api/1"))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Stop(t.Context())
	n, err := next.Strays(t.Context(), []string{process(dir, "blog-api/1").Record})
	if err != nil || n != 2 {
		t.Errorf("%d strays, %v", n, err)
	}
	for name, pid := range pids {
		if runs(pid) != (name == "blog-api/1") {
			t.Errorf("%s (%d) runs: %t", name, pid, runs(pid))
		}
	}
	if !runs(neighbour.PID()) {
		t.Error("the neighbour was ended")
	}
	if _, err := next.Adopt(process(dir, "blog/1")); !errors.Is(err, deployer.ErrNotRunning) {
		t.Errorf("adopting what was ended: %v", err)
	}
	// One that is found again tells how it ended, too.
	syscall.Kill(kept.PID(), syscall.SIGKILL)
	<-kept.Done()
	if err := kept.Err(); fmt.Sprint(err) != "killed by SIGKILL" {
		t.Errorf("%v", err)
	}
}

func runs(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n == 0 && err == nil
}

// Each user may ask systemd for each property of each unit, and read its files.
func TestSecretsStaySecret(t *testing.T) {
	r := open(t, t.TempDir())
	p := process(t.TempDir(), "blog-api/7")
	const secret = "s3cret-of-the-app"
	p.Env = append(p.Env, "TOKEN="+secret)
	p.Args = []string{"sh", "-c", `sleep 1000 & wait`}
	p.User, p.Dir = "nobody", "/"
	got := start(t, r, p)
	unit := unitOf(t, got.PID())
	if !strings.Contains(unit, "-app-blog.api-7.service") {
		t.Errorf("its unit is %q", unit)
	}
	asNobody := func(args ...string) string {
		return output(t, "setpriv", slices.Concat([]string{"--reuid=daemon", "--regid=daemon", "--clear-groups"}, args)...)
	}
	shown := asNobody("systemctl", "show", unit)
	if !strings.Contains(shown, "Description=scotch: blog-api, instance 7\n") {
		t.Errorf("a user can't see the unit, so that this shows nothing: %s", shown)
	}
	for what, text := range map[string]string{
		"systemctl show": shown, "systemctl cat": asNobody("systemctl", "cat", unit),
		"systemctl status": asNobody("systemctl", "status", "--no-pager", unit),
		"files":            asNobody("grep", "-rs", secret, "/run", "/etc/systemd", "/tmp", "/proc/"+strconv.Itoa(got.PID())+"/environ"),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("%s tells the secret:\n%s", what, text)
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", got.PID())); err != nil || string(b) != path+"\x00TOKEN="+secret+"\x00" {
		t.Errorf("the environment is %q, %v", b, err)
	}
	t.Logf("\n%s", output(t, "systemctl", "status", "--no-pager", "-n0", unit))
}

// unitOf is the unit that a process belongs to.
func unitOf(t *testing.T, pid int) string {
	t.Helper()
	return strings.TrimSpace(output(t, "ps", "-o", "unit=", "-ww", "-p", strconv.Itoa(pid)))
}

// No group of the server's may reach an app: whoever is in nginx's group may
// connect to every app's socket.
func TestUser(t *testing.T) {
	r := open(t, t.TempDir())
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := user.LookupGroup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ group, gid string }{{"", nobody.Gid}, {"daemon", daemon.Gid}} {
		var out bytes.Buffer
		err := r.Run(t.Context(), deployer.Command{
			Args: []string{"sh", "-c", "id -u; id -g; id -G; umask"}, Env: []string{path}, User: "nobody", Group: c.group, Umask: 0o027, Stdout: &out,
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Join([]string{nobody.Uid, c.gid, c.gid, "0027", ""}, "\n"); out.String() != want {
			t.Errorf("group %q: %q, want %q", c.group, out.String(), want)
		}
	}
	err = r.Run(t.Context(), deployer.Command{Args: []string{"true"}, Env: []string{path}, User: "nobody", Dir: secretDir(t)})
	if err == nil || !strings.Contains(err.Error(), "could not enter the directory") || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("a directory that the user may not enter: %v", err)
	}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	var exit *deployer.ExitError
	if err := r.Run(t.Context(), deployer.Command{Args: []string{program}, Env: []string{path}}); err == nil || errors.As(err, &exit) || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("what is no program: %v", err)
	}
}

func secretDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "secret")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

const hog = `
import os, sys
sys.stdout.write("%d\n" % os.getpid()); sys.stdout.flush()
x = []
while True: x.append(b"x" * (4 << 20))
`

// What is over the limit of one unit ends there.
func TestMemoryLimit(t *testing.T) {
	r := open(t, t.TempDir())
	dir := t.TempDir()
	other := start(t, r, process(dir, "shop/1"))
	limits := deployer.Limits{Memory: 64 << 20, Prefix: "build_"}
	err := r.Run(t.Context(), deployer.Command{
		Args: []string{"python3", "-c", hog}, Env: []string{path}, App: "blog", Limits: limits, Timeout: time.Minute,
	})
	var exit *deployer.ExitError
	if !errors.As(err, &exit) || exit.Signal != "SIGKILL" {
		t.Errorf("a build over its limit gave %v", err)
	}
	t.Log(err)

	p := process(dir, "blog/1")
	p.Limits = deployer.Limits{Memory: 64 << 20, CPU: 50, Tasks: 20}
	// The master survives, as uWSGI's does.
	p.Args = []string{"sh", "-c", `python3 -c "$0"; echo "worker gone"; sleep 1000 & wait`, hog}
	got := start(t, r, p)
	for range 600 {
		if b, _ := os.ReadFile(p.Log); strings.Contains(string(b), "worker gone") {
			break
		}
		time.Sleep(50 * time.Millisecond) // a file, by contract: there is no event to wait for
	}
	n, err := got.(deployer.MemoryVictim).MemoryKills()
	if err != nil || n != 1 {
		t.Errorf("%d processes were killed, %v", n, err)
	}
	for _, pid := range []int{got.PID(), other.PID()} {
		if !runs(pid) {
			t.Errorf("process %d was to go on", pid)
		}
	}
	shown := output(t, "systemctl", "show", "-p", "MemoryMax,CPUQuotaPerSecUSec,TasksMax,Slice", unitOf(t, got.PID()))
	for _, want := range []string{"MemoryMax=67108864", "CPUQuotaPerSecUSec=500ms", "TasksMax=20", "-blog.slice"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in %s", want, shown)
		}
	}
}

func TestTasksLimit(t *testing.T) {
	r := open(t, t.TempDir())
	var out bytes.Buffer
	err := r.Run(t.Context(), deployer.Command{
		Args: []string{"python3", "-c", "import os\nfor i in range(50):\n if not os.fork(): os.execvp('sleep', ['sleep', '100'])"},
		Env:  []string{path}, App: "blog", Limits: deployer.Limits{Tasks: 20}, Stderr: &out, Timeout: time.Minute,
	})
	if err == nil || !strings.Contains(out.String(), "BlockingIOError") {
		t.Errorf("%v, %q", err, out.String())
	}
}

// An upgrade of libc has systemd execute itself again, in the middle of everything.
func TestReexec(t *testing.T) {
	for range 4 {
		t.Run("", testReexec)
	}
}

func testReexec(t *testing.T) {
	r := open(t, t.TempDir())
	p := process(t.TempDir(), "blog/1")
	got := start(t, r, p)
	var out bytes.Buffer
	built := make(chan error, 1)
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer w.Close()
	go func() {
		built <- r.Run(t.Context(), deployer.Command{
			Args: []string{"sh", "-c", "read go; echo built; exit 3"}, Env: []string{path}, App: "blog", Stdin: in, Stdout: &out, Timeout: time.Minute,
		})
	}()
	output(t, "systemctl", "daemon-reexec")
	output(t, "systemctl", "daemon-reload")
	second := start(t, r, process(t.TempDir(), "blog/2"))
	fmt.Fprintln(w, "go")
	var exit *deployer.ExitError
	if err := <-built; !errors.As(err, &exit) || exit.Status != 3 || out.String() != "built\n" {
		t.Errorf("%v, output %q", err, out.String())
	}
	for _, run := range []deployer.Running{got, second} {
		if !runs(run.PID()) {
			t.Errorf("process %d has ended: %v", run.PID(), run.Err())
		}
		if err := run.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Whoever stops the unit by hand ends it in the same order.
func TestStoppedByHand(t *testing.T) {
	r := open(t, t.TempDir())
	p := process(t.TempDir(), "blog/1")
	p.Args = []string{"sh", "-c", `sh -c 'trap "echo the worker got it" TERM; while :; do sleep 1000 & wait $!; done' & trap "echo bye; exit 0" TERM; wait; wait`}
	got := start(t, r, p)
	unit := unitOf(t, got.PID())
	output(t, "systemctl", "stop", unit)
	select {
	case <-got.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("it is not noticed")
	}
	if got.Err() != nil {
		t.Error(got.Err())
	}
	if b, _ := os.ReadFile(p.Log); strings.Contains(string(b), "worker") {
		t.Errorf("the workers were signalled too: %q", b)
	}
}

func BenchmarkRun(b *testing.B) {
	if os.Getenv(allowed) == "" || !systemd.Here() {
		b.Skip("runs inside of a container with systemd")
	}
	r, err := systemd.New(b.TempDir(), quick)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := r.Run(b.Context(), deployer.Command{Args: []string{"true"}, Env: []string{path}, App: "blog"}); err != nil {
			b.Fatal(err)
		}
	}
}
