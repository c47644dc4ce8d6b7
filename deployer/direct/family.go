package direct

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer/process"
)

// family is all that came of one start.
type family struct {
	leader int
	start  uint64 // of the leader
	token  string
	stamp  stamp // 0 where there is none
	user   int   // who all of it runs as; 0 where that says nothing
	stamps *stamps
}

// members reads who runs, the leader too. Whoever the leader started is
// younger: only processes from its number on are looked at, unless the numbers
// have come round, so that this does not get dear with many other apps.
func (f family) members() ([]stat, error) {
	from := 0
	if lastPID() >= f.leader && widePIDs() {
		from = f.leader
	}
	all, err := processes(from)
	if err != nil {
		return nil, err
	}
	return closure(all, func(s stat) verdict {
		if s.start < f.start {
			return foreign
		}
		if s.session == f.leader || s.pgrp == f.leader {
			return root
		}
		if m := readMark(s.pid); m.run == f.token {
			return root
		} else if f.stamp != 0 && f.stamped(s, m) && !guest(s, f.leader, m) {
			return root
		}
		return unknown
	}), nil
}

// stamped tells whether a process has the family's stamp, or one that it can have
// put on itself alone, to be taken for somebody else's.
func (f family) stamped(s stat, m mark) bool {
	has, ok := limited(s.pid)
	switch {
	case !ok:
		return false
	case has == f.stamp:
		return true
	}
	return f.user > 0 && m.site == "" && f.stamps.forged(has) && userOf(s.pid) == f.user
}

// guest tells whether a process was started by another part of this program, or
// comes of one that was: it can have any stamp.
func guest(s stat, leader int, m mark) bool {
	self := os.Getpid()
	for range 1000 { // parents may change while this looks
		switch s.ppid {
		case 0, leader:
			return false
		case self:
			// The first process of a container is everybody's last parent.
			return self != 1 || m.run != ""
		case 1:
			return false
		}
		var err error
		if s, err = readStat(s.ppid); err != nil {
			return false // its parent has ended just now
		}
	}
	return false
}

type verdict int

const (
	unknown verdict = iota // belongs to whoever its parent or its session belongs to
	root
	foreign // never, nor what belongs to it
)

// closure returns the roots, and with them their descendants and whoever is in
// a session that a root leads. A root that is a guest in a session, as git is in
// that of a server started by hand, does not pull its hosts in.
func closure(all []stat, judge func(stat) verdict) []stat {
	verdicts := make(map[int]verdict, len(all))
	sessions := map[int]verdict{}
	settle := func(s stat, v verdict) {
		verdicts[s.pid] = v
		if v == foreign || (v == root && s.pid == s.session && sessions[s.session] == unknown) {
			sessions[s.session] = v
		}
	}
	for _, s := range all {
		settle(s, judge(s))
	}
	for changed := true; changed; {
		changed = false
		for _, s := range all {
			if verdicts[s.pid] != unknown {
				continue
			}
			v := sessions[s.session]
			if v == unknown {
				v = verdicts[s.ppid]
			}
			if v != unknown {
				settle(s, v)
				changed = true
			}
		}
	}
	var out []stat
	for _, s := range all {
		if verdicts[s.pid] == root {
			out = append(out, s)
		}
	}
	return out
}

// signal sends sig to the group and to every other member. The leader must not
// have been reaped.
func (f family) signal(sig unix.Signal) {
	// The group at once, so that no member sees another one end first.
	unix.Kill(-f.leader, sig)
	members, err := f.members()
	if err != nil {
		return
	}
	for _, m := range members {
		if m.pgrp != f.leader {
			send(m, sig)
		}
	}
	if sig == unix.SIGTERM { // a stopped process gets it when it goes on
		unix.Kill(-f.leader, unix.SIGCONT)
	}
}

// send signals exactly that process.
func send(s stat, sig unix.Signal) {
	p, err := process.OpenPIDFD(s.pid)
	if err != nil {
		return
	}
	defer p.Close()
	if now, err := readStat(s.pid); err != nil || now.start != s.start {
		return
	}
	p.Signal(sig)
	if sig == unix.SIGTERM {
		p.Signal(unix.SIGCONT)
	}
}

// end ends what is left of a family whose leader has ended: SIGTERM, and
// SIGKILL after patience or once hurry is closed.
func (r *Runner) end(f family, patience time.Duration, hurry <-chan struct{}) error {
	return endAll(func() ([]stat, error) { return f.members() }, patience, hurry)
}

// endAll ends what find finds until it finds nothing.
func endAll(find func() ([]stat, error), patience time.Duration, hurry <-chan struct{}) error {
	deadline := time.Now().Add(patience)
	known := map[int]stat{} // told to end
	var last time.Time      // when SIGKILL is over
	for {
		left, err := find()
		if err != nil {
			return err
		}
		kill := !time.Now().Before(deadline)
		select {
		case <-hurry:
			kill = true
		default:
		}
		for _, s := range left {
			if known[s.pid].start != s.start && !kill {
				send(s, unix.SIGTERM)
			}
			known[s.pid] = s
		}
		// A process that is just ending, or is just starting another program,
		// has no environment and so no mark for a moment: once found it counts
		// until it has ended.
		var one stat
		for pid, s := range known {
			if now, err := readStat(pid); err != nil || now.start != s.start || now.gone() {
				delete(known, pid)
				continue
			}
			if kill {
				send(s, unix.SIGKILL)
			}
			one = s
		}
		switch {
		case len(known) == 0 && len(left) == 0:
			return nil
		case len(known) == 0:
			continue // look for whom they started meanwhile
		case !kill:
			waitFor(one, deadline, hurry)
			continue
		case last.IsZero():
			last = time.Now().Add(killed)
		case time.Now().After(last):
			return fmt.Errorf("process %d does not end, not even by SIGKILL: it waits for a device or a file server", one.pid)
		}
		waitFor(one, last, nil)
	}
}

// waitFor returns when the process has ended, at the deadline, or when hurry is
// closed. Whoever came besides is seen at the next look.
func waitFor(s stat, deadline time.Time, hurry <-chan struct{}) {
	p, err := process.OpenPIDFD(s.pid)
	if err != nil {
		return
	}
	defer p.Close()
	if now, err := readStat(s.pid); err != nil || now.start != s.start || now.gone() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Wait(deadline); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			time.Sleep(10 * time.Millisecond) // no reason known; never spin
		}
	}()
	select {
	case <-done:
	case <-hurry:
		p.SetDeadline(time.Now())
		<-done
	}
}
