package direct_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/plugintest"
)

const searched = "/usr/local/bin:/usr/bin:/bin"

// openBox makes a box, and a directory outside of /tmp for the test: what is in
// /tmp is not in the box.
func openBox(t *testing.T, change func(b *direct.Box)) (*direct.Box, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root puts processes into boxes")
	}
	base, err := os.MkdirTemp("/var/lib", "scotch-box")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &direct.Box{Scratch: filepath.Join(base, "scratch"), Program: self, Path: searched}
	if change != nil {
		change(b)
	}
	if err := b.Try(); errors.Is(err, direct.ErrNoBubblewrap) {
		t.Skip(err)
	} else if err != nil {
		t.Skipf("nothing can be put into a box here: %v", err)
	}
	return b, base
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s is left in %q", left, dir)
	}
}

// What the suite asks for holds in a box too. Its processes say their numbers, so
// they have the machine's.
func TestRunnerSuiteInBox(t *testing.T) {
	box, base := openBox(t, func(b *direct.Box) { b.Everybody, b.SharedIDs = true, true })
	t.Setenv("TMPDIR", base)
	opts := quick
	opts.Box, opts.Interrupt = box, 300*time.Millisecond
	site := t.TempDir()
	plugintest.RunnerSuite(t, func(*testing.T) deployer.Runner { return direct.New(site, opts) })
	if left, _ := filepath.Glob(filepath.Join(site, "sessions", "*")); len(left) > 0 {
		t.Errorf("notes are left: %q", left)
	}
	empty(t, box.Scratch)
}

// What an app's commands see of the machine, and what of it they may change.
func TestBox(t *testing.T) {
	var secret, socket, data, elsewhere string
	box, base := openBox(t, func(b *direct.Box) {
		dir := filepath.Dir(b.Scratch)
		secret, socket = filepath.Join(dir, "configuration"), filepath.Join(dir, "control.sock")
		data, elsewhere = filepath.Join(dir, "data"), filepath.Join(dir, "elsewhere")
		b.Hidden = []string{secret, filepath.Join(secret, "keys"), socket, filepath.Join(dir, "missing")}
	})
	for _, dir := range []string{filepath.Join(secret, "keys"), data, elsewhere} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		os.Chmod(dir, 0o777)
	}
	for _, file := range []string{filepath.Join(secret, "site.cfg"), filepath.Join(secret, "keys", "key"), socket} {
		if err := os.WriteFile(file, []byte("secret"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	outside, err := os.CreateTemp("/tmp", "scotch-outside")
	if err != nil {
		t.Fatal(err)
	}
	outside.Close()
	defer os.Remove(outside.Name())
	opts := quick
	opts.Box, opts.Interrupt = box, 300*time.Millisecond
	r := direct.New(filepath.Join(base, "run"), opts)
	script := `
cat "$1"/configuration/site.cfg "$1"/configuration/keys/key "$1"/control.sock && echo reads a secret
ls "$1"/configuration && echo lists the secrets
ls "$1"/scratch && echo lists what is private
ls /tmp/scotch-outside* && echo sees the machine\'s /tmp
touch /tmp/x /var/tmp/y /dev/shm/z || echo has no /tmp
touch "$1"/elsewhere/x && echo writes elsewhere
touch "$1"/data/x || echo writes no data
test -e /dev/kmsg && echo has devices
echo >/dev/null || echo has no /dev/null
test "$(id -u):$(id -G)" = "$(id -u nobody):$(id -G nobody)" || id
grep -q 'NoNewPrivs:.1' /proc/self/status || echo can get privileges
grep -q 'CapBnd:.0*$' /proc/self/status || echo has capabilities
test "$(ulimit -c)" = 0 || echo leaves cores
test "$(ls -d /proc/[0-9]* | wc -l)" -lt 8 || ls -d /proc/[0-9]*
test "$(pwd)" = "$1"/data || pwd
test "$LD_PRELOAD" = /nonexistent.so || echo has another environment
umask | grep -qx 0027 || umask
ls -l /proc/self/fd | grep -E 'socket|/var/lib' && echo holds a file of the server\'s
true`
	run := func(c deployer.Command) string {
		var out, errs bytes.Buffer
		c.App, c.User, c.Dir, c.Umask, c.Stdout, c.Stderr = "blog", "nobody", data, 0o027, &out, &errs
		c.Env = []string{path, "LD_PRELOAD=/nonexistent.so"}
		if err := r.Run(t.Context(), c); err != nil {
			t.Errorf("%q: %v\n%s", c.Args, err, errs.String())
		}
		// bubblewrap is root's: an app's LD_PRELOAD in its environment would be root's too.
		if strings.Contains(errs.String(), "bwrap") {
			t.Errorf("bubblewrap has the app's environment: %s", errs.String())
		}
		return out.String()
	}
	if got := run(deployer.Command{Args: []string{"sh", "-c", script, "sh", base}, Writes: []string{data, filepath.Join(base, "none")}}); got != "" {
		t.Errorf("a command in a box:\n%s", got)
	}
	if got := run(deployer.Command{Args: []string{"sh", "-c", `touch "$1"/elsewhere/y || echo fails; touch /usr/x && echo writes /usr; cat "$1"/configuration/site.cfg; true`, "sh", base}}); got != "" {
		t.Errorf("a command that names no directories:\n%s", got)
	}
	empty(t, box.Scratch)

	// An app has the machine's process ids, and the rest as well.
	p := appProcess(base, "app")
	p.User, p.Umask, p.Writes = "nobody", 0o022, []string{data}
	p.Args = []string{"sh", "-c", `for f in "$1"/configuration/site.cfg "$1"/control.sock /tmp/scotch-outside*; do cat $f && echo reads $f; done
		touch "$1"/elsewhere/x && echo writes elsewhere; touch /tmp/x "$1"/data/x || echo writes nothing; echo $$ >"$1"/data/pid; exit 22`, "sh", base}
	app, err := r.Start(p)
	if err != nil {
		t.Fatal(err)
	}
	<-app.Done()
	if fmt.Sprint(app.Err()) != "exited with 22" {
		t.Errorf("the app ended: %v", app.Err())
	}
	if pid := logged(t, filepath.Join(data, "pid")); pid != app.PID() {
		t.Errorf("it is process %d, and says %d", app.PID(), pid)
	}
	if b, _ := os.ReadFile(p.Log); strings.Contains(string(b), "reads") || strings.Contains(string(b), "writes") {
		t.Errorf("an app in a box:\n%s", b)
	}
	empty(t, box.Scratch)
}

// inside are the processes whose command line holds a word.
func inside(word string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		if b, err := os.ReadFile(file); err == nil && slices.Contains(strings.Split(string(b), "\x00"), word) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// boxServer runs a command in a box, and waits to be killed.
func boxServer(site, scratch, word string) error {
	opts := quick
	opts.Box = &direct.Box{Scratch: scratch, Program: os.Args[0], Path: searched}
	return direct.New(site, opts).Run(context.Background(), deployer.Command{
		App: "blog", User: "nobody", Dir: "/", Env: []string{path}, Writes: []string{}, Stdout: os.Stdout,
		Args: []string{"sh", "-c", `for n in 1 2 3; do (env -i setsid sleep "$1" &) ; done; sleep "$1" & echo begun; wait`, "sh", word},
	})
}

// A command has process ids of its own, and ends with all that has them, at once.
func TestBoxEnds(t *testing.T) {
	box, base := openBox(t, nil)
	opts := quick
	opts.Box, opts.Interrupt = box, 300*time.Millisecond
	r := direct.New(filepath.Join(base, "run"), opts)
	word := "1000." + strconv.Itoa(os.Getpid())
	command := func(script string) deployer.Command {
		return deployer.Command{App: "blog", User: "nobody", Dir: "/", Env: []string{path}, Writes: []string{}, Args: []string{"sh", "-c", script, "sh", word}}
	}
	const daemons = `for n in 1 2 3; do (env -i setsid sleep "$1" &) ; done; echo begun; `
	for script, want := range map[string]string{
		daemons + "exit 3":     "sh exited with 3",
		daemons + "kill -9 $$": "sh was killed by SIGKILL",
		daemons:                "<nil>",
	} {
		c := command(script)
		if err := r.Run(t.Context(), c); fmt.Sprint(err) != want {
			t.Errorf("%s: %v", script, err)
		}
		if left := inside(word); len(left) > 0 {
			t.Errorf("%s: %d are left", script, left)
		}
	}

	// A deadline is told by SIGINT, to the command and not to what is around it.
	var out bytes.Buffer
	c := command(`trap 'echo interrupted; exit 7' INT; ` + daemons + `while :; do sleep 0.05; done`)
	c.Stdout, c.Timeout = &out, 300*time.Millisecond
	var late *deployer.TimeoutError
	if err := r.Run(t.Context(), c); !errors.As(err, &late) || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("%v, and said %q", err, out.String())
	}
	if left := inside(word); len(left) > 0 {
		t.Errorf("after a deadline %d are left", left)
	}

	// Who listens to nothing is killed.
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	in, w := io.Pipe()
	c = command(`trap '' INT TERM; (trap '' INT TERM; sleep "$1") & ` + daemons + `while :; do sleep 1; done`)
	c.Stdout = w
	errs := make(chan error, 1)
	go func() { errs <- r.Run(ctx, c) }()
	in.Read(make([]byte, 1))
	go io.Copy(io.Discard, in)
	cancel(errors.New("bob cancelled it"))
	if err := <-errs; err == nil || !strings.Contains(err.Error(), "bob") {
		t.Errorf("cancelled: %v", err)
	}
	if left := inside(word); len(left) > 0 {
		t.Errorf("after being cancelled %d are left", left)
	}
	empty(t, box.Scratch)

	// A server that is killed takes along what was to end with it.
	cmd := exec.Command(os.Args[0], filepath.Join(base, "run"), box.Scratch, word)
	cmd.Env = []string{helper + "=box"}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "begun\n" {
		t.Errorf("the server said %q, %v", line, err)
	}
	if n := len(inside(word)); n != 1+5 { // it, its command, the command's
		t.Errorf("%d processes of a server that runs", n)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); len(inside(word)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a server that was killed %d are left", inside(word))
		}
	}
	if _, err := r.Strays(t.Context(), nil); err != nil {
		t.Error(err)
	}
	empty(t, box.Scratch)

	// What can't be started says so as it does elsewhere.
	file := filepath.Join(base, "text")
	if err := os.WriteFile(file, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	c = command("")
	c.Args = []string{file}
	if err := r.Run(t.Context(), c); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("no program: %v", err)
	}
	closed := filepath.Join(base, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	c = command("true")
	c.Dir = closed
	if err := r.Run(t.Context(), c); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a directory that is closed: %v", err)
	}
	empty(t, box.Scratch)
}
