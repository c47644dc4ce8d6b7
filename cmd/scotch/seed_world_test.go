package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// seedWorld is the first process of a script's namespaces: it makes the root,
// runs the script in it and reaps what loses its parent. When it ends, the
// kernel ends everything else.
func seedWorld(root string) int {
	if err := enterSeedWorld(root); err != nil {
		fmt.Fprintln(os.Stderr, "making the world of the script:", err)
		return 1
	}
	os.Setenv(seedStage, "script")
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"test", "-test.run=^TestSeed$", "-test.v"}, &syscall.ProcAttr{
		Dir: seedHome, Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the script:", err)
		return 1
	}
	for {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &status, 0, nil); {
		case err != nil && err != syscall.EINTR:
			return 1
		case got == pid:
			if status.Exited() {
				return status.ExitStatus()
			}
			return 1
		}
	}
}

func enterSeedWorld(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	outside := filepath.Join(root, "outside")
	dir := filepath.Join(root, "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	in := func(path string) string { return filepath.Join(dir, path) }
	bind := func(path string, flags uintptr) error {
		if err := os.MkdirAll(in(path), 0o755); err != nil {
			return err
		}
		if err := unix.Mount(path, in(path), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if flags == 0 {
			return nil
		}
		return unix.Mount("", in(path), "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
	}
	for _, path := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		if to, err := os.Readlink(path); err == nil {
			if err := os.Symlink(to, in(path)); err != nil {
				return err
			}
		} else if _, err := os.Stat(path); err == nil {
			if err := bind(path, unix.MS_RDONLY); err != nil {
				return err
			}
		}
	}
	for _, path := range []string{"/dev", "/sys"} {
		if err := bind(path, 0); err != nil {
			return err
		}
	}
	for path, mode := range map[string]fs.FileMode{
		"/proc": 0o555, "/tmp": 0o777 | fs.ModeSticky, "/var/tmp": 0o777 | fs.ModeSticky, "/run": 0o755, seedHome: 0o700, "/srv": 0o755, "/seed": 0o755,
		"/var/local": 0o755, "/var/log/nginx": 0o755, "/var/lib/nginx": 0o755, "/var/cache": 0o755,
	} {
		if err := os.MkdirAll(in(path), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(in(path), mode); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", in("/proc"), "proc", 0, ""); err != nil {
		return err
	}
	// What administrators install by hand is not part of this.
	if err := unix.Mount("tmpfs", in("/usr/local"), "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	if err := os.Mkdir(in("/usr/local/bin"), 0o755); err != nil {
		return err
	}
	if uv := os.Getenv(seedUV); uv != "" {
		if err := os.WriteFile(in("/usr/local/bin/uv"), nil, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(uv, in("/usr/local/bin/uv"), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", uv, err)
		}
	}
	script := os.Getenv(seedScript)
	for _, args := range [][]string{
		{"cp", "-a", "/etc", in("/etc")},
		{"cp", filepath.Join(outside, "scotch"), in("/usr/local/bin/scotch")},
		{"cp", filepath.Join(outside, filepath.Base(script)), in(script)},
		{"cp", "-r", filepath.Join(outside, "wheels"), in("/srv/wheels")},
		{"chmod", "-R", "a+rX", in("/srv/wheels")},
		// What belongs to this machine's own servers, and Debian's default site:
		// it owns every host on port 80.
		{"find", in("/etc/nginx/sites-enabled"), in("/etc/nginx/conf.d"), "-mindepth", "1", "-delete"},
		{"rm", "-rf", in("/etc/scotch"), in("/etc/scotch.cfg"), in("/etc/uwsgi")},
		{"sed", "-i", `/^scotch[-:]/d`, in("/etc/passwd"), in("/etc/shadow"), in("/etc/group"), in("/etc/gshadow")},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	if err := unix.Chroot(dir); err != nil {
		return err
	}
	if err := os.Chdir(seedHome); err != nil {
		return err
	}
	// The user that git runs as.
	add := exec.Command("useradd", "--system", "--user-group", "--create-home", "--home-dir", "/var/lib/scotch", "--shell", "/usr/sbin/nologin", "scotch")
	if out, err := add.CombinedOutput(); err != nil {
		return fmt.Errorf("useradd scotch: %w: %s", err, out)
	}
	return loopbackUp()
}

// loopbackUp switches lo on: in a new network it is off (netdevice(7)).
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}
