package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start serves calls at a socket and returns its path.
func start(t *testing.T, handle Handler) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	s := NewServer(handle)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		end, over := context.WithTimeout(context.Background(), 10*time.Second)
		defer over()
		s.Shutdown(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket is left")
		}
		os.RemoveAll(dir)
	})
	return path
}

func TestCall(t *testing.T) {
	path := start(t, func(_ context.Context, c Call, in io.Reader, out, errOut io.Writer, _ *Terminal) int {
		data, err := io.ReadAll(in)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(out, "%q %d bytes", c.Args, len(data))
		errOut.Write(data)
		return 7
	})
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: %v, %v", fi.Mode(), err)
	}
	input := strings.Repeat("x\x00\xff", 100_000) // more than a frame
	var out, errOut bytes.Buffer
	status, err := Do(t.Context(), path, Call{Args: []string{"run", "a b", "--"}, Stdin: true}, strings.NewReader(input), &out, &errOut, nil)
	if err != nil || status != 7 {
		t.Fatalf("status %d, %v", status, err)
	}
	if want := `["run" "a b" "--"] 300000 bytes`; out.String() != want || errOut.String() != input {
		t.Errorf("got %q and %d bytes, want %q", out.String(), errOut.Len(), want)
	}
}

// A command ends with its client, also one that neither reads nor writes.
func TestClientGone(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	path := start(t, func(ctx context.Context, _ Call, _ io.Reader, _, _ io.Writer, _ *Terminal) int {
		close(began)
		<-ctx.Done()
		close(ended)
		return 0
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	// The input never ends by itself, as a terminal's.
	never, w := io.Pipe()
	defer w.Close()
	if _, err := Do(ctx, path, Call{Stdin: true}, never, io.Discard, io.Discard, nil); err == nil {
		t.Error("no error")
	}
	<-ended
}

// What is typed, and the terminal's sizes, come to the command; it has the say
// over the terminal's mode, and whatever happens that is back at the end.
func TestTerminal(t *testing.T) {
	path := start(t, func(_ context.Context, c Call, in io.Reader, out, _ io.Writer, term *Terminal) int {
		first := <-term.Sizes
		term.Raw(true)
		line := make([]byte, 3)
		if _, err := io.ReadFull(in, line); err != nil {
			t.Error(err)
		}
		// In this order: what is typed may overtake the size.
		rest, err := io.ReadAll(in)
		if err != nil {
			t.Error(err)
		}
		second := <-term.Sizes
		fmt.Fprintf(out, "%s %d %d %q %d %q", term.Name, first.Row, first.Col, line, second.Row, rest)
		return 5
	})
	sizes := make(chan unix.Winsize, 1)
	sizes <- unix.Winsize{Row: 24, Col: 80}
	in, typed := io.Pipe()
	modes := make(chan bool, 8)
	term := &Terminal{Name: "vt100", Sizes: sizes, Raw: func(on bool) {
		modes <- on
		if on {
			go func() {
				io.WriteString(typed, "ls\n")
				sizes <- unix.Winsize{Row: 50, Col: 100}
				for len(sizes) > 0 { // taken
					time.Sleep(time.Millisecond)
				}
				io.WriteString(typed, "exit")
				typed.Close()
			}()
		}
	}}
	var out bytes.Buffer
	status, err := Do(t.Context(), path, Call{Stdin: true}, in, &out, io.Discard, term)
	if err != nil || status != 5 {
		t.Fatalf("status %d, %v", status, err)
	}
	if want := `vt100 24 80 "ls\n" 50 "exit"`; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if !<-modes || <-modes {
		t.Error("the terminal is not back in its mode")
	}
}

// A call ends well whatever is left of its input, and whichever side is first:
// net/http kept the connection for the next call, which never comes, and wrote to
// the log that the server answered what was left of the body with a 400.
func TestInputLeft(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	path := start(t, func(_ context.Context, c Call, in io.Reader, out, _ io.Writer, _ *Terminal) int {
		io.WriteString(out, "answer")
		return 3
	})
	for name, stdin := range map[string]func() io.Reader{
		"empty":   func() io.Reader { return strings.NewReader("") },
		"long":    func() io.Reader { return strings.NewReader(strings.Repeat("x", 1<<20)) },
		"endless": func() io.Reader { return endless{} },
	} {
		for range 100 {
			var out bytes.Buffer
			status, err := Do(t.Context(), path, Call{Stdin: true}, stdin(), &out, io.Discard, nil)
			if status != 3 || err != nil || out.String() != "answer" {
				t.Fatalf("%s input: status %d, %q, %v", name, status, out.String(), err)
			}
		}
	}
	t.Cleanup(func() { // behind the server's end
		log.SetOutput(os.Stderr)
		if logged.Len() > 0 {
			t.Errorf("logged: %s", logged.String())
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestNoServer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control.sock")
	if _, err := Do(t.Context(), path, Call{}, nil, io.Discard, io.Discard, nil); !errors.Is(err, ErrNoServer) {
		t.Errorf("no socket: %v", err)
	}
	// What a killed server leaves.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Do(t.Context(), path, Call{}, nil, io.Discard, io.Discard, nil); !errors.Is(err, ErrNoServer) {
		t.Errorf("a stale socket: %v", err)
	}
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	defer again.Close()
	if _, err := Listen(path); err == nil {
		t.Error("two servers at one socket")
	}
}

func TestTornAnswer(t *testing.T) {
	whole := []byte{frameStdout, 0, 0, 0, 2, 'h', 'i', frameExit, 0, 0, 0, 1, 3}
	var out bytes.Buffer
	if status, err := readFrames(bytes.NewReader(whole), &out, io.Discard, nil); err != nil || status != 3 || out.String() != "hi" {
		t.Fatalf("%d %q %v", status, out.String(), err)
	}
	for n := range whole {
		if _, err := readFrames(bytes.NewReader(whole[:n]), io.Discard, io.Discard, nil); !errors.Is(err, errTornAnswer) {
			t.Errorf("%d bytes of an answer: %v", n, err)
		}
	}
	if _, err := readFrames(bytes.NewReader([]byte{frameStdout, 0xff, 0xff, 0xff, 0xff}), io.Discard, io.Discard, nil); err == nil || errors.Is(err, errTornAnswer) {
		t.Errorf("a frame of 4 GB: %v", err)
	}
}

// A server that was stopped left its socket now and then: whoever closed it second
// returned, and the program ended, before the first had removed it.
func TestSocketIsGoneAfterAnyClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	for range 200 {
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		go l.Close()
		l.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the socket is there after Close: %v", err)
		}
	}
}

// A client that reads nothing held a call, and so the server's stop: Shutdown closes its
// connection when it has had its time.
func TestShutdownEndsUnreadCalls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	writing, failed := make(chan struct{}), make(chan error, 1)
	s := NewServer(func(ctx context.Context, _ Call, _ io.Reader, out, _ io.Writer, _ *Terminal) int {
		close(writing)
		for {
			if _, err := out.Write(make([]byte, 1<<20)); err != nil {
				failed <- err
				return 1
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: scotch\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n", callPath)
	<-writing
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	late, done := context.WithCancel(context.Background())
	done()
	s.Shutdown(late)
	<-failed
}
