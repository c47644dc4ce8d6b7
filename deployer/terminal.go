package deployer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is where the person is who runs a one-off command.
type Terminal struct {
	Name string // $TERM
	// Sizes has the terminal's size, and each new one.
	Sizes <-chan unix.Winsize
	// Raw takes the terminal into raw mode, and back.
	Raw func(on bool)
}

// lateTerminal is how long, after a command and all its family have ended,
// output may come out of its terminal.
const lateTerminal = 2 * time.Second

// runOnTerminal runs a command on a pseudo-terminal of its own (pty(7)). What
// the client types goes in as it is: the kernel turns Ctrl-C into a SIGINT for
// the foreground process group. When ctx is done the terminal hangs up, which
// ends shells that nothing else would. The client's terminal is in raw mode then,
// and afterwards: the caller takes it out.
func runOnTerminal(ctx context.Context, run Runner, c Command, t *Terminal, in io.Reader, out io.Writer) error {
	pty, tty, err := openTerminal()
	if err != nil {
		return fmt.Errorf("opening a terminal: %w", err)
	}
	defer pty.Close()
	defer tty.Close()
	select {
	case size := <-t.Sizes:
		resize(pty, size)
	default:
	}
	c.TTY, c.Stdin, c.Stdout, c.Stderr = tty, nil, nil, nil
	c.Env = append(slices.DeleteFunc(slices.Clone(c.Env), func(v string) bool { return strings.HasPrefix(v, "TERM=") }), "TERM="+t.Name)
	t.Raw(true)
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case size := <-t.Sizes:
				resize(pty, size)
			case <-over:
				return
			}
		}
	}()
	go typeIn(pty, in) // ends with the client's input, which is the caller's
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		io.Copy(out, pty) // until the last one that has the terminal open is gone: EIO
	}()
	hangUp := context.AfterFunc(ctx, func() { pty.Close() })
	defer hangUp()
	err = run.Run(ctx, c)
	tty.Close()
	pty.SetReadDeadline(time.Now().Add(lateTerminal))
	<-shown
	return err
}

// typeIn copies what is typed. An input that ends is told as a person does it,
// by Ctrl-D: once for the end of a line, twice where the line is not complete.
func typeIn(pty io.Writer, in io.Reader) {
	last := &lastByte{w: pty, b: '\n'}
	if _, err := io.Copy(last, in); err != nil {
		return
	}
	end := []byte{4}
	if last.b != '\n' && last.b != '\r' {
		end = bytes.Repeat(end, 2)
	}
	pty.Write(end)
}

type lastByte struct {
	w io.Writer
	b byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return l.w.Write(p)
}

func resize(pty *os.File, size unix.Winsize) {
	control(pty, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &size) })
}

// openTerminal opens a pseudo-terminal: the end that the server keeps, and the
// one that a command gets, whose Name is its path below /dev/pts.
func openTerminal() (pty, tty *os.File, err error) {
	pty, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var n uint32
	slave := -1
	err = control(pty, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		if n, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN); err != nil {
			return err
		}
		// Not by its path, which may be another's in this mount namespace (ioctl_tty(2)).
		peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		slave = int(peer)
		modes, err := unix.IoctlGetTermios(slave, unix.TCGETS)
		if err != nil {
			return err
		}
		modes.Iflag |= unix.IUTF8 // so that the line's editor erases whole characters
		return unix.IoctlSetTermios(slave, unix.TCSETS, modes)
	})
	if slave >= 0 {
		tty = os.NewFile(uintptr(slave), fmt.Sprintf("/dev/pts/%d", n))
	}
	if err != nil {
		pty.Close()
		if tty != nil {
			tty.Close()
		}
		return nil, nil, err
	}
	return pty, tty, nil
}

// control calls do with the file's descriptor, which File.Fd would take out of
// the poller.
func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := conn.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}
