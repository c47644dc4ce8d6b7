package gitserver

import (
	"sync"
	"time"

	"scotch/gitserver/access"
	"scotch/gitserver/audit"
)

// Why somebody is not let in, in one word, or what they were refused: the verb of
// the record.
const (
	RefusedByKey   = "key"   // it is not known, or not any more
	RefusedByLimit = "limit" // too many connections or sessions
	RefusedFetch   = "fetch" // a fetch of something that is not there or not theirs
)

// refused records that a connection, or a session of one, was not let in.
func (c *connection) refused(who access.Identity, why, reason string) {
	if c.server.Audit == nil {
		return
	}
	c.server.Audit.Record(audit.Entry{
		Kind: audit.Refused, By: who.Name, Key: who.Fingerprint, From: c.from(), Verb: why, Result: audit.Denied, Status: 1, Reason: reason,
	})
}

func (c *connection) from() string {
	if a := c.net.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}

// fetched does a fetch, and records it where it was refused: by then s.said has
// the reason. One that was served is no change, and is not recorded.
func (s *session) fetched(app string, fetch func() int) int {
	status := fetch()
	if status != 0 && s.said != "" && s.server.Audit != nil {
		s.server.Audit.Record(audit.Entry{
			Kind: audit.Refused, By: s.who.Name, Key: s.who.Fingerprint, From: s.who.Addr, Verb: RefusedFetch, App: app,
			Result: audit.Denied, Status: status, Reason: s.said,
		})
	}
	return status
}

// audited does a push and records it when it is done, with what became of its
// refs. One that changes nothing (everything up-to-date, --dry-run) is recorded
// without refs.
func (s *session) audited(app string, push func(refs func(audit.Ref)) int) int {
	if s.server.Audit == nil {
		return push(func(audit.Ref) {})
	}
	begin := time.Now()
	var mu sync.Mutex
	var all []audit.Ref
	ended := false
	defer func() {
		// Also where push panics: the record is made, and the panic goes on.
		if !ended {
			s.record(app, nil, 1, begin)
		}
	}()
	status := push(func(r audit.Ref) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r)
	})
	ended = true
	mu.Lock()
	defer mu.Unlock()
	s.record(app, all, status, begin)
	return status
}

func (s *session) record(app string, refs []audit.Ref, status int, begin time.Time) {
	e := audit.Entry{
		Kind: audit.Push, By: s.who.Name, Key: s.who.Fingerprint, From: s.who.Addr, Verb: "push", App: app, Refs: refs,
		Result: audit.OK, Status: status, Seconds: time.Since(begin).Seconds(), Idle: true,
	}
	if status != 0 {
		e.Result = audit.Failed
	}
	// git's own status is 0 where it could tell the client, whose git exits with 1.
	for _, r := range refs {
		e.Idle = e.Idle && r.Result == "refused"
		switch {
		case r.Result == "refused":
			e.Result, e.Reason, e.Status = audit.Denied, r.Reason, 1
		case r.Result == "failed" && e.Result != audit.Denied:
			e.Result, e.Reason, e.Status = audit.Failed, r.Reason, 1
		}
	}
	if status != 0 && len(refs) == 0 {
		e.Result, e.Reason = audit.Denied, s.said
	}
	s.server.Audit.Record(e)
}

// Sessions counts the sessions that are open, and all since the server's start.
func (s *Server) Sessions() (open, total int64) {
	return s.sessions.open.Load(), s.sessions.total.Load()
}
