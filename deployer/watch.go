package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Witness is an extra ability of a WebServer: it counts the requests that it
// handed to a socket and that ended with a 5xx, of those begun since a moment.
type Witness interface {
	Failures(ctx context.Context, socket string, since time.Time) (int, error)
}

// vigil is the time after the switch of a deploy. The new instance is watched,
// the old one stays warm; when the new one fails the old one is switched back
// to. It ends by itself after [health] watch, and before that when somebody
// does something else with the app.
type vigil struct {
	d        *Deployer
	app      string
	new, old *member // old is nil where nothing was live before
	// reports tells that a failure is only told of: a release command has run,
	// or there is nothing to go back to.
	reports bool
	until   time.Time
	// before is the share of the old one's requests that failed while it served, 0
	// where it is not known.
	before float64

	stop func()        // ends it early; may be called more than once
	done chan struct{} // closed when it is over and all that follows from it is done
	// failure is why the new instance did not hold out, and undone tells that
	// the old one serves again. Set before done is closed.
	failure string
	undone  bool
	// endedBy is what ended it early, written under d.mu.
	endedBy string
}

const (
	vigilTick = 100 * time.Millisecond
	// enoughRequests are those that must have come before a share of failures
	// says something.
	enoughRequests = 10
)

// keepVigil begins the watch over what has just gone live. The caller has the
// app's turn. Without a watch, or with no process to watch ([plugins] turned the
// application server off: new is nil), the old instance is retired at once.
func (d *Deployer) keepVigil(app string, old, new *member) *vigil {
	if new == nil {
		if old != nil {
			d.retire(app, old)
		}
		return nil
	}
	rec := new.rec
	left := time.Until(rec.Live.Add(rec.Watch))
	if rec.Watch <= 0 || left <= 0 || d.ctx.Err() != nil {
		if old != nil {
			d.retire(app, old)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(d.ctx)
	v := &vigil{
		d: d, app: app, new: new, old: old, reports: rec.Released || old == nil,
		until: rec.Live.Add(rec.Watch), stop: cancel, done: make(chan struct{}),
	}
	d.mu.Lock()
	d.state(app).vigil = v
	d.mu.Unlock()
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		defer close(v.done)
		defer cancel()
		v.measureBefore(ctx)
		v.conclude(ctx, v.look(ctx))
	}()
	return v
}

// measureBefore reads how the old instance did until the switch.
func (v *vigil) measureBefore(ctx context.Context) {
	if v.old == nil {
		return
	}
	was, now := v.old.serves(), v.new.serves()
	requests, known := v.d.requests(ctx, v.old)
	if total := requests - was.answered; known && total > 0 {
		failed := v.failures(ctx, v.old.rec, was.since) - v.failures(ctx, v.old.rec, now.since)
		v.before = float64(failed) / float64(total)
	}
}

// requests is how many requests an instance has answered, and whether that is known.
func (d *Deployer) requests(ctx context.Context, m *member) (n int64, known bool) {
	meter, ok := d.AppServer.(Meter)
	if !ok || !d.ours(m.rec.Plan) {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	u, err := meter.Usage(ctx, m.rec.Plan)
	if err != nil {
		return 0, false
	}
	return u.Requests, true
}

// failures is how many requests ended with a 5xx status, of those that the web
// server handed to the socket of a release since a moment.
func (v *vigil) failures(ctx context.Context, rec *Record, since time.Time) int {
	w, ok := v.d.WebServer.(Witness)
	if !ok {
		return 0
	}
	n, err := w.Failures(ctx, v.d.liveSocket(rec), since)
	if err != nil && ctx.Err() == nil {
		v.d.log.WithField("app", v.app).Warnf("counting failed requests: %v", err)
	}
	return n
}

// look watches until the time is over or ctx is done, and returns why the new
// instance does not hold out, "" where it does.
func (v *vigil) look(ctx context.Context) string {
	running, _ := v.new.process()
	if running == nil {
		return v.dead(nil)
	}
	tick := time.NewTicker(vigilTick)
	defer tick.Stop()
	over := time.NewTimer(time.Until(v.until))
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-running.Done():
			if ctx.Err() != nil {
				return ""
			}
			return v.dead(running)
		case <-over.C:
			return v.judge(ctx)
		case <-tick.C:
			if why := v.judge(ctx); why != "" {
				return why
			}
		}
	}
}

func (v *vigil) dead(running Running) string {
	s := "its process ended by itself"
	if running != nil {
		s += ": " + ended(running)
	}
	return s
}

// judge looks at the answers so far. Where nobody counts the requests a release can't
// be judged by those that failed: twenty may be all of them, or one in a thousand.
func (v *vigil) judge(ctx context.Context) string {
	t := v.new.serves()
	failed := v.failures(ctx, v.new.rec, t.since)
	if failed < enoughRequests/2 {
		return "" // most of ten can't have failed
	}
	requests, known := v.d.requests(ctx, v.new)
	if !known {
		return ""
	}
	// One that the web server could not hand over was answered by nobody.
	total := max(requests-t.answered, int64(failed))
	share := float64(failed) / float64(total)
	if ctx.Err() != nil || total < enoughRequests || share <= 0.5 || share <= v.before {
		return ""
	}
	return fmt.Sprintf("%d of its first %s failed with a 5xx status", failed, plural(int(total), "request"))
}

// conclude does what follows from the watch: the old instance is retired, or
// serves again.
func (v *vigil) conclude(ctx context.Context, failure string) {
	d := v.d
	log := d.log.WithField("app", v.app)
	if failure != "" {
		log.Warnf("v%d did not hold out after its switch: %s", v.new.rec.Release, failure)
		if err := v.act(ctx, failure); err != nil {
			log.Errorf("switching back: %v", err)
		}
	}
	// A server that stops leaves the old one to the next, which goes on watching.
	if d.ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	mine := d.state(v.app).vigil == v
	if mine {
		d.state(v.app).vigil = nil
	}
	d.mu.Unlock()
	// Whoever ended the watch has taken the old one over.
	if mine && v.old != nil && !v.undone {
		d.retire(v.app, v.old)
	}
}

// act takes the app's turn and switches back, or only notes the failure. What
// came first, the next deploy or a person's rollback, has settled it already.
func (v *vigil) act(ctx context.Context, failure string) error {
	d := v.d
	if err := d.begin(); err != nil {
		return nil // the next server goes on watching
	}
	defer d.work.Done()
	// ctx: who has the turn and ends this watch must not wait for us.
	leave, err := d.queue.enterQuietly(ctx, v.app)
	if err != nil {
		return nil
	}
	defer leave()
	l := d.layout(v.app)
	d.mu.Lock()
	mine := d.state(v.app).vigil == v
	d.mu.Unlock()
	if !mine || l.liveID() != v.new.rec.Instance {
		return nil
	}
	v.failure = failure
	op := &operation{d: d, app: v.app, what: "rollback", by: itself(), id: v.new.rec.Instance, l: l, dir: v.new.rec.Dir, started: time.Now()}
	log, err := os.OpenFile(filepath.Join(op.dir, "deploy.log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	op.report = NewReport(log)
	release := v.new.rec.Release
	op.report.Headline("%s: v%d did not hold out: %s", v.app, release, failure)
	if v.reports {
		what := "nothing was live before it"
		if v.old != nil {
			what = "its release command has run, so it is not taken back by itself"
		}
		op.report.Note("it serves on: %s", what)
		return op.annotate(release, func(r *Record) { r.Warning = failure })
	}
	if err := op.switchToWarm(d.ctx, v.new.rec, v.old); err != nil {
		op.report.Fail(v.app, err)
		return errors.Join(err, op.annotate(release, func(r *Record) { r.Warning = failure }))
	}
	v.undone = true
	d.log.WithField("app", v.app).Warnf("switched back from v%d to v%d: %s", release, v.old.rec.Release, failure)
	op.report.Headline("%s: switched back to v%d", v.app, v.old.rec.Release)
	e := op.event(EventLive, v.new.rec)
	e.from(v.old.rec)
	e.Reason = failure
	d.observe(e)
	return op.annotate(release, func(r *Record) { r.Undone = &Undone{When: time.Now(), By: "scotch", Why: failure} })
}

// endVigil ends a watch because the caller, who has the app's turn, has done or
// is about to do something else with the app. Until then the watch goes on:
// what fails or is refused ends none. It returns the old instance, which is the
// caller's now; nil where there is none.
// by says, for who waits for the watch, what that is: "a rollback by ann".
func (d *Deployer) endVigil(app, by string) *member {
	d.mu.Lock()
	s := d.state(app)
	v := s.vigil
	s.vigil = nil
	if v != nil {
		v.endedBy = by
	}
	d.mu.Unlock()
	if v == nil {
		return nil
	}
	v.stop()
	<-v.done
	if v.undone {
		return nil
	}
	return v.old
}

// awaitEnd returns when the watch is over, with a *StageError where the release
// did not hold out. A pusher who leaves (ctx) ends the wait, not the watch.
func (v *vigil) awaitEnd(ctx context.Context, app string, out io.Writer) error {
	report := NewReport(out)
	if v == nil {
		report.Note("nothing to wait for: [health] watch is 0")
		return nil
	}
	report.Note("watching it for %s, as -o wait asks", v.new.rec.Watch)
	select {
	case <-v.done:
	case <-ctx.Done():
		return nil
	}
	if v.failure == "" {
		v.d.mu.Lock()
		by := v.endedBy
		v.d.mu.Unlock()
		switch {
		case by == "" && v.d.ctx.Err() == nil:
			report.Headline("%s: v%d holds out", app, v.new.rec.Release)
			return nil
		case by == "":
			by = "the end of the server, and the next one goes on with it"
		}
		return &StageError{"the watch after its switch", fmt.Errorf("it was ended early, by %s\nit went live; what serves now: %s releases %s", by, v.d.SSH, app)}
	}
	next := "it serves on: there was no way back by itself"
	if v.undone {
		next = fmt.Sprintf("v%d serves again", v.old.rec.Release)
	}
	next += fmt.Sprintf("\nwhat the app wrote: %s logs %s", v.d.SSH, app)
	return &StageError{"the watch after its switch", errors.New(v.failure + "\n" + next)}
}
