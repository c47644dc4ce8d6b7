package gitserver

import (
	"fmt"
	"math/rand/v2"

	"scotch/gitserver/access"
)

// work is something that a session does.
type work int

const (
	ofGit work = iota
	ofCommand
)

// share counts a session in for its key, until done is called, or says that the
// key has as much under way as one may have. An admin's commands are counted for
// nobody: whatever that key does, it can end what is too much of it, and let a key
// in no more.
func (s *Server) share(who access.Identity, w work) (done func(), err error) {
	if w == ofCommand && who.Role == access.Admin {
		return func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.perKey[who.Fingerprint] >= s.maxPerKey() {
		return nil, fmt.Errorf("your key has %d commands, pushes and fetches under way, as many as one may have here\n"+
			"end one of them (a logs -f, an ssh that hangs) or wait for it, or have an admin raise [server] max_per_key", s.maxPerKey())
	}
	if s.perKey == nil {
		s.perKey = map[string]int{}
	}
	s.perKey[who.Fingerprint]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.perKey[who.Fingerprint]--; s.perKey[who.Fingerprint] <= 0 {
			delete(s.perKey, who.Fingerprint)
		}
	}, nil
}

func (s *Server) maxPerKey() int { return or(s.MaxPerKey, 32) }

// dropIdle closes a logged-in connection that may be taken: one without a command,
// of the key that has most connections, where those are more than its share.
// Otherwise one key could hold every connection that there may be. s.mu is held.
func (s *Server) dropIdle(may func(*connection) bool) bool {
	perKey := map[string]int{}
	for c := range s.admission.conns {
		if c.key != "" {
			perKey[c.key]++
		}
	}
	most := s.maxPerKey() // which is no candidate itself
	var crowd []*connection
	for c := range s.admission.conns {
		n := perKey[c.key]
		if n <= s.maxPerKey() || n < most || may != nil && !may(c) || !c.idle() {
			continue
		}
		if n > most {
			most, crowd = n, crowd[:0]
		}
		crowd = append(crowd, c)
	}
	if len(crowd) == 0 {
		return false
	}
	victim := crowd[rand.IntN(len(crowd))]
	s.forget(victim)
	victim.log.Info("closed to make room: it did nothing, and there are more of its key than its share")
	victim.net.Close()
	return true
}

func (c *connection) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commands == 0
}
