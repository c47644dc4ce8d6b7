package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata/seed are the page of scotch 0.3, example by example,
// in system mode and at the real paths: /etc/scotch.cfg, /var/local/scotch,
// /etc/nginx/sites-enabled. Each runs in a world of its own, which ends with
// it: a root of its own in memory (mount_namespaces(7)) with the machine's /usr
// and a copy of its /etc, processes of its own, a network that has only the
// loopback interface. So users are made, nginx is started and port 80 is taken
// without anything of that being true on the machine.
//
// Commands of their own, beside those of testscript:
//
//	serve [FLAG…]     start scotch serve and wait until it is ready
//	end               end it and wait for its end
//	tree FILE PATH…   list all below the paths, with modes, owners, times and sums
//	waitfor N CMD…    run a command until it exits with N
//	serverlog         what the server wrote, as the stdout
//
// $WHEELS is a directory with wheels of greeter 1 and 2, which has a function
// greet, and of uWSGI for this Python where the package index could be reached.
func TestSeed(t *testing.T) {
	switch os.Getenv(seedStage) {
	case "world":
		os.Exit(seedWorld(os.Getenv(seedRoot)))
	case "script":
		testscript.Run(t, testscript.Params{
			Files: []string{os.Getenv(seedScript)}, WorkdirRoot: "/srv", TestWork: true,
			RequireExplicitExec: true, RequireUniqueNames: true, Setup: setupSeed,
			Condition: func(cond string) (bool, error) {
				wheels, err := filepath.Glob("/srv/wheels/pyuwsgi-*.whl")
				return cond == "uwsgi-wheel" && len(wheels) > 0, err
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"serve": seedServe, "end": seedEnd, "tree": seedTree, "waitfor": seedWaitFor,
				"serverlog": func(ts *testscript.TestScript, _ bool, _ []string) {
					fmt.Fprint(ts.Stdout(), serverOf(ts).log.String())
				},
			},
		})
		return
	}
	if testing.Short() {
		t.Skip("the scripts start servers; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a world of its own for each script (namespaces, users); run as root")
	}
	program := buildProgram(t)
	// Where it is there it spares pip's seconds.
	uv, err := exec.LookPath("uv")
	if err != nil {
		uv = ""
	} else if uv, err = filepath.EvalSymlinks(uv); err != nil {
		t.Fatal(err)
	}
	wheels := seedWheels(t)
	scripts, err := filepath.Glob("testdata/seed/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runSeed(t, program, uv, wheels, script)
		})
	}
}

// The stages of a script: this process starts "world" in new namespaces, as
// their first process, which starts "script" when all is in its place.
const (
	seedStage  = "SCOTCH_TEST_SEED_STAGE"
	seedRoot   = "SCOTCH_TEST_SEED_ROOT"
	seedScript = "SCOTCH_TEST_SEED_SCRIPT"
	seedUV     = "SCOTCH_TEST_SEED_UV"
)

// seedHome is root's home directory in a script's world.
const seedHome = "/root"

func runSeed(t *testing.T, program, uv, wheels, script string) {
	root, err := os.MkdirTemp("/tmp", "seed")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	outside := filepath.Join(root, "outside")
	if err := os.MkdirAll(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"scotch": program, filepath.Base(script): script} {
		if out, err := exec.Command("cp", from, filepath.Join(outside, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if out, err := exec.Command("cp", "-r", wheels, filepath.Join(outside, "wheels")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	// Pdeathsig is sent when the thread ends that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestSeed$")
	cmd.Env = []string{
		seedStage + "=world", seedRoot + "=" + root, seedUV + "=" + uv, seedScript + "=/seed/" + filepath.Base(script),
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "GORACE=" + quickRace,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("this machine gives no namespaces to its root (%v); run where it does", err)
	}
	if strings.Contains(out.String(), "--- SKIP") {
		t.Skip(out.String())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if testing.Verbose() {
		t.Log(out.String())
	}
}

// seedWheels makes wheels (PEP 427) of a package, and gets uWSGI's from the
// index: no index can be reached from the scripts.
func seedWheels(t *testing.T) string {
	dir := t.TempDir()
	const wheel = `
import sys, zipfile
for v in "1", "2":
    with zipfile.ZipFile(f"{sys.argv[1]}/greeter-{v}-py3-none-any.whl", "w") as z:
        z.writestr("greeter.py", f'def greet(): return "Hello from greeter {v}"\n')
        info = f"greeter-{v}.dist-info/"
        z.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: greeter\nVersion: {v}\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "RECORD", f"greeter.py,,\n{info}METADATA,,\n{info}WHEEL,,\n{info}RECORD,,\n")
`
	if out, err := exec.Command("/usr/bin/python3", "-c", wheel, dir).CombinedOutput(); err != nil {
		t.Fatalf("making wheels: %v\n%s", err, out)
	}
	venv := filepath.Join(t.TempDir(), "venv")
	for _, args := range [][]string{
		{"/usr/bin/python3", "-m", "venv", venv},
		{venv + "/bin/python", "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", dir, "pyuwsgi>=2.0.21,<2.1"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Logf("no wheel of uWSGI, one script will be skipped: %v\n%s", err, out)
			break
		}
	}
	return dir
}

// seedServer is the server of a script.
type seedServer struct {
	cmd    *exec.Cmd
	exited chan struct{}
	log    *lockedBuffer
}

type seedServerKey struct{}

func serverOf(ts *testscript.TestScript) *seedServer {
	return ts.Value(seedServerKey{}).(*seedServer)
}

func setupSeed(e *testscript.Env) error {
	e.Values[seedServerKey{}] = &seedServer{log: &lockedBuffer{}}
	e.Setenv("HOME", seedHome)
	e.Setenv("TMPDIR", "/tmp")
	e.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	e.Setenv("LANG", "C.UTF-8")
	e.Setenv("GORACE", quickRace)
	e.Setenv("WHEELS", "/srv/wheels")
	config := "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n"
	if err := os.WriteFile(seedHome+"/.gitconfig", []byte(config), 0o644); err != nil {
		return err
	}
	// The distribution's nginx runs already.
	if out, err := exec.Command("nginx").CombinedOutput(); err != nil {
		return fmt.Errorf("starting nginx: %w: %s", err, out)
	}
	return nil
}

func seedServe(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	r, w := io.Pipe()
	s.cmd = exec.Command("/usr/local/bin/scotch", append(slices.Clone(args), "serve")...)
	s.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "PATH", "LANG", "GORACE", "GIT_SSL_CAINFO"} {
		if v := ts.Getenv(name); v != "" {
			s.cmd.Env = append(s.cmd.Env, name+"="+v)
		}
	}
	s.cmd.Stdout, s.cmd.Stderr = io.MultiWriter(s.log, w), s.log
	ts.Check(s.cmd.Start())
	s.exited = make(chan struct{})
	go func() {
		s.cmd.Wait()
		w.Close()
		close(s.exited)
	}()
	ready := make(chan bool, 1)
	go func() {
		var text []byte
		buf := make([]byte, 4096)
		for told := false; ; {
			n, err := r.Read(buf)
			if text = append(text, buf[:n]...); !told && strings.HasSuffix(string(text), "\nready\n") {
				told = true
				ready <- true
			}
			if err != nil {
				return
			}
		}
	}()
	select {
	case <-ready:
		if neg {
			ts.Fatalf("the server has started:\n%s", s.log.String())
		}
	case <-s.exited:
		s.cmd = nil
		if !neg {
			ts.Fatalf("the server ended at once:\n%s", s.log.String())
		}
	case <-time.After(time.Minute):
		ts.Fatalf("the server is not ready after a minute:\n%s", s.log.String())
	}
}

func seedEnd(ts *testscript.TestScript, _ bool, _ []string) {
	s := serverOf(ts)
	ts.Check(s.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		ts.Fatalf("the server does not end:\n%s", s.log.String())
	}
	if strings.Contains(s.log.String(), "DATA RACE") {
		ts.Fatalf("the server has a data race:\n%s", s.log.String())
	}
}

// seedTree writes what can be seen of all files below some paths into a file.
func seedTree(ts *testscript.TestScript, _ bool, args []string) {
	var b strings.Builder
	for _, path := range args[1:] {
		if to, err := filepath.EvalSymlinks(path); err == nil {
			path = to // what it leads to
		}
		ts.Check(filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			st := fi.Sys().(*syscall.Stat_t)
			fmt.Fprintf(&b, "%s %s %d:%d %s", p, fi.Mode(), st.Uid, st.Gid, fi.ModTime().Format(time.RFC3339Nano))
			switch {
			case fi.Mode().IsRegular():
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, " %x", sha256.Sum256(data))
			case fi.Mode()&fs.ModeSymlink != 0:
				to, err := os.Readlink(p)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, " -> %s", to)
			}
			b.WriteByte('\n')
			return nil
		}))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o644))
}

// seedWaitFor waits for what becomes true by itself, a little later.
func seedWaitFor(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		out, _ := cmd.CombinedOutput()
		if fmt.Sprint(cmd.ProcessState.ExitCode()) == args[0] {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v still exits with %d\n%s\nserver:\n%s", args[1:], cmd.ProcessState.ExitCode(), out, serverOf(ts).log.String())
		}
	}
}
