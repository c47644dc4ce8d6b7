package deployer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNoProgram is what a Runner's error matches when the program of a command is
// not to be found.
var ErrNoProgram = errors.New("no such program")

// ErrNotExecutable is what a Runner's error matches when the program of a command
// is there, and cannot be started.
var ErrNotExecutable = errors.New("not executable")

// ExitError is a command that ended with a status other than 0.
type ExitError struct {
	Name   string // the program, as a person knows it: "pip"
	Status int    // exit status; -1 where a signal ended it
	Signal string // "SIGKILL"; empty where it exited
	Cause  string // of the signal, where it is known: "out of memory ([limits] build_memory = 2g)"
}

func (e *ExitError) Error() string {
	if e.Cause != "" {
		return fmt.Sprintf("%s was killed: %s", e.Name, e.Cause)
	}
	if e.Signal != "" {
		return fmt.Sprintf("%s was killed by %s", e.Name, e.Signal)
	}
	return fmt.Sprintf("%s exited with %d", e.Name, e.Status)
}

// TimeoutError is a command that was ended because its deadline was over.
type TimeoutError struct {
	Name  string
	After time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%s was still running after %s and was ended", e.Name, e.After)
}

// NoEntryPointError is a source in which a Toolchain finds no entry point.
type NoEntryPointError struct {
	Reason string
	Hint   string   // the next step, of one line or more
	Below  []string // directories of the source that hold an app of their own
}

func (e *NoEntryPointError) Error() string { return e.Reason + "\n" + e.Hint }

// EndsAtOnce tells whether what runs with ctx gets no time to end by itself:
// the cause of ctx's end says so by a method AtOnce() bool, as it does where
// somebody's right to run it was taken back. A runner sends SIGKILL then.
func EndsAtOnce(ctx context.Context) bool {
	var cause interface{ AtOnce() bool }
	return errors.As(context.Cause(ctx), &cause) && cause.AtOnce()
}
