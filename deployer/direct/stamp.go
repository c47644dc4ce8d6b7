package direct

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stamp is a mark that a process can't take off: the hard limit RLIMIT_LOCKS,
// which the kernel has looked at for nothing since 2.4.25 (getrlimit(2)). It is
// inherited by fork and exec, everybody may read it in /proc/PID/limits, and who
// has not CAP_SYS_RESOURCE on the machine itself can only lower it.
//
// Stamps go down with time. So a process can't put on that of an older family,
// and what it puts on that is nobody's gives it away. 0 is no stamp.
type stamp uint64

// stampAt is the stamp of a time: each is above 2^62, up to the year 2116, so that
// no limit that somebody means looks like one.
func stampAt(t time.Time) stamp { return stamp(math.MaxInt64 - t.UnixNano()) }

// isStamp tells whether a limit can be one.
func isStamp(limit uint64) bool { return limit>>62 == 1 }

// stamps hands out stamps.
type stamps struct {
	mu    sync.Mutex
	first stamp // all that are handed out are below it; 0 where none can be had
	last  stamp
	live  map[stamp]bool // of families that are not ended yet
}

func newStamps() *stamps {
	first := stampAt(time.Now())
	var now unix.Rlimit
	if unix.Prlimit(0, unix.RLIMIT_LOCKS, nil, &now) != nil || now.Max != unix.RLIM_INFINITY && !isStamp(now.Max) {
		first = 0 // somebody else has limited it: what is lower means nothing
	}
	return &stamps{first: first, last: first, live: map[stamp]bool{}}
}

// on calls start with a new stamp on this process, which a child that start makes
// inherits at its birth. What another part of this program starts meanwhile has it
// too: guest tells those.
//
// The limit is the process's, not the thread's: of several Runners in one process
// only one may start something at a time.
func (s *stamps) on(start func() error) (stamp, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.lower()
	if own != 0 {
		s.live[own] = true
	}
	err := start()
	s.lower() // nobody else is to have it from here on
	if err != nil {
		delete(s.live, own)
		return 0, err
	}
	return own, nil
}

// lower puts the next stamp on this process, all of it: a limit is no thread's. It
// returns 0 where that can't be.
func (s *stamps) lower() stamp {
	if s.first == 0 {
		return 0
	}
	next := min(s.last-1, stampAt(time.Now()))
	if err := unix.Prlimit(0, unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: uint64(next), Max: uint64(next)}, nil); err != nil {
		return 0
	}
	s.last = next
	return next
}

// keep notes a family that an earlier server started.
func (s *stamps) keep(own stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own != 0 {
		s.live[own] = true
	}
}

// drop forgets a family that is ended.
func (s *stamps) drop(own stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, own)
}

// forged tells that no server has handed a stamp out, or that its family has
// ended under this one: whoever carries it has put it on.
func (s *stamps) forged(has stamp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return has < s.first && !s.live[has]
}

// limited is the stamp of a process, and whether it has that limit at all.
func limited(pid int) (stamp, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(b, []byte("\nMax file locks"))
	f := bytes.Fields(rest)
	if !ok || len(f) < 2 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(f[1]), 10, 64) // the hard one; "unlimited" is none
	return stamp(n), err == nil
}

// stampOf is the stamp of a process, 0 where it has none.
func stampOf(pid int) stamp {
	if s, ok := limited(pid); ok && isStamp(uint64(s)) {
		return s
	}
	return 0
}

// userOf is the real user of a process, -1 where it is gone.
func userOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return -1
	}
	_, rest, _ := bytes.Cut(b, []byte("\nUid:"))
	f := bytes.Fields(rest)
	if len(f) == 0 {
		return -1
	}
	n, err := strconv.Atoi(string(f[0]))
	if err != nil {
		return -1
	}
	return n
}
