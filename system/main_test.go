package system

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// asked is set by make test-system.
	asked = "SCOTCH_TEST_SYSTEM"
	// within names, for the tests, the directory that their machines are in.
	within = "SCOTCH_TEST_SYSTEM_DIR"
)

// TestMain runs the tests in namespaces of mounts and processes of their own, so
// that nothing can be left of them, however they end: the kernel ends the
// containers with the tests and unmounts their roots. What is not in a namespace
// is removed here.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asked) == "":
		os.Exit(m.Run()) // which skips them
	case os.Getenv(within) == "":
		os.Exit(supervise())
	}
	if err := settle(); err != nil {
		skip(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// skip says loudly why nothing was tested.
func skip(why error) {
	fmt.Fprintf(os.Stderr, "\n*** SKIPPED: no test on real systemd, for this machine can't boot a container: %v ***\n\n", why)
}

// supervise runs the tests again, within namespaces, and cleans up behind them.
func supervise() int {
	if os.Geteuid() != 0 {
		skip(errors.New("only root can"))
		return 0
	}
	dir, err := os.MkdirTemp("", "scotch-system-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		os.Remove(dir) // the machines' own directories are in a mount of the namespace
		for _, c := range controllers() {
			left, _ := filepath.Glob(filepath.Join(c, filepath.Base(dir)+"-*"))
			for _, g := range left {
				removeGroup(g)
			}
		}
	}()
	runtime.LockOSThread() // the thread's end would be the death that the kernel tells of
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), within+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
		Setpgid: true, // Ctrl-C is this process's alone
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) {
			skip(fmt.Errorf("no namespaces: %w", err))
			return 0
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		// What is more than SIGKILL to the first process of a namespace?
		fmt.Fprintf(os.Stderr, "%s: the containers are ended\n", <-stop)
		cmd.Process.Kill()
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// settle makes the namespaces fit, and tries what booting takes.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	// That of this namespace of processes.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	dir := os.Getenv(within)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755,size=90%"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	root := filepath.Join(dir, "probe")
	for _, d := range []string{"", "lower", "upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", root)
	if err := unix.Mount("overlay", filepath.Join(root, "root"), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	unix.Unmount(filepath.Join(root, "root"), unix.MNT_DETACH)
	os.RemoveAll(root)
	groups := controllers()
	if len(groups) == 0 {
		return errors.New("there are no control groups at /sys/fs/cgroup")
	}
	for _, c := range groups {
		g := filepath.Join(c, filepath.Base(dir)+"-probe")
		if err := os.Mkdir(g, 0o755); err != nil {
			return fmt.Errorf("make a control group: %w", err)
		}
		if err := os.Remove(g); err != nil {
			return err
		}
	}
	return nil
}

// controllers are the hierarchies of control groups that a machine gets a group of
// its own in: two systemds would take each other's units of one name for theirs.
func controllers() []string {
	var all []string
	for _, c := range []string{"memory", "pids", "cpu", "cpuacct", "systemd", "unified", "."} {
		dir := filepath.Join("/sys/fs/cgroup", c)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			all = append(all, dir)
		}
	}
	return all
}

// mirror is where the machine's own apt gets Debian from, "" where it does not:
// debootstrap has a default of its own.
func mirror() string {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Identifier: Packages").Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Debian" && f[1] == "Debian" && strings.HasPrefix(f[2], "http") {
			return strings.TrimSuffix(f[2], "/")
		}
	}
	return ""
}

// proxy is the one that the machine's apt goes through, "" for none.
func proxy() string {
	out, err := exec.Command("sh", "-c", `eval "$(apt-config shell P Acquire::http::Proxy)"; echo "$P"`).Output()
	if p := strings.TrimSpace(string(out)); err == nil && p != "DIRECT" {
		return p
	}
	return ""
}
