package hooks

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"sync"

	"scotch/deployer"
)

const (
	// maxQueued bounds what waits for a slow pusher, in bytes. Lines beyond it
	// are left out, but not the last ones; verdicts never are.
	maxQueued = 1 << 20
	// maxLine is the longest line, in bytes, that is kept together.
	maxLine = 8 << 10
)

// spool writes from a goroutine of its own, in order, so that whoever puts
// something in never waits for a reader that is slow, stopped or gone.
type spool struct {
	w    io.Writer
	done chan struct{} // closed when all is written after finish
	step chan struct{} // gets a value, now and then, when something was written

	mu     sync.Mutex
	wake   *sync.Cond
	queue  [][]byte
	queued int  // bytes that are not written yet
	broken bool // the reader is gone: all else is dropped
	closed bool
}

func newSpool(w io.Writer) *spool {
	s := &spool{w: w, done: make(chan struct{}), step: make(chan struct{}, 1)}
	s.wake = sync.NewCond(&s.mu)
	go s.run()
	return s
}

func (s *spool) run() {
	defer close(s.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.queue) == 0 && !s.closed {
			s.wake.Wait()
		}
		if len(s.queue) == 0 {
			return
		}
		batch := s.queue
		s.queue = nil
		s.mu.Unlock()
		n := 0
		var err error
		for _, b := range batch {
			if _, err = s.w.Write(b); err != nil {
				break
			}
			n += len(b)
			select {
			case s.step <- struct{}{}:
			default:
			}
		}
		s.mu.Lock()
		s.queued -= n
		if err != nil {
			s.broken = true
			s.queue, s.queued = nil, 0
		}
	}
}

// finish lets the goroutine end when all is written.
func (s *spool) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake.Signal()
}

// put adds b. It returns false where too much waits already and b may be left out.
func (s *spool) put(b []byte, must bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken || s.closed {
		return true
	}
	if !must && s.queued > maxQueued {
		return false
	}
	s.queue = append(s.queue, b)
	s.queued += len(b)
	s.wake.Signal()
	return true
}

// maxKept is how many of the last lines are kept where there is no room: they
// say how a thing ended.
const maxKept = 40

// lines is a spool of lines for a person. Where they come faster than they are
// read it leaves some out, says how many, and goes on with the last ones.
type lines struct {
	mu   sync.Mutex
	left int      // lines that are left out before kept
	kept []string // the last lines, which wait for room
	put  func(line string, must bool) bool
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.resume(false) && l.put(line, false) {
		return
	}
	if l.kept = append(l.kept, line); len(l.kept) > maxKept {
		l.kept = l.kept[1:]
		l.left++
	}
}

// resume puts what waits, and tells whether nothing does any more.
func (l *lines) resume(must bool) bool {
	if l.left > 0 {
		if !l.put(fmt.Sprintf("       (%d lines left out here: they came faster than they were read)", l.left), must) {
			return false
		}
		l.left = 0
	}
	for i, line := range l.kept {
		if !l.put(line, must) {
			l.kept = l.kept[i:]
			return false
		}
	}
	l.kept = nil
	return true
}

// end puts the last lines, however many wait before them.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resume(true)
}

// stream writes answers to the socket.
type stream struct{ *spool }

func newStream(w io.Writer) *stream { return &stream{newSpool(w)} }

// close waits until all is written or the socket has broken.
func (s *stream) close() {
	s.finish()
	<-s.done
}

func (s *stream) send(payload string, must bool) bool {
	return s.put(appendPacket(nil, payload), must)
}

// verdict sends "ok", "fall-through" or "ng" for a ref.
func (s *stream) verdict(id, word, ref, reason string) {
	if reason != "" {
		ref += " " + reason
	}
	s.send(id+" "+word+" "+ref, true)
}

// end sends the last line of an answer.
func (s *stream) end(id string, status int) { s.send(id+" end "+strconv.Itoa(status), true) }

// printer is an io.Writer for one hook's output. It hands on whole lines, as
// git's side-band shows them best.
type printer struct {
	s     *stream
	id    string
	lines lines

	mu  sync.Mutex
	buf []byte
}

func newPrinter(s *stream, id string) *printer {
	p := &printer{s: s, id: id}
	p.lines.put = func(line string, must bool) bool { return s.send(id+" out "+line, must) }
	return p
}

func (p *printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buf = append(p.buf, b...)
	rest := p.buf
	for {
		i := bytes.IndexByte(rest, '\n')
		next := i + 1
		if i < 0 {
			if len(rest) <= maxLine {
				p.buf = p.buf[:copy(p.buf, rest)]
				return len(b), nil
			}
			i, next = maxLine, maxLine
		}
		p.lines.add(deployer.Neutral(string(rest[:i])))
		rest = rest[next:]
	}
}

// flush sends a last line that was not ended.
func (p *printer) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.buf) > 0 {
		p.lines.add(deployer.Neutral(string(p.buf)))
		p.buf = nil
	}
}

// end is the last word of a hook: what was left out is owned up to, and the
// last lines follow.
func (p *printer) end(status int) {
	p.flush()
	p.lines.end()
	p.s.end(p.id, status)
}

// note writes one line, indented as the deployer's own lines are.
func (p *printer) note(format string, a ...any) {
	fmt.Fprintf(p, "       "+format+"\n", a...)
}
