package process

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"scotch/deployer"
)

// lateOutput is how long, after the whole family has ended, output may come
// from somebody who still holds the pipe, a daemon that shed the mark.
const lateOutput = 2 * time.Second

// Stdio are the three standard files of a command. Files are handed to it as
// they are; other writers and readers get a pipe and a goroutine. The pipes are
// ours and not those of os/exec, which would wait for their end before what
// holds them is ended.
//
// The order is: NewStdio, start the child with Files, Started, Copy, wait for
// the child's end, Finish. When the start fails: Started, Close.
type Stdio struct {
	child   [3]*os.File
	theirs  []*os.File // to be closed once the child has them
	ours    []*os.File
	readers []func()
	stdin   func()
	input   *os.File
	wg      sync.WaitGroup
}

// NewStdio opens what the command's Stdin, Stdout and Stderr need.
func NewStdio(c deployer.Command) (_ *Stdio, err error) {
	p := &Stdio{}
	defer func() {
		if err != nil {
			p.Started()
			p.Close()
		}
	}()
	if c.TTY != nil {
		p.child = [3]*os.File{c.TTY, c.TTY, c.TTY}
		return p, nil
	}
	switch in := c.Stdin.(type) {
	case nil:
		if p.child[0], err = p.null(os.O_RDONLY); err != nil {
			return nil, err
		}
	case *os.File:
		p.child[0] = in
	default:
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		p.child[0], p.input = r, w
		p.theirs, p.ours = append(p.theirs, r), append(p.ours, w)
		p.stdin = func() {
			io.Copy(w, in) // a command need not read all: EPIPE is no failure
			w.Close()
		}
	}
	if p.child[1], err = p.output(c.Stdout); err != nil {
		return nil, err
	}
	if c.Stderr != nil && same(c.Stdout, c.Stderr) {
		p.child[2] = p.child[1]
		return p, nil
	}
	p.child[2], err = p.output(c.Stderr)
	return p, err
}

// same compares writers whose types may not be comparable.
func same(a, b io.Writer) bool {
	defer func() { recover() }()
	return a == b
}

func (p *Stdio) null(flag int) (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, flag, 0)
	if err == nil {
		p.theirs = append(p.theirs, f)
	}
	return f, err
}

func (p *Stdio) output(w io.Writer) (*os.File, error) {
	switch w := w.(type) {
	case nil:
		return p.null(os.O_WRONLY)
	case *os.File:
		return w, nil
	}
	r, f, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.theirs, p.ours = append(p.theirs, f), append(p.ours, r)
	p.readers = append(p.readers, func() { stream(w, r) })
	return f, nil
}

// stream copies until the pipe's end, its close or its deadline. When w fails
// it reads on: a command must not die of a reader that left.
func stream(w io.Writer, r *os.File) {
	buf := make([]byte, 32<<10)
	var failed bool
	put := func(b []byte) {
		if !failed {
			_, err := w.Write(b)
			failed = err != nil
		}
	}
	for {
		n, err := r.Read(buf)
		put(buf[:n])
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// w was slow, perhaps: what is in the pipe already is not lost.
			for range 64 {
				if n = readNow(r, buf); n <= 0 {
					break
				}
				put(buf[:n])
			}
		}
		return
	}
}

// readNow reads what is there, without waiting and whatever the deadline.
func readNow(r *os.File, buf []byte) (n int) {
	conn, err := r.SyscallConn()
	if err != nil {
		return 0
	}
	conn.Control(func(fd uintptr) { n, _ = syscall.Read(int(fd), buf) })
	return n
}

// Files are the standard input, output and error of the child.
func (p *Stdio) Files() []*os.File { return p.child[:] }

// Started closes what the child has now, or never will.
func (p *Stdio) Started() {
	for _, f := range p.theirs {
		f.Close()
	}
}

// Copy begins to carry input and output.
func (p *Stdio) Copy() {
	for _, read := range p.readers {
		p.wg.Go(read)
	}
	if p.stdin != nil {
		go p.stdin() // ends with its reader, which is the caller's
	}
}

// Finish waits for the rest of the output, once the child and all that it
// started have ended, and closes what is open.
func (p *Stdio) Finish() {
	if p.input != nil {
		p.input.Close()
	}
	for _, f := range p.ours {
		f.SetReadDeadline(time.Now().Add(lateOutput))
	}
	p.wg.Wait()
	p.Close()
}

// Close closes the ends that are ours.
func (p *Stdio) Close() {
	for _, f := range p.ours {
		f.Close()
	}
}
