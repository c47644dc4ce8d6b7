package direct

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer/process"
)

// startTimeout is how long a box may take until its program has started.
const startTimeout = 30 * time.Second

// boxed is what stands around a process that is in a box: bubblewrap, which waits
// for it and ends as it did, and where it has process ids of its own, the first
// process of those.
type boxed struct {
	bwrap   *os.Process
	first   *process.PIDFD // nil where the ids are the machine's
	private string         // directory
	hold    chan struct{}  // closed when nothing is to end with this server any more; may be nil
}

// shut waits for bubblewrap, whose command has ended, and for the end of all that
// was in the box with it, where it had process ids of its own.
func (b *boxed) shut() (*os.ProcessState, error) {
	late := time.AfterFunc(killed, func() { b.bwrap.Kill() })
	state, err := b.bwrap.Wait()
	late.Stop()
	if b.hold != nil {
		close(b.hold)
	}
	if werr := b.first.Wait(time.Now().Add(killed)); werr != nil && err == nil {
		err = fmt.Errorf("end what it left running: %w", werr)
	}
	b.first.Close()
	os.RemoveAll(b.private) // what fails is swept by the next server
	return state, err
}

// ways are the ends of what leads into a box: ours, and those of Child.
type ways struct {
	handover, childHandover *os.File
	status, childStatus     *os.File
}

func newWays() (*ways, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	w := &ways{status: os.NewFile(uintptr(fds[0]), "status"), childStatus: os.NewFile(uintptr(fds[1]), "status")}
	// The kernel says who writes, with the number that the process has here.
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		w.close()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	tv := unix.NsecToTimeval(startTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		w.close()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if w.childHandover, w.handover, err = os.Pipe(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *ways) close() {
	for _, f := range []*os.File{w.handover, w.childHandover, w.status, w.childStatus} {
		f.Close() // an error of a nil file is one
	}
}

// errNotBoxed is bubblewrap's failure, which it has told on the standard error of
// what was to run.
var errNotBoxed = errors.New("bubblewrap did not start it; the output says why")

// arrival hands over what is to be started, and returns once its program runs.
// Before that pin gets the number of its process.
func (w *ways) arrival(h handover, pin func(pid int) error) error {
	w.childHandover.Close()
	w.childStatus.Close()
	go func() { // where nobody reads, the pipe breaks
		gob.NewEncoder(w.handover).Encode(h)
		w.handover.Close()
	}()
	fd := int(w.status.Fd())
	var said strings.Builder
	buf, oob := make([]byte, 1024), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for pinned := false; ; {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		} else if errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("bubblewrap did not start it in %s", startTimeout)
		} else if err != nil {
			return os.NewSyscallError("recvmsg", err)
		}
		if n == 0 {
			break
		}
		said.Write(buf[:n])
		if pinned || buf[0] != arrived {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			return errors.Join(err, errors.New("nobody says which process it is"))
		}
		who, err := unix.ParseUnixCredentials(&messages[0])
		if err != nil {
			return err
		}
		if err := pin(int(who.Pid)); err != nil {
			return err
		}
		pinned = true
		if _, err := unix.Write(fd, []byte{arrived}); err != nil {
			return os.NewSyscallError("write", err)
		}
	}
	text, ok := strings.CutPrefix(said.String(), string(arrived))
	switch {
	case !ok && text == "":
		return errNotBoxed
	case !ok:
		return errors.New(text)
	case text == "":
		return nil
	}
	var op string
	var errno syscall.Errno
	if _, err := fmt.Sscanf(text, "%s %d", &op, &errno); err != nil {
		return errors.New(text)
	}
	path := h.Path
	if op == "chdir" {
		path = h.Dir
	}
	return &os.PathError{Op: op, Path: path, Err: errno}
}

// boxes tells whether a start is to be in a box.
func (r *Runner) boxes(s spawn, cred *syscall.Credential) bool {
	return r.opts.Box != nil && s.app && (cred != nil || r.opts.Box.Everybody) && r.opts.Box.Try() == nil
}

// box starts a process in a box. pin gets its number before its program runs. Where
// it returns an error nothing is left.
func (r *Runner) box(s spawn, path, token string, cred *syscall.Credential, umask int, pin func(pid int) error) (b *boxed, own stamp, err error) {
	w, err := newWays()
	if err != nil {
		return nil, 0, err
	}
	defer w.close()
	b = &boxed{}
	if b.private, err = r.opts.Box.private(token); err != nil {
		return nil, 0, err
	}
	bound := s.record == ""
	if bound {
		b.hold = make(chan struct{})
	}
	args := append(r.opts.Box.args(b.private, s.writes, bound), "--", r.opts.Box.Program, Arg)
	attr := &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: append(append([]*os.File{}, s.files...), w.childHandover, w.childStatus),
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	own, err = r.stamps.on(func() (err error) {
		b.bwrap, err = startOnThread(r.opts.Box.bwrap, args, attr, umask, cred != nil, b.hold)
		return err
	})
	if err != nil {
		if bound {
			close(b.hold)
		}
		return nil, 0, errors.Join(err, os.RemoveAll(b.private))
	}
	h := handover{Path: path, Dir: s.dir, Args: s.args, Env: r.environ(s.env, token, s.record), User: cred, Terminal: s.tty}
	err = w.arrival(h, func(pid int) error {
		if bound && !r.opts.Box.SharedIDs {
			st, err := readStat(pid)
			if err != nil {
				return err
			}
			if b.first, err = process.OpenPIDFD(st.ppid); err != nil {
				return err
			}
		}
		return pin(pid)
	})
	if err != nil {
		b.bwrap.Kill()
		b.shut()
		r.stamps.drop(own)
		return nil, 0, err
	}
	return b, own, nil
}
