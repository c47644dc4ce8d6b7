package direct

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Arg is the argument by which this program becomes what is in a box: main calls
// Child when it is the only one, before anything else. Its number is that of the
// hand-over's form, because an upgrade puts another program in the place of the
// one that runs.
const Arg = "direct-child-1"

// handover is what a box's process is to become. It comes by a pipe: bubblewrap
// runs as root, so it must not have an environment that an app has chosen
// (LD_PRELOAD), and everybody may read arguments.
type handover struct {
	Path, Dir string
	Args, Env []string
	// User is who it becomes; nil for nobody else.
	User     *syscall.Credential
	Terminal bool
}

// The files that Child has beside the three standard ones.
const (
	handoverFile = 3
	statusFile   = 4
)

// arrived is what Child sends when all is in its place, by which the server learns
// its number too. What comes after it says why the program was not started.
const arrived = '+'

// Child becomes the process that the server asked for. It returns an exit status
// only where it fails.
func Child() int {
	unix.CloseOnExec(handoverFile)
	unix.CloseOnExec(statusFile)
	status := os.NewFile(statusFile, "status")
	if err := become(status); err != nil {
		fmt.Fprint(status, err)
	}
	return 127
}

func become(status *os.File) error {
	runtime.LockOSThread() // some rights are a thread's; exec keeps those of its caller
	var h handover
	if err := gob.NewDecoder(os.NewFile(handoverFile, "handover")).Decode(&h); err != nil {
		return fmt.Errorf("this is for the server alone: nobody says what to run: %w", err)
	}
	if _, err := unix.Setsid(); err != nil {
		return os.NewSyscallError("setsid", err)
	}
	if h.Terminal {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return os.NewSyscallError("ioctl TIOCSCTTY", err)
		}
	}
	if h.User != nil {
		if err := drop(h.User); err != nil {
			return err
		}
	}
	// The server takes hold of this process, and answers.
	if _, err := status.Write([]byte{arrived}); err != nil {
		return err
	}
	if _, err := status.Read(make([]byte, 1)); err != nil {
		return err // it has gone
	}
	// From here on an error is a number, as fork and exec have it.
	if h.Dir != "" {
		if err := unix.Chdir(h.Dir); err != nil {
			return failure("chdir", err)
		}
	}
	return failure("exec", syscall.Exec(h.Path, h.Args, h.Env))
}

func failure(op string, err error) error {
	var errno syscall.Errno
	errors.As(err, &errno)
	return fmt.Errorf("%s %d", op, errno)
}

// drop gives up all rights but those of a user, for good.
func drop(user *syscall.Credential) error {
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NPROC, &now) == nil && now.Max > maxProcesses {
		unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: maxProcesses, Max: maxProcesses})
	}
	// EINVAL is a capability that this kernel does not know.
	for c := uintptr(0); ; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err == unix.EINVAL {
			break
		} else if err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	groups := make([]int, 0, len(user.Groups))
	for _, g := range user.Groups {
		groups = append(groups, int(g))
	}
	if err := syscall.Setgroups(groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(int(user.Gid), int(user.Gid), int(user.Gid)); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(int(user.Uid), int(user.Uid), int(user.Uid)); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}
