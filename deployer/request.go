package deployer

import (
	"fmt"
	"time"
)

// Actor is who asks for an operation.
type Actor struct {
	Name string // of the key or of the local user; "scotch" for what it does by itself
	Key  string // its fingerprint, "" where no key was used
	From string // address, "local" on the server itself
}

// itself is who does what nobody asked for.
func itself() Actor { return Actor{Name: "scotch"} }

// Request asks for a deploy of a commit that is in the app's repository.
type Request struct {
	App    string
	Ref    string // the branch that moves with the switch, "refs/heads/main"
	Commit string // object name of the commit that is to go live
	// Old is the value of Ref that whoever asks has seen, 40 zeros for a ref
	// that does not exist. It is compared when the deploy's turn comes; empty
	// compares nothing.
	Old   string
	By    Actor
	Clean bool // build the virtualenv from nothing
	// Wait holds the answer until the watch after the switch is over. A release
	// that was taken back is a *StageError then.
	Wait bool
}

// Result is a deploy that went live.
type Result struct {
	Release int
	URL     string
	Took    time.Duration
}

// StageError is a deploy that failed in one of its stages. Its text is fit for
// git's answer to the pusher: one line without control characters.
type StageError struct {
	Stage string // "checkout" or "register"
	Err   error  // first line: why
}

func (e *StageError) Error() string {
	return fmt.Sprintf("deploy failed in %s: %s", e.Stage, FirstLine(e.Err.Error()))
}

func (e *StageError) Unwrap() error { return e.Err }

// RefusedError is a request that was refused before anything was done: the
// branch has moved on, the app is gone. Reason is fit for git's answer.
type RefusedError struct {
	Reason string
	Hint   string // what to do next, for a line of its own
}

func (e *RefusedError) Error() string { return e.Reason }
