package gitserver

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gliderlabs/ssh"
	"github.com/sirupsen/logrus"
	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// connection is one ssh connection.
type connection struct {
	server  *Server
	net     *liveConn
	network netip.Prefix // what it counts for
	log     logrus.FieldLogger
	over    chan struct{} // closed when it has ended
	// offeredKey is the fingerprint of the last key that the client offered, and
	// proved tells that it has proved one. Of the handshake's goroutine.
	offeredKey string
	proved     bool
	key        string       // fingerprint of the one that was proved; of the server's lock
	late       atomic.Bool  // the deadline closed it
	kept       atomic.Int32 // sessions that the server's stop waits for
	refusals   atomic.Int32 // channels that were refused since the last one that was not

	mu       sync.Mutex
	deadline *time.Timer                // closes it; stopped while a command runs
	channels int                        // open ones, and those whose work goes on
	commands int                        // that are being worked on
	watched  bool                       // keepAlive runs
	spokenOn map[gossh.Channel]struct{} // by keepAlive
}

// liveConn remembers when the other end was last heard of.
type liveConn struct {
	net.Conn
	heard atomic.Int64 // time.Time.UnixNano
}

func (c *liveConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

func (c *liveConn) silence() time.Duration { return time.Since(time.Unix(0, c.heard.Load())) }

func newConnection(s *Server, nc net.Conn) *connection {
	c := &connection{server: s, net: &liveConn{Conn: nc}, over: make(chan struct{})}
	c.net.heard.Store(time.Now().UnixNano())
	remote := "unknown"
	if a := nc.RemoteAddr(); a != nil {
		remote = a.String()
	}
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		ip, bits := ap.Addr().Unmap().WithZone(""), 64 // whoever has one IPv6 address has 2^64
		if ip.Is4() {
			bits = 32
		}
		c.network, _ = ip.Prefix(bits)
	}
	c.log = s.log().WithField("addr", remote)
	return c
}

// serve speaks ssh until the connection has ended.
func (c *connection) serve(base context.Context) {
	defer close(c.over)
	defer c.net.Close()
	c.mu.Lock()
	c.deadline = time.AfterFunc(or(c.server.LoginTimeout, 30*time.Second), func() {
		c.log.Info("closed: no command came in time")
		c.late.Store(true)
		c.net.Close()
	})
	c.mu.Unlock()
	defer c.deadline.Stop()

	// A server value for each connection, so that its callbacks know theirs
	// without a bag of context values.
	gl := &ssh.Server{
		Version:              "scotch",
		HostSigners:          []ssh.Signer{c.server.HostKey},
		PublicKeyHandler:     c.offered,
		ServerConfigCallback: c.config,
		ChannelHandlers: map[string]ssh.ChannelHandler{
			"session": func(_ *ssh.Server, conn *gossh.ServerConn, nc gossh.NewChannel, glctx ssh.Context) {
				c.channel(base, conn, nc, glctx)
			},
		},
		// Not nil: then gliderlabs would take its package's defaults.
		RequestHandlers:   map[string]ssh.RequestHandler{},
		SubsystemHandlers: map[string]ssh.SubsystemHandler{},
		ConnectionFailedCallback: func(_ net.Conn, err error) {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				log := c.log
				if c.offeredKey != "" {
					log = log.WithField("key", c.offeredKey)
				}
				log.Infof("no login: %v", err)
			}
			if c.offeredKey != "" && !c.proved { // not one that only looked whether somebody answers
				c.refused(access.Identity{Fingerprint: c.offeredKey}, RefusedByKey, "no key of this client is let in")
			}
		},
	}
	defer c.settle()
	gl.HandleConn(c.net)
}

// settle lets the connection's network pay when no key was proved on it. It must
// be deferred directly.
func (c *connection) settle() {
	p := recover()
	switch {
	case p == errKeyCostsTime:
		c.log.Warnf("closed: %v", p)
		c.refused(access.Identity{Fingerprint: c.offeredKey}, RefusedByKey, errKeyCostsTime.Error())
		c.penalize(costOfAttack, "a key that is made to cost time")
		return
	case p != nil && !c.proved:
		c.penalize(costOfAttack, "an error inside the server")
	case c.proved:
	case c.late.Load():
		c.penalize(costOfLate, "connections without a login")
	case c.offeredKey != "":
		c.penalize(costOfKeys, "keys that are not let in")
	default:
		c.penalize(costOfSilence, "connections without a login")
	}
	if p != nil {
		logPanic(c.log, p)
	}
}

// channel serves one session channel until both the client has closed it and
// the work that it asked for is done.
func (c *connection) channel(base context.Context, conn *gossh.ServerConn, nc gossh.NewChannel, glctx ssh.Context) {
	if !c.server.begin() {
		nc.Reject(gossh.ResourceShortage, "the server is stopping")
		return
	}
	defer c.server.work.Done()
	defer recovered(c.log)
	if !c.open() {
		// gliderlabs has begun a goroutine for this, which waits as long as a
		// client that reads nothing leaves no room to write the answer.
		switch n := c.refusals.Add(1); {
		case n == 1:
			who, _, _ := c.identity(conn)
			c.refused(who, RefusedByLimit, "too many sessions on one connection")
		case n == maxRefusals:
			c.log.Warn("closed: a flood of channels")
			c.penalize(costOfAttack, "a flood of channels")
			c.net.Close()
		}
		nc.Reject(gossh.ResourceShortage, "too many sessions")
		return
	}
	c.refusals.Store(0)
	defer c.close()

	// gliderlabs' context lives as long as the connection. This one ends with
	// the channel: its stream of requests does (RFC 4254, section 5.3).
	ctx, cancel := context.WithCancel(base)
	defer cancel()
	var work sync.WaitGroup
	client := &screened{NewChannel: nc, conn: c, closed: cancel}
	gl := &ssh.Server{
		Handler: func(sess ssh.Session) {
			defer work.Done()
			c.session(ctx, base, conn, sess, client.terminal.Load(), &work)
		},
		// Asked once, just before the handler is started.
		SessionRequestCallback: func(_ ssh.Session, kind string) bool {
			if kind == "subsystem" {
				return false
			}
			work.Add(1)
			c.working(conn, +1)
			return true
		},
	}
	ssh.DefaultSessionHandler(gl, conn, client, glctx)
	cancel()
	work.Wait()
	if c.server.isClosed() {
		c.closeIfIdle() // not earlier: the client has had its exit status by now
	}
}

// maxRefusals is how many channels in a row may be refused before the connection is closed.
const maxRefusals = 100

func (c *connection) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.channels >= or(c.server.MaxSessions, 10) {
		return false
	}
	c.channels++
	return true
}

func (c *connection) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.channels--
}

// working counts commands, and minds the connection's deadline by them.
func (c *connection) working(conn *gossh.ServerConn, by int) {
	c.mu.Lock()
	c.commands += by
	if c.commands > 0 {
		c.deadline.Stop()
	} else {
		c.deadline.Reset(c.server.idleTimeout())
	}
	watch := !c.watched
	c.watched = true
	c.mu.Unlock()
	if watch && c.server.begin() {
		go func() {
			defer c.server.work.Done()
			defer c.net.Close() // it is over, or nobody watches it any more
			defer recovered(c.log)
			c.keepAlive(conn)
		}()
	}
}

func (c *connection) closeIfIdle() {
	if c.idle() {
		c.net.Close()
	}
}

// keepAlive asks a silent client for a sign of life, as sshd's
// ClientAliveInterval does, and gives it up after some silence. Whatever comes
// counts: an answer may be stuck behind megabytes of a pack.
func (c *connection) keepAlive(conn *gossh.ServerConn) {
	interval := or(c.server.KeepAlive, 30*time.Second)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	answered := make(chan struct{}, 1)
	waiting := false
	for {
		select {
		case <-c.over:
			if waiting {
				<-answered // the connection's end answers too
			}
			return
		case <-answered:
			waiting = false
		case <-tick.C:
			if _, _, ok := c.identity(conn); !ok {
				c.log.Info("closed: its key is out")
				c.net.Close()
			}
			silence := c.net.silence()
			if silence > 4*interval {
				c.log.Infof("closed: not heard of for %s", silence.Round(time.Second))
				c.net.Close()
			}
			if silence >= interval && !waiting {
				waiting = true
				go func() {
					defer func() { answered <- struct{}{} }()
					c.askChannels()
					conn.SendRequest("keepalive@openssh.com", true, nil)
				}()
			}
		}
	}
}

// speakOn has keepAlive speak on a channel, or not any more.
func (c *connection) speakOn(ch gossh.Channel, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !on {
		delete(c.spokenOn, ch)
		return
	}
	if c.spokenOn == nil {
		c.spokenOn = map[gossh.Channel]struct{}{}
	}
	c.spokenOn[ch] = struct{}{}
}

// askChannels sends a sign of life on each channel: a gateway between us and the
// client answers for the connection itself, and hands on what a channel gets.
func (c *connection) askChannels() {
	c.mu.Lock()
	channels := slices.Collect(maps.Keys(c.spokenOn))
	c.mu.Unlock()
	for _, ch := range channels {
		ch.SendRequest("keepalive@openssh.com", false, nil)
	}
}
