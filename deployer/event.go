package deployer

import (
	"context"
	"errors"
	"time"
)

// Observer is told what becomes of operations. Observe returns at once, whoever
// is slow or out of reach: it is called in the app's turn.
type Observer interface {
	Observe(e Event)
}

// EventState is how far an operation has come.
type EventState string

// The states of an operation. Of each that began comes one of the last two.
const (
	EventStarted EventState = "started" // deploys alone: a commit was found, and work on it begins
	EventLive    EventState = "live"    // it has switched
	EventFailed  EventState = "failed"  // what served before serves on
)

// Event is something that happened to an app.
type Event struct {
	State EventState
	// What is the operation: "deploy", "restart", "start", "rollback", "rebuild"
	// or "change".
	What string
	App  string
	By   Actor  // "scotch" where the watch after a switch took a release back
	Ref  string // the branch that moves with it

	// Release and Commit are what is live now, or of an operation that did not
	// switch what it was to bring, as far as it came to know that. The release
	// number of a failed deploy is given to the next one.
	Release int
	Commit  string
	Subject string // not neutralised: it comes from whoever pushed
	// OldRelease and Old are what was live before, 0 and "" for nothing.
	OldRelease int
	Old        string // commit

	URL    string
	Reason string // of a failure, or why the watch took a release back; one line
	// Cancelled tells that a person ended it.
	Cancelled bool
	Took      time.Duration
	Stages    []StageTime // those that it went through, the last one may have failed
}

// StageTime is how long a stage took.
type StageTime struct {
	Stage string // "checkout", "register"
	Took  time.Duration
}

func (d *Deployer) observe(e Event) {
	if d.Observer != nil {
		d.Observer.Observe(e)
	}
}

// event is one of this operation. was is what was live before it, nil for nothing.
func (op *operation) event(state EventState, was *Record) Event {
	e := Event{
		State: state, What: op.what, App: op.app, By: op.by, Ref: op.commitRef,
		Release: op.number, Commit: op.commit.ID, Subject: op.commit.Subject,
		Took: time.Since(op.started), Stages: op.stages,
	}
	if was != nil {
		e.OldRelease, e.Old = was.Release, was.Commit
	}
	return e
}

// tellEnd tells of the end of the operation.
func (op *operation) tellEnd(ctx context.Context, was *Record, err error) {
	if op.d.Observer == nil {
		return
	}
	if err != nil {
		e := op.event(EventFailed, was)
		e.Reason = inShort(err.Error())
		e.Cancelled = errors.As(context.Cause(ctx), new(*cancelledError))
		op.d.observe(e)
		return
	}
	e := op.event(EventLive, was)
	e.from(op.nowLive())
	op.d.observe(e)
}

// from fills in what is live now.
func (e *Event) from(live *Record) {
	if live != nil {
		e.Release, e.Commit, e.Subject, e.URL, e.Ref = live.Release, live.Commit, live.Subject, live.URL, live.Ref
	}
}

// stage runs a stage and notes how long it took.
func (op *operation) stage(name string, run func() error) error {
	begin := time.Now()
	op.noteBegun(name, false)
	err := run()
	op.stages = append(op.stages, StageTime{name, time.Since(begin)})
	return err
}
