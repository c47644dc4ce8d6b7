package gitserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"scotch/gitserver/access"
)

// admission counts connections. Of the server's lock.
type admission struct {
	conns      map[*connection]struct{}
	perNetwork map[netip.Prefix]int
	// logins are the connections that have proved no key yet.
	logins map[*connection]struct{}
	// told is when a refusal was last logged, and untold how many were not.
	told   time.Time
	untold int
}

// accept serves a connection in a goroutine of its own, or refuses it.
func (s *Server) accept(base context.Context, nc net.Conn) {
	c := newConnection(s, nc)
	defer recovered(c.log)
	if err := s.admit(c); err != nil {
		s.turnAway(c, err)
		return
	}
	go func() {
		defer s.work.Done()
		defer s.release(c)
		defer recovered(c.log)
		c.serve(base)
	}()
}

// admit counts a connection in, if there is room for it or room can be made.
//
// Those who have not logged in are the cheap part of a flood, so they make room:
// where there are too many of them, one of the network that has most of them is
// dropped, at random, and not whoever comes next. A flood from one place hits
// itself alone, and one from everywhere leaves each newcomer a chance. As with
// sshd's MaxStartups it begins early, with a chance that grows with their number.
func (s *Server) admit(c *connection) error {
	if left := s.penalties.left(c.network, time.Now()); left > 0 {
		return fmt.Errorf("%s is kept out for %s, for what came from there", c.network, left.Round(time.Second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	a := &s.admission
	if a.conns == nil {
		a.conns, a.perNetwork, a.logins = map[*connection]struct{}{}, map[netip.Prefix]int{}, map[*connection]struct{}{}
	}
	near := func(other *connection) bool { return other.network == c.network }
	if a.perNetwork[c.network] >= or(s.MaxPerAddress, 64) && !s.drop(near) && !s.dropIdle(near) {
		return fmt.Errorf("too many connections from %s", c.network)
	}
	if len(a.conns) >= or(s.MaxConnections, 512) && !s.drop(nil) && !s.dropIdle(nil) {
		return errors.New("too many connections")
	}
	a.conns[c] = struct{}{}
	a.logins[c] = struct{}{}
	a.perNetwork[c.network]++
	s.work.Add(1)
	full := or(s.MaxLogins, 100)
	early := full * 3 / 10
	if n := len(a.logins); n > full || n > early && rand.IntN(full-early) < n-early-1 {
		s.drop(nil)
	}
	return nil
}

// drop closes a connection without a login that may be taken: one of the network
// that has most of them. s.mu is held.
func (s *Server) drop(may func(*connection) bool) bool {
	perNetwork := map[netip.Prefix]int{}
	most := 0
	for c := range s.admission.logins {
		if may == nil || may(c) {
			perNetwork[c.network]++
			most = max(most, perNetwork[c.network])
		}
	}
	if most == 0 {
		return false
	}
	var crowd []*connection
	for c := range s.admission.logins {
		if perNetwork[c.network] == most {
			crowd = append(crowd, c)
		}
	}
	victim := crowd[rand.IntN(len(crowd))]
	s.forget(victim)
	victim.net.Close()
	return true
}

// forget counts a connection out, once. s.mu is held.
func (s *Server) forget(c *connection) {
	a := &s.admission
	if _, ok := a.conns[c]; !ok {
		return
	}
	delete(a.conns, c)
	delete(a.logins, c)
	if a.perNetwork[c.network]--; a.perNetwork[c.network] <= 0 {
		delete(a.perNetwork, c.network)
	}
}

func (s *Server) release(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(c)
}

// loggedIn is told that a connection's key was proved. It says no where the
// connection was dropped just before.
func (s *Server) loggedIn(c *connection, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.admission.logins, c)
	c.key = key
	_, ok := s.admission.conns[c]
	return ok
}

// turnAway closes a connection that was not admitted. ssh -v shows what it is
// told: lines before the protocol's first (RFC 4253, section 4.2).
func (s *Server) turnAway(c *connection, why error) {
	defer c.net.Close()
	s.mu.Lock()
	now := time.Now()
	s.admission.untold++
	untold, tell := s.admission.untold, now.Sub(s.admission.told) >= time.Second
	if tell {
		s.admission.told, s.admission.untold = now, 0
	}
	s.mu.Unlock()
	switch { // a flood must not flood the log
	case tell && untold > 1:
		c.log.Warnf("connection refused, and %d others before it: %v", untold-1, why)
	case tell:
		c.log.Warnf("connection refused: %v", why)
	}
	if errors.Is(why, ErrClosed) {
		return
	}
	c.refused(access.Identity{}, RefusedByLimit, why.Error())
	// A fresh socket has room for a line; the deadline is for one that has not.
	c.net.SetWriteDeadline(now.Add(50 * time.Millisecond))
	fmt.Fprintf(c.net, "scotch: %v\r\n", why)
}
