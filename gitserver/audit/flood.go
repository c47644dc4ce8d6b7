package audit

import (
	"maps"
	"time"
)

// The log is rotated by size, so whoever could fill it would rotate away what was
// done before. In each minute the first lines of a kind are written; the first one
// of a later minute says how many more there were. How many is about what a line
// tells: nothing that a person does comes near.
const (
	refusedPerMinute = 100 // of all who are not let in
	idlePerMinute    = 30  // of one key and command, where nothing was changed
	changesPerMinute = 300 // of one key and command
)

// flood counts the lines of one kind in one minute.
type flood struct {
	minute time.Time
	n      int
	most   int
}

// admit tells whether an entry gets a line, and says in it for how many it stands.
func (l *Log) admit(e *Entry) bool {
	kind, most := e.countedAs()
	if most == 0 {
		return true
	}
	now := e.Time.Truncate(time.Minute)
	f := l.floods[kind]
	if f == nil {
		// Those with nothing left to say make room.
		maps.DeleteFunc(l.floods, func(_ string, f *flood) bool { return !f.minute.Equal(now) && f.n <= f.most })
		if l.floods == nil {
			l.floods = map[string]*flood{}
		}
		f = &flood{minute: now, most: most}
		l.floods[kind] = f
	}
	if !f.minute.Equal(now) {
		e.More += max(0, f.n-f.most)
		f.minute, f.n = now, 0
	}
	f.n++
	return f.n <= f.most
}

// countedAs tells which lines an entry is counted with, and how many of them are
// written in a minute; 0 is all. Switches need a deploy each, and the server's own
// machine is its operator's.
func (e *Entry) countedAs() (kind string, most int) {
	switch {
	case e.Kind == Refused:
		return "", refusedPerMinute
	case e.Kind == Switch || e.Key == "":
		return "", 0
	case !e.Idle:
		return e.Key + " " + e.Verb, changesPerMinute
	case e.Status == wrongUse:
		return e.Key, idlePerMinute // of a word that is no command there are many
	}
	return e.Key + " idle " + e.Verb, idlePerMinute
}

// wrongUse is the exit status of a command that was not understood.
const wrongUse = 2
