package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// Commands of the scripts for a person at a terminal:
//
//	terminal NAME CMD…         start a command at a terminal of its own, 24 lines of 80
//	type NAME TEXT             type; \n, \r, \x03 and the like are what they are in Go
//	expect NAME PATTERN        wait until what came since the last match matches
//	resize NAME ROWS COLUMNS   change the window's size
//	hangup NAME                close the window
//	ended NAME STATUS          wait for the command's end, with that exit status
//	cooked NAME                the terminal must be in the mode in which it was made
func withTerminals(cmds map[string]func(*testscript.TestScript, bool, []string)) map[string]func(*testscript.TestScript, bool, []string) {
	maps.Copy(cmds, map[string]func(*testscript.TestScript, bool, []string){
		"terminal": cmdTerminal, "type": cmdType, "expect": cmdExpect, "resize": cmdResize, "hangup": cmdHangup, "ended": cmdEnded, "cooked": cmdCooked,
	})
	return cmds
}

type screens map[string]*screen

// screen is a terminal with a command at it.
type screen struct {
	pty, tty *os.File
	modes    unix.Termios
	cmd      *exec.Cmd
	done     chan error

	mu   sync.Mutex
	text []byte
	read chan struct{} // told when text grew
}

type screensKey struct{}

func screenOf(ts *testscript.TestScript, name string) *screen {
	s := ts.Value(screensKey{}).(screens)[name]
	if s == nil {
		ts.Fatalf("there is no terminal %q", name)
	}
	return s
}

func cmdTerminal(ts *testscript.TestScript, neg bool, args []string) {
	s, err := newScreen()
	ts.Check(err)
	s.cmd = worldOf(ts).command(ts, args[1:])
	s.cmd.Env = append(s.cmd.Env, "TERM=vt220")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.tty, s.tty, s.tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(s.cmd.Start())
	go func() { s.done <- s.cmd.Wait() }()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := s.pty.Read(buf)
			s.mu.Lock()
			s.text = append(s.text, buf[:n]...)
			s.mu.Unlock()
			select {
			case s.read <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	ts.Value(screensKey{}).(screens)[args[0]] = s
	ts.Defer(func() {
		s.cmd.Process.Kill()
		s.pty.Close()
		s.tty.Close()
	})
}

// newScreen opens a terminal. Both ends are kept open, so that its modes can
// be read when the command has ended.
func newScreen() (*screen, error) {
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	s := &screen{pty: pty, done: make(chan error, 1), read: make(chan struct{}, 1)}
	var n uint32
	err = s.control(func(fd int) (err error) {
		n, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN)
		return errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	})
	if err == nil {
		s.tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, err
	}
	modes, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	s.modes = *modes
	return s, s.resize(24, 80)
}

func (s *screen) control(do func(fd int) error) error {
	conn, err := s.pty.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	return errors.Join(conn.Control(func(fd uintptr) { doErr = do(int(fd)) }), doErr)
}

func (s *screen) resize(rows, columns int) error {
	return s.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(columns)})
	})
}

func cmdType(ts *testscript.TestScript, neg bool, args []string) {
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	_, err = io.WriteString(screenOf(ts, args[0]).pty, text)
	ts.Check(err)
}

func cmdExpect(ts *testscript.TestScript, neg bool, args []string) {
	s := screenOf(ts, args[0])
	re := regexp.MustCompile("(?m)" + args[1])
	late := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		at := re.FindIndex(s.text)
		seen := string(s.text)
		if at != nil {
			s.text = s.text[at[1]:]
		}
		s.mu.Unlock()
		if at != nil {
			return
		}
		select {
		case <-s.read:
		case <-late:
			ts.Fatalf("%q does not come; what came is\n%q\nserver:\n%s", args[1], seen, worldOf(ts).log.String())
		}
	}
}

func cmdResize(ts *testscript.TestScript, neg bool, args []string) {
	rows, err := strconv.Atoi(args[1])
	ts.Check(err)
	columns, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(screenOf(ts, args[0]).resize(rows, columns))
}

func cmdHangup(ts *testscript.TestScript, neg bool, args []string) {
	s := screenOf(ts, args[0])
	s.tty.Close()
	s.pty.Close()
}

func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	s := screenOf(ts, args[0])
	select {
	case err := <-s.done:
		s.done <- err
		if got := strconv.Itoa(s.cmd.ProcessState.ExitCode()); got != args[1] {
			s.mu.Lock()
			defer s.mu.Unlock()
			ts.Fatalf("exit status %s, want %s; the last that came is\n%q", got, args[1], s.text)
		}
	case <-time.After(30 * time.Second):
		ts.Fatalf("it does not end\n%q", s.text)
	}
}

func cmdCooked(ts *testscript.TestScript, neg bool, args []string) {
	s := screenOf(ts, args[0])
	now, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	ts.Check(err)
	if *now != s.modes {
		ts.Fatalf("the terminal is left in another mode: %+v, was %+v", *now, s.modes)
	}
}
