package direct

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
	"scotch/deployer/process"
)

// The variables of the mark.
const (
	envSite   = "SCOTCH_SITE"
	envRun    = "SCOTCH_RUN"
	envRecord = "SCOTCH_RECORD"
)

// Options are the patience of a Runner. The zero value is fit for a server.
type Options struct {
	Interrupt time.Duration // between SIGINT and SIGTERM; 0 is 5 s
	Terminate time.Duration // between SIGTERM and SIGKILL; 0 is 5 s
	Grace     time.Duration // for processes whose own Grace is 0; 0 is 10 s

	// Own tells whether all that runs as a user is started by this runner: then a
	// process of that user which carries nobody's stamp is ended with the family that
	// ends, whoever it may be a child of by now. nil: no user is.
	Own func(user string) bool

	// Box is for what works for an app and runs as another user than the server;
	// nil: such a process sees what its user sees.
	Box *Box
}

// killed is how long the kernel gets to carry out a SIGKILL. A process that
// waits for a device (state D) can take for ever.
const killed = 10 * time.Second

// Runner starts processes of one site. Its methods may be called at the same
// time. It needs no end: what it watches ends with the processes.
type Runner struct {
	site string
	id   string
	opts Options
	last atomic.Uint64

	stamps *stamps
}

var _ deployer.Runner = (*Runner)(nil)

// New returns the runner of a site, named by its run directory, an absolute
// path that no other site has. The runner keeps its notes below it, in sessions.
func New(site string, opts Options) *Runner {
	if opts.Interrupt == 0 {
		opts.Interrupt = 5 * time.Second
	}
	if opts.Terminate == 0 {
		opts.Terminate = 5 * time.Second
	}
	if opts.Grace == 0 {
		opts.Grace = 10 * time.Second
	}
	var id [8]byte
	rand.Read(id[:]) // never fails, by its documentation
	return &Runner{site: site, id: hex.EncodeToString(id[:]), opts: opts, stamps: newStamps()}
}

// Mark returns the variables that make a process that is started elsewhere
// (git, by the server of git) one of this site's, so that the next server's
// Strays ends it.
func (r *Runner) Mark() []string {
	return []string{envSite + "=" + r.site, envRun + "=" + r.token()}
}

func (r *Runner) token() string {
	return r.id + "." + strconv.FormatUint(r.last.Add(1), 10)
}

// Run implements deployer.Runner. The writers of c must not block for ever: Run
// waits for them. A Read of c.Stdin may still be under way when Run returns.
func (r *Runner) Run(ctx context.Context, c deployer.Command) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start %s: %w", process.Name(c.Args), context.Cause(ctx))
	}
	pipes, err := process.NewStdio(c)
	if err != nil {
		return fmt.Errorf("start %s: %w", process.Name(c.Args), err)
	}
	ch, err := r.spawn(spawn{
		args: c.Args, dir: c.Dir, env: c.Env, user: c.User, group: c.Group, umask: c.Umask,
		files: pipes.Files(), tty: c.TTY != nil, limits: rlimits(c.Each), app: c.App != "", writes: c.Writes,
	})
	pipes.Started()
	if err != nil {
		pipes.Close()
		return err
	}
	pipes.Copy()

	exited := make(chan error, 1)
	go func() { exited <- ch.pidfd.Wait(time.Time{}) }()

	var deadline <-chan time.Time
	if c.Timeout > 0 {
		t := time.NewTimer(c.Timeout)
		defer t.Stop()
		deadline = t.C
	}
	var ended error
	select {
	case <-exited:
	case <-deadline:
		ended = &deployer.TimeoutError{Name: process.Name(c.Args), After: c.Timeout}
	case <-ctx.Done():
		ended = fmt.Errorf("%s was ended: %w", process.Name(c.Args), context.Cause(ctx))
	}
	interrupt, terminate := r.opts.Interrupt, r.opts.Terminate
	if ended != nil && deployer.EndsAtOnce(ctx) {
		interrupt, terminate = 0, 0
	}
	if ended != nil && !escalate(ch.family, exited, interrupt, terminate) {
		pipes.Close()
		go ch.process.Wait() // the kernel ends it some day; nobody can wait for that
		return fmt.Errorf("%w\nprocess %d does not end, not even by SIGKILL: it waits for a device or a file server", ended, ch.family.leader)
	}
	// The leader has ended and is not reaped yet, so that its number, which is
	// its group's and its session's too, can't be anybody else's.
	// The box it was in ends all that is in it.
	state, err := ch.waitBox()
	left := r.end(ch.family, terminate, nil)
	if ch.box == nil {
		state, err = ch.process.Wait()
	}
	ch.release()
	pipes.Finish()
	switch {
	case ended != nil:
		return ended
	case err != nil:
		return fmt.Errorf("wait for %s: %w", process.Name(c.Args), err)
	case left != nil:
		return fmt.Errorf("end what %s left running: %w", process.Name(c.Args), left)
	}
	return exitError(process.Name(c.Args), state, ch.box != nil)
}

// escalate ends a leader that still runs, and its family with it, with so much
// time between the signals; those that would get none are left out. It returns
// false if the leader is there after all.
func escalate(f family, exited <-chan error, interrupt, terminate time.Duration) bool {
	for _, step := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{
		{unix.SIGINT, interrupt},
		{unix.SIGTERM, terminate},
		{unix.SIGKILL, killed},
	} {
		if step.wait == 0 {
			continue
		}
		f.signal(step.sig)
		t := time.NewTimer(step.wait)
		select {
		case <-exited:
			t.Stop()
			return true
		case <-t.C:
		}
	}
	return false
}

// exitError is nil for an exit with 0. bubblewrap exits, as a shell does, with 128
// and the number where a signal ended what it waited for.
func exitError(name string, state *os.ProcessState, boxed bool) error {
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case state.Success():
		return nil
	case ok && status.Signaled():
		return &deployer.ExitError{Name: name, Status: -1, Signal: unix.SignalName(status.Signal())}
	}
	if signal := unix.SignalName(syscall.Signal(state.ExitCode() - 128)); boxed && signal != "" {
		return &deployer.ExitError{Name: name, Status: -1, Signal: signal}
	}
	return &deployer.ExitError{Name: name, Status: state.ExitCode()}
}
