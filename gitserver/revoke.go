package gitserver

import (
	"context"
	"errors"
	"io"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// keyPoll is how often a session under way asks for its key: what it may do
// ends within this time of the key's removal or expiry. It costs a stat(2).
const keyPoll = 500 * time.Millisecond

// quickEnd is how long a client may take to hear why its session ends before
// the connection is closed.
const quickEnd = 400 * time.Millisecond

// errRevoked is the cause of a session's end when its key is not what it was
// when the session began.
var errRevoked error = revoked{}

type revoked struct{}

func (revoked) Error() string {
	return "your key may not do this here any more: it was removed, has expired, or its rights were taken back"
}

// AtOnce tells whoever runs something for the session that it gets no time to
// end by itself.
func (revoked) AtOnce() bool { return true }

// errStopping is the cause of a session's end where the server waits for it no
// longer.
var errStopping = errors.New("the server is stopping\ntry again in a moment")

// whileAllowed ends the session, and then its context, when the key is out, or
// holds for less than it did, or when the server's stop waits for it no longer. It
// sets the session's end, for other reasons. The session must call the function
// that it returns when it is over.
func (c *connection) whileAllowed(ctx context.Context, conn *gossh.ServerConn, s *session) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	ended := make(chan struct{})
	end := func(why error) {
		s.cut.Store(&why)
		cancel(why)
		c.dismiss(s, why, over)
	}
	s.end = end
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				logPanic(c.log, p)
				end(errRevoked) // nobody asks for its key any more
			}
		}()
		tick := time.NewTicker(keyPoll)
		defer tick.Stop()
		c.server.mu.Lock()
		last := c.server.lastCall()
		c.server.mu.Unlock()
		for {
			select {
			case <-over:
				return
			case <-last:
				if s.keeps.Load() {
					c.kept.Add(1)
					defer c.kept.Add(-1)
					last = nil
					continue
				}
				c.log.WithField("by", s.who.Name).Info("session ended: the server is stopping")
				end(errStopping)
				return
			case <-tick.C:
			}
			if now, _, ok := c.identity(conn); ok && now.Covers(s.who) {
				continue
			}
			c.log.WithField("by", s.who.Name).Warn("session ended: its key is out")
			end(errRevoked)
			return
		}
	}()
	return ctx, func() {
		close(over)
		<-ended
		cancel(nil)
	}
}

// dismiss tells the client of a session that was cut off why, and closes its
// channel; it closes the connection where the client doesn't take that, or what
// the session does is not over soon.
func (c *connection) dismiss(s *session, why error, over <-chan struct{}) {
	late := time.After(quickEnd)
	told := s.tell(why)
	select {
	case <-told:
		select {
		case <-over:
			return
		case <-late:
		}
	case <-late:
	}
	if why == errRevoked || c.kept.Load() == 0 {
		c.net.Close()
	}
	<-told
}

// tell is the last that the client of a session hears. What it returns is closed
// when that is sent; a client that reads nothing keeps it until the connection is
// closed.
func (s *session) tell(why error) <-chan struct{} {
	told := make(chan struct{})
	go func() {
		defer close(told)
		defer recovered(s.log)
		var w io.Writer = s.Session.Stderr()
		if s.term != nil {
			s.term.raw.Store(false)
			w = cooked{w, s.term}
		}
		sayError(w, why)
		s.Session.Exit(1)
	}()
	return told
}

// Read is the session's input. Where it was cut off it fails, so that half an
// input is not taken for the whole.
func (s *session) Read(p []byte) (int, error) {
	n, err := s.Session.Read(p)
	if why := s.cut.Load(); why != nil {
		return 0, *why
	}
	return n, err
}

// Write is the session's output.
func (s *session) Write(p []byte) (int, error) { return s.output(s.Session, p) }

func (s *session) output(w io.Writer, p []byte) (int, error) {
	if why := s.cut.Load(); why != nil {
		return 0, *why
	}
	return w.Write(p)
}

// Stderr is the session's output of errors.
func (s *session) Stderr() io.ReadWriter { return sessionErrors{s} }

type sessionErrors struct{ s *session }

func (e sessionErrors) Read([]byte) (int, error)    { return 0, io.EOF }
func (e sessionErrors) Write(p []byte) (int, error) { return e.s.output(e.s.Session.Stderr(), p) }
