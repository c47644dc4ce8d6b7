package gitserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
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

	mu       sync.Mutex
	deadline *time.Timer // closes it; stopped while a command runs
	channels int         // open ones, and those whose work goes on
	commands int         // that are being worked on
	watched  bool        // keepAlive runs
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
			if !errors.Is(err, io.EOF) {
				c.log.Infof("no login: %v", err)
			}
			if c.offeredKey != "" && !c.proved { // not one that only looked whether somebody answers
				c.refused(access.Identity{Fingerprint: c.offeredKey}, RefusedByKey, "no key of this client is let in")
			}
		},
	}
	gl.HandleConn(c.net)
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
		who, _, _ := c.identity(conn)
		c.refused(who, RefusedByLimit, "too many sessions on one connection")
		nc.Reject(gossh.ResourceShortage, "too many sessions")
		return
	}
	defer c.close()

	// gliderlabs' context lives as long as the connection. This one ends with
	// the channel: its stream of requests does (RFC 4254, section 5.3).
	ctx, cancel := context.WithCancel(base)
	defer cancel()
	var work sync.WaitGroup
	client := &screened{NewChannel: nc, closed: cancel}
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
		c.deadline.Reset(or(c.server.IdleTimeout, 15*time.Minute))
	}
	watch := !c.watched
	c.watched = true
	c.mu.Unlock()
	if watch && c.server.begin() {
		go func() {
			defer c.server.work.Done()
			defer recovered(c.log)
			c.keepAlive(conn)
		}()
	}
}

func (c *connection) closeIfIdle() {
	c.mu.Lock()
	idle := c.commands == 0
	c.mu.Unlock()
	if idle {
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
					conn.SendRequest("keepalive@openssh.com", true, nil)
					answered <- struct{}{}
				}()
			}
		}
	}
}

// screened takes from a channel's requests what gliderlabs would accept,
// collect without bound, or block on.
type screened struct {
	gossh.NewChannel
	closed func() // called when the channel is, or is of no use to the client
	// terminal is the client's, nil where it asked for none. gliderlabs is told
	// nothing of it: it would change the output of each command that has one.
	terminal atomic.Pointer[terminal]
}

const maxCommand = 128 << 10 // bytes of a command line

func (s *screened) Accept() (gossh.Channel, <-chan *gossh.Request, error) {
	ch, in, err := s.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	out := make(chan *gossh.Request)
	go func() {
		defer close(out)
		defer s.closed()
		protocol, begun := false, false
		for r := range in {
			pass, done := false, false
			t := s.terminal.Load()
			switch r.Type {
			case "exec":
				pass = len(r.Payload) <= maxCommand
				begun = begun || pass
			case "shell":
				pass, begun = true, true
			case "pty-req":
				// What it is for is not known yet, and clients wait for the answer.
				if t == nil && !begun {
					t = requestTerminal(r.Payload)
					done = t != nil
					s.terminal.Store(t)
				}
			case "window-change":
				done = t != nil && t.change(r.Payload)
			case "env":
				// The one variable that git needs, once.
				var kv struct{ Name, Value string }
				pass = !protocol && gossh.Unmarshal(r.Payload, &kv) == nil &&
					kv.Name == "GIT_PROTOCOL" && protocolRE.MatchString(kv.Value)
				protocol = protocol || pass
			case "eow@openssh.com":
				// The client can't write what we send any more, as in
				// `ssh HOST logs -f APP | head`, and would wait for our end
				// (OpenSSH's PROTOCOL, 2.1).
				s.closed()
			}
			if !pass {
				if r.WantReply {
					r.Reply(done, nil)
				}
				continue
			}
			out <- r
		}
	}()
	return ch, out, nil
}
