package process

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// PIDFD is a hold on one process, by pidfd_open(2): it never means another that
// got its number. nil is a process that has ended.
type PIDFD struct {
	f    *os.File
	conn syscall.RawConn
}

// OpenPIDFD takes hold of a process. It returns ESRCH where there is none.
func OpenPIDFD(pid int) (*PIDFD, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd of "+strconv.Itoa(pid))
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &PIDFD{f, conn}, nil
}

// Wait returns nil when the process has ended; it does not reap it. It costs
// no thread. A zero deadline means none.
func (p *PIDFD) Wait(deadline time.Time) error {
	if p == nil {
		return nil
	}
	if err := p.f.SetReadDeadline(deadline); err != nil {
		return err
	}
	return p.conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
}

// Signal sends a signal to exactly that process. It returns os.ErrProcessDone
// when it has ended.
func (p *PIDFD) Signal(sig unix.Signal) error {
	if p == nil {
		return os.ErrProcessDone
	}
	var err error
	if cerr := p.conn.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); cerr != nil {
		return cerr
	}
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// SetDeadline ends a Wait that is under way.
func (p *PIDFD) SetDeadline(t time.Time) error { return p.f.SetReadDeadline(t) }

// Close lets go of the process.
func (p *PIDFD) Close() {
	if p != nil {
		p.f.Close()
	}
}
