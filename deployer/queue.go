package deployer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// queue lets one operation at a time work on an app, first come first served.
type queue struct {
	mu    sync.Mutex
	lines map[string][]*ticket // by app; the first one works
}

// ticket is an operation in the queue of its app.
type ticket struct {
	what  string // "deploying 3f2c1ab"
	by    string
	since time.Time
	turn  chan struct{} // closed when it is the first
	quiet bool          // scotch's own housekeeping: nobody is told of it
	// yield is called, perhaps several times, when it works and somebody waits
	// behind it; nil for what is not interrupted.
	yield func()
}

// giveWay asks the first in a line to make room for a person behind it. The
// caller holds q.mu.
func giveWay(line []*ticket) {
	if len(line) > 1 && line[0].yield != nil && slices.ContainsFunc(line[1:], func(t *ticket) bool { return !t.quiet }) {
		line[0].yield()
	}
}

func (t *ticket) String() string {
	s := t.what
	if t.by != "" {
		s += " by " + t.by
	}
	return fmt.Sprintf("%s, since %s", s, time.Since(t.since).Round(time.Second))
}

// enter waits for the app's turn. waiting is called once, with what is ahead,
// if it does not come at once. The caller calls leave when it is done. When ctx
// is done first, the ticket is dropped and the cause returned.
func (q *queue) enter(ctx context.Context, app, what, by string, waiting func(ahead *ticket)) (leave func(), err error) {
	return q.join(ctx, app, &ticket{what: what, by: by, since: time.Now(), turn: make(chan struct{})}, waiting)
}

// enterQuietly is enter for housekeeping.
func (q *queue) enterQuietly(ctx context.Context, app string) (leave func(), err error) {
	return q.join(ctx, app, &ticket{since: time.Now(), turn: make(chan struct{}), quiet: true}, func(*ticket) {})
}

func (q *queue) join(ctx context.Context, app string, t *ticket, waiting func(ahead *ticket)) (leave func(), err error) {
	q.mu.Lock()
	q.lines[app] = append(q.lines[app], t)
	line := q.lines[app]
	var before *ticket // the last one ahead that a person has business with
	for _, other := range line[:len(line)-1] {
		if !other.quiet {
			before = other
		}
	}
	if len(line) == 1 {
		close(t.turn)
	}
	giveWay(line)
	q.mu.Unlock()
	leave = func() { q.leave(app, t) }
	if before != nil {
		waiting(before)
	}
	select {
	case <-t.turn:
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// busy tells whether what has the app's turn now is called that.
func (q *queue) busy(app, what string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[app]
	return len(line) > 0 && line[0].what == what
}

func (q *queue) leave(app string, t *ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[app]
	i := slices.Index(line, t)
	if i < 0 {
		return
	}
	line = slices.Delete(line, i, i+1)
	if len(line) == 0 {
		delete(q.lines, app)
		return
	}
	q.lines[app] = line
	if i == 0 {
		close(line[0].turn)
		giveWay(line)
	}
}
