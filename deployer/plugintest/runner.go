package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"scotch/deployer"
)

// patience is how long the suite waits for what must come.
const patience = 30 * time.Second

// path is the PATH of the commands.
const path = "PATH=/usr/local/bin:/usr/bin:/bin"

// RunnerSuite checks what deployer.Runner promises. Each call of open is a
// server of one and the same site, started anew; an earlier one is not ended
// first, as if it had been killed. Its patience between the signals of a
// deadline should be short, a second or less.
func RunnerSuite(t *testing.T, open func(t *testing.T) deployer.Runner) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, open func(t *testing.T) deployer.Runner)
	}{
		{"output", testOutput},
		{"flood", testFlood},
		{"stdin", testStdin},
		{"terminal", testTerminal},
		{"environment", testEnvironment},
		{"arguments", testArguments},
		{"umask", testUmask},
		{"status", testStatus},
		{"not found", testNotFound},
		{"unknown user", testUnknownUser},
		{"deadline", testDeadline},
		{"deadline interrupts first", testInterrupt},
		{"stubborn", testStubborn},
		{"cancelled", testCancelled},
		{"right taken back", testTakenBack},
		{"daemon of a command", testDaemon},
		{"start and stop", testStart},
		{"how it ended", testErr},
		{"start again", testAgain},
		{"stop ends the group", testStopGroup},
		{"stop of a stubborn process", testStopStubborn},
		{"adopt", testAdopt},
		{"adopt what is gone", testAdoptGone},
		{"strays", testStrays},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

func sh(script string, args ...string) []string {
	return append([]string{"sh", "-c", script, "sh"}, args...)
}

func command(script string, args ...string) deployer.Command {
	return deployer.Command{Args: sh(script, args...), Env: []string{path}, Umask: -1, App: "blog-api"}
}

func testOutput(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	var both, stdout, stderr bytes.Buffer
	c := command(`echo one; echo two >&2; echo three`)
	c.Stdout, c.Stderr = &both, &both
	run(t, r, c)
	if got := both.String(); got != "one\ntwo\nthree\n" {
		t.Errorf("one writer for both got %q", got)
	}
	c.Stdout, c.Stderr = &stdout, &stderr
	run(t, r, c)
	if stdout.String() != "one\nthree\n" || stderr.String() != "two\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	c.Stdout, c.Stderr = nil, nil
	run(t, r, c)

	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.Stdout, c.Stderr = f, f
	run(t, r, c)
	if b, _ := os.ReadFile(f.Name()); string(b) != "one\ntwo\nthree\n" {
		t.Errorf("the file got %q", b)
	}
}

func testFlood(t *testing.T, open func(t *testing.T) deployer.Runner) {
	const size = 20 << 20
	var n counter
	c := command(`head -c "$1" /dev/zero; head -c "$1" /dev/zero >&2`, strconv.Itoa(size))
	c.Stdout, c.Stderr = &n, &n
	run(t, open(t), c)
	if n != 2*size {
		t.Errorf("%d bytes came of %d", n, 2*size)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func testStdin(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	var out bytes.Buffer
	c := command(`cat; echo end`)
	c.Stdin, c.Stdout = strings.NewReader(strings.Repeat("x", 1<<20)), &out
	run(t, r, c)
	if out.Len() != 1<<20+4 {
		t.Errorf("%d bytes came back", out.Len())
	}
	out.Reset()
	c.Stdin = nil
	run(t, r, c)
	if out.String() != "end\n" {
		t.Errorf("without input it printed %q", out.String())
	}
	// A command that does not read must not wait for its input's end.
	in, w := io.Pipe()
	defer w.Close()
	c = command(`exit 0`)
	c.Stdin = in
	run(t, r, c)
}

func testEnvironment(t *testing.T, open func(t *testing.T) deployer.Runner) {
	t.Setenv("SECRET_OF_THE_SERVER", "leaked")
	dir := t.TempDir()
	var out bytes.Buffer
	c := deployer.Command{
		Args: []string{"env"}, Dir: dir, Umask: -1, Stdout: &out,
		Env: []string{path, "A=1", "EMPTY=", "LINES=one\ntwo", "D=$HOME %x", "CRLF=one\r\ntwo\x1b", "RAW=\xff\xfe", "LONG=" + strings.Repeat("x", 100_000)},
	}
	run(t, open(t), c)
	got := "\n" + out.String()
	for _, kv := range c.Env {
		if !strings.Contains(got, "\n"+kv+"\n") {
			t.Errorf("%q is missing in %q", kv, got)
		}
	}
	for _, name := range []string{"SECRET_OF_THE_SERVER", "HOME", "USER"} {
		if strings.Contains(got, "\n"+name+"=") {
			t.Errorf("%s is in the environment, and nobody gave it", name)
		}
	}
	out.Reset()
	c = command(`pwd`)
	c.Dir, c.Stdout = dir, &out
	run(t, open(t), c)
	if strings.TrimSpace(out.String()) != dir {
		t.Errorf("it ran in %q, not in %q", out.String(), dir)
	}
}

// Nothing between the server and the program expands or splits an argument.
func testArguments(t *testing.T, open func(t *testing.T) deployer.Runner) {
	args := []string{"$HOME", "${PATH}", "%n %i %%", "a b", "", "'\"", "\\x20", "one\ntwo", "\xff", "@x", "-", ";"}
	var out bytes.Buffer
	c := command(`for a; do printf '%s\0' "$a"; done`, args...)
	c.Stdout = &out
	run(t, open(t), c)
	if want := strings.Join(args, "\x00") + "\x00"; out.String() != want {
		t.Errorf("the arguments are %q, want %q", out.String(), want)
	}
}

func testUmask(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	for umask, want := range map[int]string{0: "0022", 0o027: "0027", 0o077: "0077", 0o002: "0002"} {
		var out bytes.Buffer
		c := command(`umask; env`)
		c.Umask, c.Stdout = umask, &out
		run(t, r, c)
		got, env, _ := strings.Cut(out.String(), "\n")
		if got != want {
			t.Errorf("umask %04o: the command has %s", umask, got)
		}
		if strings.Contains(env, "OLDPWD=") {
			t.Errorf("umask %04o: more than asked for in the environment: %q", umask, env)
		}
	}
	// The server's own is as it was.
	dir := filepath.Join(t.TempDir(), "d")
	own := syscall.Umask(0o022)
	syscall.Umask(own)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || int(info.Mode().Perm()) != 0o777&^own {
		t.Errorf("the server's own umask has changed: %v %v", info.Mode(), err)
	}
}

func testStatus(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	var exit *deployer.ExitError
	if err := r.Run(t.Context(), command(`exit 3`)); !errors.As(err, &exit) || exit.Status != 3 || exit.Name != "sh" || exit.Signal != "" {
		t.Errorf("exit 3 gave %#v", err)
	}
	if err := r.Run(t.Context(), command(`kill -9 $$`)); !errors.As(err, &exit) || exit.Status != -1 || exit.Signal != "SIGKILL" {
		t.Errorf("kill -9 gave %#v", err)
	}
}

func testNotFound(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	for _, c := range []deployer.Command{
		{Args: []string{"no-such-program"}, Env: []string{path}},
		{Args: []string{"/no/such/program"}, Env: []string{path}},
		{Args: []string{"sh", "-c", "exit 0"}, Env: []string{"PATH="}},
		{Args: []string{"sh", "-c", "exit 0"}, Env: []string{path}, Dir: "/no/such/directory"},
		{Env: []string{path}},
	} {
		err := r.Run(t.Context(), c)
		var exit *deployer.ExitError
		if err == nil || errors.As(err, &exit) {
			t.Errorf("%q in %q gave %v", c.Args, c.Dir, err)
		}
	}
}

func testUnknownUser(t *testing.T, open func(t *testing.T) deployer.Runner) {
	c := command(`exit 0`)
	c.User = "scotch-nobody-has-this"
	if err := open(t).Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.User) {
		t.Errorf("the error does not name the user: %v", err)
	}
}

func testDeadline(t *testing.T, open func(t *testing.T) deployer.Runner) {
	f := newFIFO(t)
	c := command(`sleep 1000 & echo $! >"$1"; wait`, f.path)
	c.Timeout = time.Second
	errs := background(t, open(t), t.Context(), c)
	pid := f.pid(t)
	var timeout *deployer.TimeoutError
	if err := await(t, errs); !errors.As(err, &timeout) || timeout.Name != "sh" || timeout.After != time.Second {
		t.Errorf("the deadline gave %#v", err)
	}
	gone(t, pid)

	// One that is far away does not matter.
	c = command(`exit 0`)
	c.Timeout = 24 * 365 * time.Hour
	run(t, open(t), c)
}

// Python prints where it hangs when it is interrupted: the best evidence of a
// build that is stuck.
func testInterrupt(t *testing.T, open func(t *testing.T) deployer.Runner) {
	var out syncBuffer
	c := deployer.Command{
		Args: []string{"python3", "-c", "import time\ndef stuck(): time.sleep(1000)\nstuck()"},
		Env:  []string{path}, Stdout: &out, Stderr: &out, Timeout: time.Second,
	}
	var timeout *deployer.TimeoutError
	if err := open(t).Run(t.Context(), c); !errors.As(err, &timeout) {
		t.Errorf("the deadline gave %v", err)
	}
	if !strings.Contains(out.String(), "in stuck") || !strings.Contains(out.String(), "KeyboardInterrupt") {
		t.Errorf("no traceback: %q", out.String())
	}
}

func testStubborn(t *testing.T, open func(t *testing.T) deployer.Runner) {
	f := newFIFO(t)
	c := command(`trap "" INT TERM HUP; (trap "" INT TERM; echo $$ >"$1"; while :; do sleep 1000; done) & while :; do sleep 1000; done`, f.path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := background(t, open(t), ctx, c)
	pid := f.pid(t)
	cancel()
	if err := await(t, errs); !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled command gave %v", err)
	}
	gone(t, pid)
}

func testCancelled(t *testing.T, open func(t *testing.T) deployer.Runner) {
	r := open(t)
	f := newFIFO(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := background(t, r, ctx, command(`echo $$ >"$1"; sleep 1000; exit 0`, f.path))
	pid := f.pid(t)
	why := errors.New("bob cancelled it")
	cancel(why)
	if err := await(t, errs); !errors.Is(err, why) {
		t.Errorf("the cancelled command gave %v", err)
	}
	gone(t, pid)
	if err := r.Run(ctx, command(`exit 0`)); !errors.Is(err, why) {
		t.Errorf("a command with a context that is over gave %v", err)
	}
}

// takenBack is the cause of an end that leaves no time.
type takenBack struct{}

func (takenBack) Error() string { return "bob may not do this any more" }
func (takenBack) AtOnce() bool  { return true }

// A command that listens to no signal, nor its child, which left its session.
func testTakenBack(t *testing.T, open func(t *testing.T) deployer.Runner) {
	f := newFIFO(t)
	c := command(`trap "" INT TERM HUP; setsid sh -c 'trap "" INT TERM; echo $$ >"$1"; while :; do sleep 1000; done' sh "$1" & while :; do sleep 1000; done`, f.path)
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := background(t, open(t), ctx, c)
	pid := f.pid(t)
	begin := time.Now()
	cancel(takenBack{})
	if err := await(t, errs); !errors.Is(err, takenBack{}) {
		t.Errorf("the command gave %v", err)
	}
	gone(t, pid)
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it went on for %s", took)
	}
}

// daemonise leaves the session and the parent, keeps the standard files, and
// writes its number to the file that it is given. "bare" gives the environment up
// too, which takes another program.
const daemonise = `
import os, sys, time, signal
if os.fork(): sys.exit(0)
os.setsid()
if os.fork(): os._exit(0)
if "bare" in sys.argv: os.execve("/usr/bin/env", ["env", "-i", "sh", "-c", 'echo $$ >"$1"; exec sleep 1000', "sh", sys.argv[1]], {})
if "stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "w") as f: f.write("%d\n" % os.getpid())
time.sleep(1000)
`

func testDaemon(t *testing.T, open func(t *testing.T) deployer.Runner) {
	for _, how := range []string{"", "stubborn", "bare"} {
		f, on := newFIFO(t), newFIFO(t)
		var out syncBuffer
		c := deployer.Command{
			Args: sh(`python3 -c "$1" "$2" "$3"; read go <"$4"; echo done`, daemonise, f.path, how, on.path),
			Env:  []string{path}, Stdout: &out, Stderr: &out,
		}
		errs := background(t, open(t), t.Context(), c)
		pid := f.pid(t)
		fmt.Fprintln(on.f, "go") // the command ends only now that its daemon is there
		if err := await(t, errs); err != nil {
			t.Errorf("%v, output %q", err, out.String())
		}
		if out.String() != "done\n" {
			t.Errorf("output %q", out.String())
		}
		gone(t, pid)
	}
}
