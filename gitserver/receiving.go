package gitserver

import "sync"

// receiving counts the pushes to one app that are under way. git removes its
// quarantine (tmp-objdir.c) on every end but SIGKILL, which a machine out of
// memory sends; from outside nobody can tell whose push one belongs to, so it
// is removed when there is none.
type receiving struct {
	mu     sync.Mutex
	app    string
	pushes int
	killed bool // the git of one was
}

// receivingOf returns the one of an app, which stays as long as the server.
func (s *Server) receivingOf(app string) *receiving {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.receiving[app]
	if r == nil {
		if s.receiving == nil {
			s.receiving = map[string]*receiving{}
		}
		r = &receiving{app: app}
		s.receiving[app] = r
	}
	return r
}

func (r *receiving) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pushes++
}

// end is the end of a push; killed tells that its git was. After the last one
// recover is called, if it is due; a push that begins meanwhile waits.
func (r *receiving) end(killed bool, recover func(app string) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pushes--
	r.killed = r.killed || killed
	if !r.killed || r.pushes > 0 {
		return nil
	}
	r.killed = false
	if recover == nil {
		return nil
	}
	return recover(r.app)
}
