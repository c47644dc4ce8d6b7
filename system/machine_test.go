package system

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var releases = []string{"bookworm", "trixie"}

// packages are what is in a root, beside what is essential.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "sudo", "procps", "iproute2", "ca-certificates", "acl",
	"python3", "python3-venv", "python3-pip", "nginx", "uwsgi-core", "uwsgi-plugin-python3",
	"git", "openssh-client", "curl",
}

const (
	rootTime    = 10 * time.Minute
	bootTime    = 2 * time.Minute
	commandTime = 3 * time.Minute
)

// machine is a container that runs systemd.
type machine struct {
	t       *testing.T
	release string
	root    string
	name    string
	groups  []string // control groups
	nspawn  *exec.Cmd
	ended   chan struct{} // closed when nspawn has
	console bytes.Buffer  // to be read after that
}

// each runs a test on a machine of every release.
func each(t *testing.T, test func(t *testing.T, m *machine)) {
	t.Helper()
	on(t, strings.Join(releases, " "), test)
}

// on runs a test on a machine of each of some releases.
func on(t *testing.T, releases string, test func(t *testing.T, m *machine)) {
	t.Helper()
	if os.Getenv(asked) == "" {
		t.Skip("boots containers: make test-system")
	}
	for _, program := range []string{"debootstrap", "systemd-nspawn", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v\ninstall it: apt-get install debootstrap systemd-container util-linux", err)
		}
	}
	for _, release := range strings.Fields(releases) {
		t.Run(release, func(t *testing.T) { test(t, boot(t, release)) })
	}
}

// base returns the root of a release, which is made where it is missing.
func base(t *testing.T, release string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, ",")))
	dir := filepath.Join(cache, "scotch", "system", release+"-"+hex.EncodeToString(sum[:4]))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(dir), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() // and with it the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	begin := time.Now()
	half := dir + ".half"
	if err := os.RemoveAll(half); err != nil {
		t.Fatal(err)
	}
	// It can be made again: nothing is brought to disk at once, nor what nobody reads.
	lean := filepath.Join(half, "etc/dpkg/dpkg.cfg.d/lean")
	if err := os.MkdirAll(filepath.Dir(lean), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lean, []byte("force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--variant=minbase", "--include=" + strings.Join(packages, ","), release, half}
	if m := mirror(); m != "" {
		args = append(args, m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), rootTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "debootstrap", args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if p := proxy(); p != "" {
		cmd.Env = append(cmd.Env, "http_proxy="+p)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, tail(string(out), 20))
	}
	if err := os.RemoveAll(filepath.Join(half, "var/cache/apt/archives")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(half, dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("made %s in %s", dir, time.Since(begin).Round(time.Second))
	return dir
}

// startInit begins the container. In version 1 of control groups nspawn mounts
// the controllers read-only, and systemd then goes without them.
const startInit = `#!/bin/sh
for c in memory pids cpu cpuacct; do
	[ -d /sys/fs/cgroup/$c ] && mount -o remount,bind,rw /sys/fs/cgroup/$c
done
exec /lib/systemd/systemd
`

func boot(t *testing.T, release string) *machine {
	t.Helper()
	lower := base(t, release)
	rw, err := os.MkdirTemp(os.Getenv(within), release+"-")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, release: release, root: filepath.Join(rw, "root")}
	t.Cleanup(func() {
		m.powerOff()
		if err := unix.Unmount(m.root, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("unmount %s: %v", m.root, err)
		}
		os.RemoveAll(rw)
		for _, g := range m.groups {
			removeGroup(g)
		}
	})
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(rw, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", m.root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, rw, rw)); err != nil {
		t.Fatal(err)
	}
	m.name = filepath.Base(os.Getenv(within)) + "-" + strings.TrimPrefix(filepath.Base(rw), release+"-")
	m.write("/sbin/start-init", startInit, 0o755)
	m.write("/etc/hostname", m.name+"\n", 0o644)
	m.write("/etc/hosts", "127.0.0.1 localhost "+m.name+"\n", 0o644)

	for _, c := range controllers() {
		m.groups = append(m.groups, filepath.Join(c, m.name))
	}
	for _, g := range m.groups {
		if err := os.Mkdir(g, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.launch()
	return m
}

// launch boots what is in the root.
func (m *machine) launch() {
	m.t.Helper()
	m.nspawn = exec.Command("sh", append([]string{"-c", `
		machine=$1 root=$2; shift 2
		for g; do echo $$ >"$g/cgroup.procs" || exit 1; done
		exec systemd-nspawn --quiet -D "$root" --machine="$machine" --register=no --keep-unit --private-network --console=pipe /sbin/start-init`,
		"sh", m.name, m.root}, m.groups...)...)
	m.nspawn.Stdout, m.nspawn.Stderr = &m.console, &m.console
	m.nspawn.WaitDelay = 5 * time.Second
	begin := time.Now()
	if err := m.nspawn.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.ended = ended
	go func(nspawn *exec.Cmd) { defer close(ended); nspawn.Wait() }(m.nspawn)
	m.awaitBoot()
	m.t.Logf("%s booted in %s", m.release, time.Since(begin).Round(100*time.Millisecond))
}

// removeGroup removes a control group and those in it.
func removeGroup(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != dir {
			removeGroup(path)
			return filepath.SkipDir
		}
		return nil
	})
	syscall.Rmdir(dir)
}

// init is the container's first process, 0 while there is none.
func (m *machine) init() int {
	pid := m.nspawn.Process.Pid
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	for f := range strings.FieldsSeq(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			return n
		}
	}
	return 0
}

// awaitBoot waits for the first process, and for all that it starts.
func (m *machine) awaitBoot() {
	m.t.Helper()
	deadline := time.Now().Add(bootTime)
	last := "nothing came up"
	for time.Now().Before(deadline) {
		select {
		case <-m.ended:
			m.t.Fatalf("the container ended:\n%s", tail(m.console.String(), 20))
		case <-time.After(200 * time.Millisecond):
		}
		pid := m.init()
		if pid == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
		out, err := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(pid), "-a", "systemctl", "is-system-running", "--wait").CombinedOutput()
		cancel()
		last = strings.TrimSpace(string(out))
		if err == nil {
			return
		}
		if last == "degraded" {
			m.t.Fatalf("not everything was started:\n%s", m.sh("systemctl --failed --no-legend; journalctl -b -p warning -n 30 --no-pager"))
		}
	}
	m.t.Fatalf("%s did not boot within %s: %s", m.release, bootTime, last)
}

// try runs a command inside and returns its output and exit status.
func (m *machine) try(stdin string, args ...string) (string, int) {
	m.t.Helper()
	// Not the test's context: clean-ups call this too.
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := m.command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), 0
	case errors.As(err, &exit) && exit.Exited():
		return string(out), exit.ExitCode()
	}
	m.t.Fatalf("%q: %v\n%s", args, err, out)
	return "", 0
}

// command is one that runs inside, as root in root's home.
func (m *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	pre := []string{
		"-t", strconv.Itoa(m.init()), "-a", "systemd-run", "--quiet", "--pipe", "--wait", "--collect",
		"--working-directory=/root", "--setenv=HOME=/root", "--setenv=LANG=C.UTF-8", "--setenv=" + asked + "=inside", "--",
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(pre, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run is a try that must exit with 0.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, status := m.try("", args...)
	if status != 0 {
		m.t.Fatalf("%q exited with %d\n%s", args, status, out)
	}
	return out
}

func (m *machine) sh(script string) string {
	m.t.Helper()
	return m.run("bash", "-euc", script)
}

// eventually polls what comes by itself.
func (m *machine) eventually(what string, check func() error) {
	m.t.Helper()
	begin := time.Now()
	for {
		err := check()
		if err == nil {
			m.t.Logf("%s: after %s", what, time.Since(begin).Round(10*time.Millisecond))
			return
		}
		if time.Since(begin) > time.Minute {
			m.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (m *machine) write(to, text string, mode fs.FileMode) {
	m.t.Helper()
	path := m.outside(to)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) copy(from, to string, mode fs.FileMode) {
	m.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(to, string(b), mode)
}

// outside is where a file of the container is, whose directory is made. /tmp and
// /run are the container's own, and not here.
func (m *machine) outside(path string) string {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// reboot powers off in order and boots again: only what is on disk is still there.
func (m *machine) reboot() {
	m.t.Helper()
	begin := time.Now()
	m.powerOff()
	m.t.Logf("powered off in %s", time.Since(begin).Round(100*time.Millisecond))
	m.launch()
}

// powerOff ends the container, by force where it does not end by itself.
func (m *machine) powerOff() {
	if m.ended == nil {
		return // it was never started
	}
	pid := m.init()
	if m.t.Failed() && pid != 0 {
		out, _ := m.try("", "sh", "-c", "systemctl --failed --no-legend; journalctl -b --no-pager -n 4000 | grep -v 'run-u[0-9]*.service' | tail -n 80")
		m.t.Logf("its journal:\n%s", out)
	}
	if pid != 0 {
		syscall.Kill(pid, syscall.Signal(34+4)) // SIGRTMIN+4: power off
	}
	select {
	case <-m.ended:
		return
	case <-time.After(45 * time.Second):
	}
	m.t.Logf("it did not power off:\n%s", tail(m.console.String(), 10))
	if pid := m.init(); pid != 0 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	m.nspawn.Process.Kill()
	<-m.ended
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// build compiles a program or a package's tests for any release.
func build(t *testing.T, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", append([]string{args[0], "-o", out}, args[1:]...)...)
	if args[0] == "test" {
		cmd = exec.CommandContext(t.Context(), "go", "test", "-c", "-o", out, args[1])
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, b)
	}
	return out
}
