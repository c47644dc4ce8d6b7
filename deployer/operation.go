package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"scotch/config"
)

// operation is one change of an app: a deploy, a restart. It owns the app's
// turn in the queue, a new instance's directory and the log in it.
type operation struct {
	d       *Deployer
	app     string
	what    string // "deploy"
	title   string // for others: "a restart"
	by      Actor
	id      string // of the new instance
	l       layout
	dir     string // of the new instance: l.instance(id)
	log     *transcript
	report  *Report
	started time.Time
	// outside are paths of the instance outside the app's directory.
	outside []string
	lent    string // the directory of a deploy key that is lent, "" for none
	newData bool   // first content was made in the app's data
	// warm is the old instance of the watch that this operation, a rollback, has
	// ended, to switch back to.
	warm *member
	// file is the app's file as a change makes it, and save writes it, just
	// before the switch; it returns what takes it back.
	file []byte
	save func() (undo func() error, err error)
	// recorded are the settings of the release that a rollback leads to.
	recorded []config.Setting
	// otherServer tells that another application server ran it.
	otherServer bool
	// releaseFrom names the file that the release command is from, "" for [app] release.
	releaseFrom string
	// pinned are the packages that a rebuild installs, those and no others.
	pinned []string
	// next is the process that it is about to switch to, nil where none is started.
	next *member
	// probed is the process that answered the health request, nil where none was sent.
	probed Running
	// meanwhile are the web server's files for the moment of the switch, where those
	// of the new instance alone would not do: see between.
	meanwhile []File
	// switched is set once current may have named the new instance.
	switched bool
	// vigil is the watch that its switch began.
	vigil *vigil
	// handOver gives the app's data to its new user, nil where that is the old one.
	handOver func() error
	// What it brings, as far as it knows that, and how long its stages took.
	commit    Commit
	commitRef string
	number    int // of the release
	stages    []StageTime
	// undo is run, last first, when the operation fails before its switch.
	undo []func()
	// kept is set once the instance is live: its directory stays.
	kept bool
}

// cancelledError is the cause of an operation that a person cancelled.
type cancelledError struct{ by string }

func (e *cancelledError) Error() string { return "cancelled by " + e.by }

// turn is what has its app's turn, also while it waits for a slot: what Cancel ends.
type turn struct {
	title   string
	cancel  context.CancelCauseFunc
	over    chan struct{} // closed when it has ended, with failure set before
	failure error
}

// task is what operate runs, once the app's turn has come.
type task struct {
	app, what string
	by        Actor
	title     string // for those who wait behind: "deploying 3f2c1ab"
	heavy     bool   // takes one of the server's slots for deploys
	// tells that its output says why it failed, as a push's does: git shows one
	// line of the error. Elsewhere whoever asked shows all of it, once.
	tells bool
	// check is asked when the app's turn has come, before anything is made.
	check func(ctx context.Context) error
	run   func(ctx context.Context, op *operation) error
}

// operate waits for the app's turn and runs t in a new instance. What it
// reports goes to the instance's log and, while ctx lives, to out. ctx belongs
// to whoever asked: when it ends while t waits, t is dropped; once t has begun
// it is finished. operate returns when out has all of it; the app's turn, the slot
// and the server's end wait for no reader.
func (d *Deployer) operate(ctx context.Context, t task, out io.Writer) error {
	told := newWords()
	defer told.end()
	return d.inTurn(ctx, t, out, told)
}

func (d *Deployer) inTurn(ctx context.Context, t task, out io.Writer, told *words) error {
	if err := d.begin(); err != nil {
		return err
	}
	defer d.work.Done()

	if t.what == "deploy" {
		if err := d.checkLock(t.app); err != nil {
			return err // before it waits for anything
		}
	}
	wait := NewReport(out)
	leave, err := d.enter(ctx, t.app, t.title, t.by.Name, func(ahead *ticket) {
		told.say(func() {
			wait.Headline("%s: waiting behind %s", t.app, ahead)
			wait.Note("`%s cancel %s` ends what is under way", d.SSH, t.app)
		})
	})
	if err != nil {
		return err
	}
	defer leave()
	opCtx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	b := &turn{title: t.title, cancel: cancel, over: make(chan struct{})}
	d.setTurn(t.app, b)
	b.failure = d.perform(ctx, opCtx, t, out, told)
	d.setTurn(t.app, nil)
	leave()
	close(b.over)
	return b.failure
}

// perform runs t, which has its app's turn, under opCtx.
func (d *Deployer) perform(ctx, opCtx context.Context, t task, out io.Writer, told *words) error {
	if t.heavy {
		if !d.slots.TryAcquire(1) {
			told.say(func() { NewReport(out).Note("waiting for one of the server's %s", plural(d.wide, "deploy slot")) })
			if err := d.awaitSlot(ctx, opCtx); err != nil {
				return err
			}
		}
		defer d.slots.Release(1)
	}
	if err := d.stillThere(t.app); err != nil {
		return err
	}
	if t.what == "deploy" {
		if err := d.checkLock(t.app); err != nil {
			return err
		}
		if err := d.Room(); err != nil {
			return err
		}
	}
	if t.check != nil {
		if err := t.check(opCtx); err != nil {
			return err
		}
	}

	d.finishSwitch(t.app, d.layout(t.app))
	op, err := d.newOperation(t)
	if err != nil {
		return err
	}
	if err := op.log.join(); err != nil {
		return err
	}
	d.setOperation(t.app, op)

	told.say(func() {
		defer op.log.leave()
		if t.tells {
			op.log.follow(ctx, out)
		} else {
			op.log.followWork(ctx, out)
		}
	})

	was := op.nowLive()
	err = op.run(opCtx, t)
	op.tellEnd(opCtx, was, err)
	op.cool()
	d.setOperation(t.app, nil)
	op.log.close()
	d.sweepLater(t.app)
	return err
}

// awaitSlot takes one of the server's slots for deploys, unless opCtx is cancelled.
func (d *Deployer) awaitSlot(ctx, opCtx context.Context) error {
	open, why, release := d.whileOpen(ctx)
	defer release()
	waiting, cancel := context.WithCancelCause(open)
	defer cancel(nil)
	defer context.AfterFunc(opCtx, func() { cancel(context.Cause(opCtx)) })()
	err := d.slots.Acquire(waiting, 1)
	reason := why(err)
	if by, ok := errors.AsType[*cancelledError](context.Cause(opCtx)); ok {
		reason = &RefusedError{Reason: by.Error()}
	}
	if reason != nil && err == nil {
		d.slots.Release(1)
	}
	return reason
}

// endWatch ends the watch over what was live, for good.
func (op *operation) endWatch() { op.d.endWatch(op.app, op.title+" by "+op.by.Name) }

// cool lets go of a warm instance that was not switched back to. When nothing
// came of the operation the watch goes on.
func (op *operation) cool() {
	if op.warm == nil {
		return
	}
	d := op.d
	if op.warm.rec.Instance == op.l.liveID() {
		op.serves(op.warm)
		return
	}
	d.mu.Lock()
	live := d.state(op.app).live
	d.mu.Unlock()
	if live != nil && live.rec.Instance == op.l.liveID() && live.rec.Previous == op.warm.rec.Instance {
		d.keepVigil(op.app, op.warm, live)
		return
	}
	d.retire(op.app, op.warm)
}

// stillThere refuses work on an app that was destroyed while it waited.
func (d *Deployer) stillThere(app string) error {
	file, err := d.site.AppFile(app)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); err != nil && !d.layout(app).isLeft() {
		return &RefusedError{Reason: fmt.Sprintf("app %q was destroyed meanwhile", app)}
	}
	return nil
}

func (d *Deployer) setOperation(app string, op *operation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state(app).op = op
}

func (d *Deployer) setTurn(app string, b *turn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state(app).turn = b
}

func (d *Deployer) newOperation(t task) (*operation, error) {
	l := d.layout(t.app)
	if err := d.files.MkdirAll("make-app", l.releases(), d.site.DirMode); err != nil {
		return nil, err
	}
	id, err := l.nextID()
	if err != nil {
		return nil, err
	}
	op := &operation{d: d, app: t.app, what: t.what, title: t.title, by: t.by, id: id, l: l, dir: l.instance(id), started: time.Now()}
	// The place of the instance may be configured; l.dir/ID always leads there.
	place, mode := op.dir, d.site.DirMode
	if a, err := d.site.App(t.app, config.AppOptions{InstanceID: id}); err == nil {
		place, mode = a.InstancePath, a.DirMode
	}
	if err := d.files.Mkdir("make-instance", place, mode); err != nil {
		return nil, fmt.Errorf("making the new instance: %w", err)
	}
	if place != op.dir {
		if err := d.files.Symlink("link-instance", place, op.dir); err != nil {
			return nil, err
		}
	}
	if op.log, err = newTranscript(filepath.Join(op.dir, "deploy.log")); err != nil {
		return nil, err
	}
	op.report = NewReport(op.log)
	return op, nil
}

// run runs the task and, when it fails, takes back what it did.
func (op *operation) run(ctx context.Context, t task) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("scotch itself failed: %v\nthis is a bug of scotch; the server's log has the trace", p)
			op.d.log.WithField("app", op.app).Errorf("panic in %s: %v\n%s", t.what, p, stack())
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !op.kept {
				err = because(err, cause)
			}
			// git tells of it in words.
			if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "No space left on device") {
				err = onFullDisk(err)
			}
			op.log.judge()
			op.report.Fail(t.app, err)
		}
		if !op.kept {
			op.takeBack()
		}
		if err != nil && !op.kept {
			op.noteAttempt(err)
		}
	}()
	return t.run(ctx, op)
}

// because names the cause of an operation that was ended from outside, and
// keeps the stage it was in.
func because(err, cause error) error {
	var stage *StageError
	if errors.As(err, &stage) {
		return &StageError{Stage: stage.Stage, Err: cause}
	}
	return cause
}

// onFullDisk says what to do next, and keeps the stage.
func onFullDisk(err error) error {
	var stage *StageError
	if errors.As(err, &stage) {
		return &StageError{stage.Stage, onFullDisk(stage.Err)}
	}
	return fmt.Errorf("%w\nthe disk of this server is full: an admin frees some room, then try again", err)
}

// takeBack removes what a failed operation made. Its log stays.
func (op *operation) takeBack() {
	for i := len(op.undo) - 1; i >= 0; i-- {
		op.undo[i]()
	}
	for _, p := range op.outside {
		if err := op.d.files.RemoveAll("discard-outside", p); err != nil {
			op.d.log.WithField("app", op.app).Warnf("cleaning up after a failed %s: %v", op.what, err)
		}
	}
	if err := op.d.discard(op.l, op.id); err != nil {
		op.d.log.WithField("app", op.app).Warnf("cleaning up after a failed %s: %v", op.what, err)
	}
}

// discard removes all of an instance but its log.
func (d *Deployer) discard(l layout, id string) error {
	dir := l.instance(id)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "deploy.log" {
			errs = append(errs, d.files.RemoveAll("discard-instance", filepath.Join(dir, e.Name())))
		}
	}
	errs = append(errs, d.files.RemoveAll("discard-source", filepath.Join(l.sources(), id)))
	return errors.Join(errs...)
}

// Cancel ends the operation under way on an app, also one that waits for a slot, and returns when it has ended;
// with a *RefusedError where it was done all the same, or none is under way.
func (d *Deployer) Cancel(ctx context.Context, app, by string) error {
	d.mu.Lock()
	b, v := d.state(app).turn, d.state(app).vigil
	d.mu.Unlock()
	switch {
	case b == nil && v != nil:
		return &RefusedError{
			Reason: fmt.Sprintf("nothing to cancel: v%d of %q is live, and watched", v.new.rec.Release, app),
			Hint:   fmt.Sprintf("%s rollback %s takes it back", d.SSH, app),
		}
	case b == nil:
		return &RefusedError{Reason: fmt.Sprintf("nothing is under way on %q", app), Hint: fmt.Sprintf("%s releases %s says what is live", d.SSH, app)}
	}
	b.cancel(&cancelledError{by})
	select {
	case <-b.over:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if b.failure == nil {
		return &RefusedError{
			Reason: fmt.Sprintf("too late: %s of %q was past its switch, and is done", b.title, app),
			Hint:   fmt.Sprintf("%s rollback %s takes it back", d.SSH, app),
		}
	}
	return nil
}
