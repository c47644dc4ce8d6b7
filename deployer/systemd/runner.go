package systemd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
	"scotch/deployer/process"
)

// Options of a Runner. The zero value is fit for a server, but for Own.
type Options struct {
	// Own runs the commands that work for no app. nil: they are units too.
	Own deployer.Runner
	// Program is what a unit starts, which calls Child when Arg is its only
	// argument; every user must be able to execute it. Empty: this program.
	Program string

	// Hidden are files and directories that nothing that an app runs may see.
	Hidden []string

	Interrupt time.Duration // between SIGINT and SIGTERM; 0 is 5 s
	Terminate time.Duration // between SIGTERM and SIGKILL; 0 is 5 s
	Grace     time.Duration // for processes whose own Grace is 0; 0 is 10 s
}

const (
	// killed is how long the kernel gets to carry out a SIGKILL.
	killed = 10 * time.Second
	// startTimeout is how long systemd may take to start a unit.
	startTimeout = 30 * time.Second
)

// Runner starts processes of one site as units of systemd. Its methods may be
// called at the same time.
type Runner struct {
	prefix string
	id     string
	opts   Options
	last   atomic.Uint64
	bus    bus
	cgroup string // where control groups are mounted

	mu   sync.Mutex
	mine map[string]bool // units that this runner started, and that are not over
}

var _ deployer.Runner = (*Runner)(nil)

// Here tells whether systemd is the first process of this machine, as
// sd_booted(3) does, and this program may ask it to run something.
func Here() bool {
	fi, err := os.Lstat("/run/systemd/system")
	return err == nil && fi.IsDir() && os.Geteuid() == 0
}

// New returns the runner of a site, named by its run directory, an absolute path
// that no other site has. It connects to systemd when it is first used.
func New(site string, opts Options) (*Runner, error) {
	if opts.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		opts.Program = program
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{{&opts.Interrupt, 5 * time.Second}, {&opts.Terminate, 5 * time.Second}, {&opts.Grace, 10 * time.Second}} {
		if *d.of == 0 {
			*d.of = d.is
		}
	}
	var id [4]byte
	rand.Read(id[:]) // never fails, by its documentation
	return &Runner{
		prefix: sitePrefix(site), id: hex.EncodeToString(id[:]), opts: opts,
		cgroup: "/sys/fs/cgroup", mine: map[string]bool{},
	}, nil
}

// Run implements deployer.Runner. The writers of c must not block for ever: Run
// waits for them. A Read of c.Stdin may still be under way when Run returns.
func (r *Runner) Run(ctx context.Context, c deployer.Command) error {
	if c.App == "" && r.opts.Own != nil {
		return r.opts.Own.Run(ctx, c)
	}
	name := process.Name(c.Args)
	if ctx.Err() != nil {
		return fmt.Errorf("start %s: %w", name, context.Cause(ctx))
	}
	stdio, err := process.NewStdio(c)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if c.TTY != nil {
		// Child makes it the controlling one.
		if err := giveTerminal(c); err != nil {
			stdio.Started()
			stdio.Close()
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	title := name
	if c.App != "" {
		title = c.App + ": " + name
	}
	u, err := r.start(ctx, unit{
		name: r.commandUnit(c.App), title: title, app: c.App,
		args: c.Args, dir: c.Dir, env: c.Env, user: c.User, group: c.Group, umask: c.Umask,
		limits: c.Limits, kill: "control-group", grace: r.opts.Terminate, oom: "stop", writes: c.Writes,
	}, stdio.Files())
	stdio.Started()
	if err != nil {
		stdio.Close()
		return err
	}
	stdio.Copy()

	exited := make(chan struct{})
	go func() { defer close(exited); u.wait() }()
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
		ended = &deployer.TimeoutError{Name: name, After: c.Timeout}
	case <-ctx.Done():
		ended = fmt.Errorf("%s was ended: %w", name, context.Cause(ctx))
	}
	interrupt, terminate := r.opts.Interrupt, r.opts.Terminate
	if ended != nil && deployer.EndsAtOnce(ctx) {
		interrupt, terminate = 0, 0
	}
	// Whatever ctx says: from here on it is about ending what was started.
	ctx = context.WithoutCancel(ctx)
	if ended != nil {
		r.escalate(ctx, u, exited, interrupt, terminate)
	}
	end, err := r.finish(ctx, u, r.opts.Terminate+killed)
	if err != nil && ended != nil {
		stdio.Close()
		return fmt.Errorf("%w\n%w", ended, err)
	} else if err != nil {
		stdio.Close()
		return fmt.Errorf("end what %s left running: %w", name, err)
	}
	stdio.Finish()
	if ended != nil {
		return ended
	}
	return end.exitError(name, c.Limits)
}

// giveTerminal makes the command's user the owner of its terminal.
func giveTerminal(c deployer.Command) error {
	who, err := process.Credential(c.User, c.Group)
	if err != nil || who == nil {
		return err
	}
	return c.TTY.Chown(int(who.Uid), -1)
}

// escalate ends a command, with so much time between the signals; those that
// would get none are left out. It returns when its main process has ended, or
// does not even by SIGKILL.
func (r *Runner) escalate(ctx context.Context, u *started, exited <-chan struct{}, interrupt, terminate time.Duration) {
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
		// A failure is a systemd that does not answer: what can be done without it.
		if err := r.bus.kill(ctx, u.name, int32(step.sig)); err != nil {
			u.pidfd.Signal(step.sig)
		}
		t := time.NewTimer(step.wait)
		select {
		case <-exited:
			t.Stop()
			return
		case <-t.C:
		}
	}
}
