package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"scotch/config"
)

// OneOff is a one-off command in an app's source, virtualenv and environment.
type OneOff struct {
	App  string
	Args []string
	// Release is a kept release to run in, 0 for what is live.
	Release int
	By      Actor

	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal is where the person is; the command gets a terminal of its own
	// then, in place of the three above. nil: there is none.
	Terminal *Terminal
}

// lastOfRuns is how long the server's stop waits for one-off commands.
const lastOfRuns = 3 * time.Second

// Run runs the command and returns its exit status, 128 and the signal's number
// where one ended it, 127 where there is no such program and 126 where it cannot be
// started, as a shell has it. It ends with ctx, with the app and with the server.
func (d *Deployer) Run(ctx context.Context, o OneOff) (int, error) {
	ctx, leave, err := d.visit(ctx, o.App)
	if err != nil {
		return 0, err
	}
	leave = sync.OnceFunc(leave)
	defer leave()
	c, rec, err := d.oneOff(o)
	if err != nil {
		return 0, err
	}
	err = d.runOneOff(ctx, o, c, rec)
	leave() // a client that reads nothing of the last words holds nobody up
	if o.Terminal != nil {
		o.Terminal.Raw(false)
	}
	var exit *ExitError
	switch {
	case errors.As(err, &exit) && exit.Status >= 0:
		return exit.Status, nil
	case errors.As(err, &exit) && unix.SignalNum(exit.Signal) > 0:
		if exit.Signal != "SIGINT" { // whoever pressed Ctrl-C knows
			fmt.Fprintf(o.Stderr, "scotch: %v\n", exit)
		}
		return 128 + int(unix.SignalNum(exit.Signal)), nil
	case errors.Is(err, ErrNoProgram):
		if err := d.wholeVenv(rec); err != nil {
			return 0, err
		}
		// As a shell has it.
		fmt.Fprintf(o.Stderr, "scotch: %s\n", FirstLine(err.Error()))
		return 127, nil
	case errors.Is(err, ErrNotExecutable), errors.Is(err, unix.ENOEXEC):
		fmt.Fprintf(o.Stderr, "scotch: %s\n", FirstLine(err.Error()))
		return 126, nil
	}
	return 0, err
}

// runOneOff is the part that the server's end waits for: no client is.
func (d *Deployer) runOneOff(ctx context.Context, o OneOff, c Command, rec *Record) error {
	if err := d.begin(); err != nil {
		return err
	}
	defer d.work.Done()
	defer d.use(o.App, rec.Instance)()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(d.open, func() {
		select {
		case <-time.After(lastOfRuns):
			cancel(context.Cause(d.open))
		case <-d.ctx.Done():
			cancel(context.Cause(d.ctx))
		case <-ctx.Done():
		}
	})
	defer stop()
	out, errOut := patiently(o.Stdout, ctx.Done()), patiently(o.Stderr, ctx.Done())
	if o.Terminal != nil {
		return runOnTerminal(ctx, d.Runner, c, o.Terminal, o.Stdin, out)
	}
	c.Stdin, c.Stdout, c.Stderr = o.Stdin, out, errOut
	return d.Runner.Run(ctx, c)
}

// use keeps an instance from being swept until the function is called.
func (d *Deployer) use(app, id string) (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state(app)
	if s.inUse == nil {
		s.inUse = map[string]int{}
	}
	s.inUse[id]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if s.inUse[id]--; s.inUse[id] == 0 {
			delete(s.inUse, id)
		}
	}
}

// oneOff is the command of a one-off command, and the record that it is for.
func (d *Deployer) oneOff(o OneOff) (Command, *Record, error) {
	rec, err := d.liveRecord(o.App)
	if err != nil {
		return Command{}, nil, err
	}
	options := config.AppOptions{}
	if o.Release != 0 && o.Release != rec.Release {
		if rec, err = d.keptRecord(o.App, o.Release); err != nil {
			return Command{}, nil, err
		}
		options.Recorded, options.OtherServer = rec.Settings, !d.ours(rec.Plan)
	}
	a, err := d.configureTree(rec, options)
	if err != nil {
		return Command{}, nil, err
	}
	i := instanceFor(a, rec)
	who, group := a.User, a.Group
	if rec.Plan.runs() { // its files are for the user it was deployed for
		who, group = rec.Plan.Process.User, rec.Plan.Process.Group
	}
	return Command{
		Args: o.Args, Dir: i.Source, Env: i.environment(nil), User: who, Group: group, Umask: d.site.Umask,
		App: o.App, Limits: AppLimits(a), Writes: appWrites(i),
	}, rec, nil
}

// keptRecord is the record of a release whose source and virtualenv are kept.
func (d *Deployer) keptRecord(app string, n int) (*Record, error) {
	l := d.layout(app)
	there := fmt.Sprintf("`%s releases %s` lists those that are", d.SSH, app)
	was, err := readRecord(l.release(n))
	if err != nil {
		return nil, &RefusedError{Reason: fmt.Sprintf("app %q has no release v%d", app, n), Hint: there}
	}
	rec, err := readRecord(filepath.Join(l.instance(was.Instance), recordName))
	if err != nil || !isThere(rec.Source) || !isThere(rec.Venv) {
		return nil, &RefusedError{Reason: fmt.Sprintf("v%d of %q is no longer kept", n, app), Hint: there}
	}
	return rec, nil
}
