package gitserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// A client that asks for a terminal has put its own into raw mode: what a
// command without use for one writes has whole lines, Ctrl-C ends it, and a
// hostile name or size goes no further.
func TestTerminal(t *testing.T) {
	began := make(chan struct{}, 1)
	f := start(t, func(f *fixture) {
		f.Commands = func(ctx context.Context, _ access.Identity, c Command) int {
			if c.Terminal == nil {
				fmt.Fprintln(c.Stdout, "no terminal")
				return 0
			}
			size := <-c.Terminal.Sizes
			fmt.Fprintf(c.Stdout, "%s %dx%d\n", c.Terminal.Name, size.Row, size.Col)
			switch c.Args[0] {
			case "raw":
				began <- struct{}{}
				c.Terminal.Raw(true)
				fmt.Fprint(c.Stdout, "a\nb")
				c.Terminal.Raw(false)
				fmt.Fprint(c.Stdout, "c\n")
				size = <-c.Terminal.Sizes
				fmt.Fprintf(c.Stdout, "%dx%d\n", size.Row, size.Col)
			case "wait":
				began <- struct{}{}
				<-ctx.Done()
				return 9
			case "read":
				in, _ := io.ReadAll(c.Stdin)
				fmt.Fprintf(c.Stdout, "%q", in)
			}
			return 0
		}
	})
	c := f.dial("alice")
	session := func(term string, columns, rows int) *gossh.Session {
		t.Helper()
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RequestPty(term, rows, columns, gossh.TerminalModes{}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := session("xterm-256color", 80, 24)
	var out bytes.Buffer
	s.Stdout = &out
	if err := s.Start("raw"); err != nil {
		t.Fatal(err)
	}
	<-began // the first size was taken
	if err := s.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "xterm-256color 24x80\r\na\nbc\r\n50x132\r\n" {
		t.Errorf("%q", got)
	}

	s = session("$(id)\n", 1<<30, 1<<30)
	s.Stdin = strings.NewReader("one\rtwo\r\x04three")
	got, err := s.Output("read")
	if want := "dumb 4096x4096\r\n" + `"one\ntwo\n"`; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}

	s = session("vt100", 80, 24)
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("wait"); err != nil {
		t.Fatal(err)
	}
	<-began
	fmt.Fprint(in, "\x03")
	if exit, ok := s.Wait().(*gossh.ExitError); !ok || exit.ExitStatus() != 9 {
		t.Errorf("Ctrl-C gave %v", exit)
	}
	// Only one, and only before the command.
	s = session("vt100", 80, 24)
	if err := s.RequestPty("vt100", 1, 1, nil); err == nil {
		t.Error("takes two terminals")
	}
	s.Close()
}

// The words of a client's terminal are read before its command is known.
func FuzzRequestTerminal(f *testing.F) {
	f.Add(gossh.Marshal(struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{"xterm-256color", 80, 24, 0, 0, "\x00"}))
	f.Add([]byte{0, 0, 0, 4, 'x'})
	f.Fuzz(func(t *testing.T, payload []byte) {
		term := requestTerminal(payload)
		if term == nil {
			return
		}
		if !termRE().MatchString(term.name) {
			t.Errorf("$TERM is %q", term.name)
		}
		term.change(payload)
		if size := <-term.sizes; size.Col > 4096 || size.Row > 4096 {
			t.Errorf("the size is %+v", size)
		}
	})
}
