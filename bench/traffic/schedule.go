// Package traffic sends requests of many kinds to an app through its web server
// while versions of it come and go, and judges each answer: that it came, whole,
// from a version that may serve. Tests and measurements share it.
package traffic

import (
	"maps"
	"slices"
	"sync"
)

// Schedule tells which versions of an app may answer, over time. During a
// switch that is the old one and the new one, at all other times one alone. The
// zero value is ready; it may be used by many.
type Schedule struct {
	mu   sync.Mutex
	sets [][]string
	// reloads counts the times that the web server may reload, and reloading
	// those that are not over.
	reloads, reloading int
}

// May says which versions may answer from now on. It is called before the first
// request.
func (s *Schedule) May(versions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets = append(s.sets, versions)
}

// BeginReload says that the web server may reload until EndReload: it may then
// close keep-alive connections that are idle.
func (s *Schedule) BeginReload() { s.mu.Lock(); s.reloads++; s.reloading++; s.mu.Unlock() }

// EndReload ends what BeginReload began.
func (s *Schedule) EndReload() { s.mu.Lock(); s.reloading--; s.mu.Unlock() }

// moment is when a request began.
type moment struct{ set, reloads, reloading int }

func (s *Schedule) now() moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return moment{len(s.sets) - 1, s.reloads, s.reloading}
}

// since returns the versions that were allowed at a moment and later.
func (s *Schedule) since(m moment) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	allowed := map[string]bool{}
	for _, set := range s.sets[m.set:] {
		for _, v := range set {
			allowed[v] = true
		}
	}
	return slices.Sorted(maps.Keys(allowed))
}

// reloaded tells whether the web server may have reloaded since a moment.
func (s *Schedule) reloaded(m moment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.reloading > 0 || s.reloads != m.reloads
}
