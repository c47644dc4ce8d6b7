package plugintest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
)

// testTerminal runs a command on a terminal: it is the controlling one of the
// command's session, so that Ctrl-C reaches the foreground, and it is its
// standard input, output and error.
func testTerminal(t *testing.T, open func(t *testing.T) deployer.Runner) {
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	conn, err := pty.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n uint32
	conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()

	c := command(`test -t 0 && test -t 1 && test -t 2 && tty && echo open >/dev/tty; trap 'echo interrupted; exit 7' INT; read line; echo "got $line"; while :; do sleep 0.1; done`)
	c.TTY = tty
	errs := background(t, open(t), t.Context(), c)
	pty.SetDeadline(time.Now().Add(patience))
	var seen strings.Builder
	read := func(want string) {
		buf := make([]byte, 1024)
		for !strings.Contains(seen.String(), want) {
			n, err := pty.Read(buf)
			if err != nil {
				t.Fatalf("%q does not come: %v, after %q", want, err, seen.String())
			}
			seen.Write(buf[:n])
		}
	}
	read(tty.Name() + "\r\nopen\r\n")
	io.WriteString(pty, "typed\n")
	read("got typed\r\n")
	io.WriteString(pty, "\x03")
	read("interrupted")
	var exit *deployer.ExitError
	if err := await(t, errs); !errors.As(err, &exit) || exit.Status != 7 {
		t.Errorf("it ended with %v", err)
	}
}
