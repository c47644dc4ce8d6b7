package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
	"scotch/gitserver/audit"
	"scotch/hooks"
)

// Keys says who a key belongs to. *access.Keyring is one.
type Keys interface {
	// Find is asked when a key is offered, when it has been proved, for each
	// session and for each act of a push, so that a key taken out is out at once.
	Find(key gossh.PublicKey, addr net.Addr, now time.Time) (access.Identity, bool)
}

// Repositories says where the bare repository of an app is. It is asked only
// about names that config.ValidName passed.
type Repositories interface {
	Exists(app string) bool
	// Path is the repository's directory, absolute, also where it does not exist.
	Path(app string) string
}

// PushHandler speaks with the hooks of one push.
type PushHandler interface {
	// Handle returns when the push is dealt with, not before conn is at its
	// end: that is when git and its hooks have closed theirs. The client's
	// leaving ends p.Gone and nothing else. ctx ends with the server.
	// conn is closed after Handle by its caller; closing it twice is fine.
	Handle(ctx context.Context, conn net.Conn, p hooks.Push)
}

// Command is a command that a person typed behind ssh's host name.
type Command struct {
	Args   []string // its words; empty where the client wanted a shell
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Terminal is the client's, nil where it asked for none.
	Terminal *Terminal
}

// CommandFunc runs a command and returns its exit status. ctx ends when the
// client closes the channel (Ctrl-C, a lost connection), and with the server.
// It decides by itself, with access.May, what the person may do.
type CommandFunc func(ctx context.Context, who access.Identity, c Command) int

// Auditor keeps the record of who did what. *audit.Log is one.
type Auditor interface {
	// Record returns soon, whatever becomes of the record.
	Record(e audit.Entry)
}

// Server is an ssh server for git and for commands. Set its fields before Serve.
type Server struct {
	// HostKey proves the server to its clients. Required: see LoadOrCreateHostKey.
	HostKey gossh.Signer
	// Keys says who may connect. Required.
	Keys Keys
	// Repositories says where repositories are. Required.
	Repositories Repositories
	// Git says how git is run. Its Dir is required.
	Git GitOptions
	// Pushes is what git's hooks speak to. nil: pushes are refused.
	Pushes PushHandler
	// Commands runs commands. nil: there are none.
	Commands CommandFunc
	// CreateApp makes an app that an admin pushes to and that isn't there: its
	// configuration and its repository. An app that is there already by then is
	// no error. nil: apps are not made by a push.
	CreateApp func(ctx context.Context, app, by string) error
	// Room is asked before a push's pack arrives; its error refuses the push. nil:
	// there is always room.
	Room func() error
	// Sound is asked before git is run in an app's repository, whose own
	// configuration git would follow; its error keeps git away. nil: all are.
	Sound func(app string) error
	// Recover is called when git was killed in a push to app, with no other push
	// to it under way, and none begins before it returns. It removes the push's
	// quarantine and nothing else: a deploy of the app may be under way. nil:
	// nothing is removed.
	Recover func(app string) error
	// Audit is told of connections and sessions that are refused, and of pushes.
	// nil: nobody is.
	Audit Auditor
	// Log gets a line for each connection, session and refusal. nil: none.
	Log logrus.FieldLogger

	// LoginTimeout is the time from connecting to the first command. 0: 30 s.
	LoginTimeout time.Duration
	// IdleTimeout is how long a connection without a command may stay, as
	// ssh's ControlPersist leaves them, and how long a push may wait for its pack. 0: 15 min.
	IdleTimeout time.Duration
	// KeepAlive is the time without a sign of life after which a client is asked
	// for one; after four such times it is taken for gone. 0: 30 s.
	KeepAlive time.Duration
	// StopGrace is how long Shutdown lets sessions go on by themselves that are
	// no push whose pack is in. 0: 3 s.
	StopGrace time.Duration
	// MaxConnections at a time, in all. 0: 512.
	MaxConnections int
	// MaxPerAddress is the number of connections at a time from one IPv4
	// address or one IPv6 /64. 0: 64.
	MaxPerAddress int
	// MaxLogins is the number of connections at a time that have proved no key
	// yet. From three tenths of it on some are dropped at random. 0: 100.
	MaxLogins int
	// MaxSessions at a time on one connection. 0: 10, as OpenSSH's.
	MaxSessions int
	// MaxPerKey is the number of pushes, fetches and commands at a time with one key,
	// an admin's commands not counted. Where there is no room for another connection,
	// those of a key that has more than so many make it, if they do nothing. 0: 32.
	MaxPerKey int
	// LongestPenalty bounds how long an address (or IPv6 /64) that misbehaves is
	// kept out. 0: 10 min; less: none is.
	LongestPenalty time.Duration
	// Exempt are networks that are never kept out: a relay's, behind which all
	// clients have one address.
	Exempt []netip.Prefix

	mu        sync.Mutex
	closed    bool          // no new connections, sessions, listeners
	last      chan struct{} // closed when StopGrace is over
	listeners map[net.Listener]context.CancelFunc
	admission admission
	receiving map[string]*receiving // by app
	perKey    map[string]int        // of what is under way, by the key's fingerprint
	penalties penalties             // has a lock of its own
	sessions  struct{ open, total atomic.Int64 }
	work      sync.WaitGroup // connections, sessions; added to while !closed only
}

// ErrClosed is returned by Serve after Shutdown or Close.
var ErrClosed = errors.New("the ssh server is closed")

// Serve accepts connections from l, which it closes, until ctx is done, and
// then returns nil. Sessions under way go on: Shutdown waits for them, Close
// ends them, and one of the two must be called.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if s.Keys == nil || s.HostKey == nil || s.Repositories == nil || s.Git.Dir == "" {
		return errors.New("the ssh server has no keys, no host key, no repositories or no directory for git's hooks")
	}
	// What sessions live by ends with Close, not with ctx.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if !s.listen(l, cancel) {
		cancel()
		return ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	delay := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			delay = 0
			s.accept(base, nc)
		case ctx.Err() != nil:
			return nil
		case s.isClosed():
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting ssh connections: %w", err)
		default:
			// Out of descriptors or the like: go on when there may be some again.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log().WithError(err).Warnf("accepting ssh connections, trying again in %s", delay)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
		}
	}
}

// Shutdown stops accepting, closes what is idle and waits until the work of
// every session is done; after StopGrace it ends those that are no push whose
// pack is in. When ctx is done first it does what Close does and
// returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	for _, c := range s.stop() {
		c.closeIfIdle()
	}
	grace := time.AfterFunc(or(s.StopGrace, 3*time.Second), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-s.lastCall(): // by another Shutdown
		default:
			close(s.last)
		}
	})
	defer grace.Stop()
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return s.Close()
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.Close())
	}
}

// Close ends every session: it cancels the contexts of commands and handlers,
// ends git, closes the connections, and waits for all of them.
func (s *Server) Close() error {
	conns := s.stop()
	s.mu.Lock()
	for l, cancel := range s.listeners {
		cancel()
		delete(s.listeners, l)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.net.Close()
	}
	s.work.Wait()
	return nil
}

// stop lets nothing new begin and returns the connections that there are.
func (s *Server) stop() []*connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	conns := make([]*connection, 0, len(s.admission.conns))
	for c := range s.admission.conns {
		conns = append(conns, c)
	}
	return conns
}

func (s *Server) listen(l net.Listener, cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.listeners == nil {
		s.listeners = map[net.Listener]context.CancelFunc{}
	}
	s.listeners[l] = cancel
	return true
}

// lastCall returns the channel that is closed when a stop waits for sessions no
// longer. The caller holds s.mu.
func (s *Server) lastCall() chan struct{} {
	if s.last == nil {
		s.last = make(chan struct{})
	}
	return s.last
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// begin counts a piece of work in; it must be followed by s.work.Done.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.work.Add(1)
	return true
}

func (s *Server) log() logrus.FieldLogger {
	if s.Log != nil {
		return s.Log
	}
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

func (s *Server) idleTimeout() time.Duration { return or(s.IdleTimeout, 15*time.Minute) }

// or is v, or what it is by default.
func or[T int | time.Duration](v, fallback T) T {
	if v > 0 {
		return v
	}
	return fallback
}

// recovered keeps a panic in one connection from ending the server, and with
// it every deploy under way. It must be deferred directly.
func recovered(log logrus.FieldLogger) {
	if p := recover(); p != nil {
		logPanic(log, p)
	}
}

func logPanic(log logrus.FieldLogger, p any) {
	log.WithField("stack", string(debug.Stack())).Errorf("panic: %v", p)
}
