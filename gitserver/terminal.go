package gitserver

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Terminal is the terminal of a client that asked for one (RFC 4254, section
// 6.2). A client that does so has put its terminal into raw mode, whatever the
// command is. What the server has no pseudo-terminal for it makes readable
// itself: lines end in CR LF, Ctrl-C ends the command, Ctrl-D the input.
type Terminal struct {
	Name string // $TERM of the client
	// Sizes has the terminal's size, and each new one. It is never closed.
	Sizes <-chan unix.Winsize
	// Raw switches that off and on again: for a command that has a
	// pseudo-terminal of its own to do it.
	Raw func(on bool)
}

// termRE is what may become $TERM of a command: names of terminfo(5).
var termRE = pattern(`^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$`)

// terminal is what a channel knows of its client's terminal.
type terminal struct {
	name  string
	sizes chan unix.Winsize
	raw   atomic.Bool
}

// requestTerminal reads a pty-req; nil where it is none.
func requestTerminal(payload []byte) *terminal {
	var r struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if gossh.Unmarshal(payload, &r) != nil {
		return nil
	}
	if !termRE().MatchString(r.Term) {
		r.Term = "dumb"
	}
	t := &terminal{name: r.Term, sizes: make(chan unix.Winsize, 1)}
	t.resize(r.Columns, r.Rows)
	return t
}

// change reads a window-change (RFC 4254, section 6.7).
func (t *terminal) change(payload []byte) bool {
	var r struct{ Columns, Rows, Width, Height uint32 }
	if gossh.Unmarshal(payload, &r) != nil {
		return false
	}
	t.resize(r.Columns, r.Rows)
	return true
}

// resize leaves the newest size for whoever asks. Only one goroutine calls it.
func (t *terminal) resize(columns, rows uint32) {
	const most = 4096 // a size makes programs reserve memory
	size := unix.Winsize{Col: uint16(min(columns, most)), Row: uint16(min(rows, most))}
	select {
	case <-t.sizes:
	default:
	}
	t.sizes <- size
}

// cooked writes lines to a terminal that is in raw mode.
type cooked struct {
	w io.Writer
	t *terminal
}

func (c cooked) Write(p []byte) (int, error) {
	if c.t.raw.Load() {
		return c.w.Write(p)
	}
	if _, err := c.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// typed is what is typed at a terminal in raw mode. It is read ahead, so that a
// Ctrl-C is seen while the command reads nothing.
type typed struct {
	chunks chan []byte
	rest   []byte
}

// read starts reading r, until its end or ctx's. interrupt is called at a Ctrl-C.
func (t *terminal) read(ctx context.Context, r io.Reader, interrupt func(), log logrus.FieldLogger) io.Reader {
	in := &typed{chunks: make(chan []byte, 16)}
	end := sync.OnceFunc(func() { close(in.chunks) })
	go func() {
		defer end()
		defer recovered(log)
		buf := make([]byte, 4096)
		for over := false; ; {
			n, err := r.Read(buf)
			if n > 0 && !over {
				chunk := bytes.Clone(buf[:n])
				if !t.raw.Load() {
					if bytes.IndexByte(chunk, 0x03) >= 0 {
						interrupt()
						return
					}
					var ended bool
					if chunk, _, ended = bytes.Cut(chunk, []byte{0x04}); ended {
						over = true // and a Ctrl-C is still waited for
					}
					chunk = bytes.ReplaceAll(chunk, []byte("\r"), []byte("\n"))
				}
				select {
				case in.chunks <- chunk:
				case <-ctx.Done():
					return
				}
				if over {
					end()
				}
			} else if n > 0 && bytes.IndexByte(buf[:n], 0x03) >= 0 {
				interrupt()
			}
			if err != nil {
				return
			}
		}
	}()
	return in
}

func (t *typed) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		chunk, ok := <-t.chunks
		if !ok {
			return 0, io.EOF
		}
		t.rest = chunk
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}
