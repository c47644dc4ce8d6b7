package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Start makes the server's world agree with what is on disk, and supervises it
// from then on: the web server runs, each app that is live serves what its link
// current names, refs agree with it, and what a killed server left half made is
// gone. Processes that still run are adopted, not restarted.
//
// One app's trouble is logged and keeps no other from serving.
func (d *Deployer) Start(ctx context.Context) error {
	names, err := d.names()
	if err != nil {
		d.log.Warnf("some apps' files are left alone: %v", err)
	}
	if err := d.noteSite(); err != nil {
		return err
	}
	for dir, ending := range map[string]string{d.site.Paths.AppsEnabled: ".cfg", d.site.Paths.Run: ".json"} {
		if err := d.files.Tidy("tidy-site", dir, ending); err != nil {
			d.log.Warnf("removing what an earlier server left: %v", err)
		}
	}
	unfinished := d.unfinishedDestroys()
	names = slices.DeleteFunc(names, func(n string) bool { return unfinished[n] != nil })
	lives, keep := d.lives(names)
	for _, n := range names {
		if l := d.layout(n); isThere(l.stopped()) && !l.isStopped() {
			if err := d.files.Remove("start-app", l.stopped()); err != nil {
				d.log.WithField("app", n).Errorf("removing the mark of a stopped app: %v", err)
			}
		}
	}
	adopted, strangers, unknown := d.adopt(names, lives)
	for _, a := range slices.Concat(adopted, strangers, unknown) {
		keep = append(keep, a.rec.Plan.Process.Record)
	}
	runs := d.adoptRuns(names)
	for _, all := range runs {
		for _, r := range all {
			keep = append(keep, r.Process.Record)
		}
	}
	web := d.hosted()
	// Of a web server that is gone its workers may be left, with its port.
	if web != nil {
		if _, err := d.Runner.Adopt(*web); !errors.Is(err, ErrNotRunning) {
			keep = append(keep, web.Record)
		}
	}
	// Builds and the like of a killed server, before anything of theirs is removed.
	if n, err := d.Runner.Strays(ctx, keep); err != nil {
		return fmt.Errorf("ending what an earlier server left running: %w", err)
	} else if n > 0 {
		d.log.Infof("ended %s that an earlier server left", plural(n, "process"))
	}
	if err := d.startWeb(ctx, names, lives, web); err != nil {
		return err
	}

	for name, u := range unfinished {
		if _, err := d.finishDestroy(u); err != nil {
			d.log.WithField("app", name).Errorf("finishing its destruction: %v", err)
		}
	}
	d.mu.Lock()
	d.started = true
	d.mu.Unlock()
	for app, all := range runs {
		for _, r := range all {
			d.watchDetached(app, r.Detached, r.running)
		}
	}
	running := map[string]bool{}
	for _, a := range adopted {
		m := d.watch(a.rec.Plan.Process.Name, a.rec.Plan.Process, a.rec.Plan.Ready, a.rec, a.running)
		d.mu.Lock()
		d.state(a.rec.App).live = m
		d.mu.Unlock()
		m.setServes(tenure{since: a.rec.Live})
		running[a.rec.App] = true
	}
	unsure := map[string]bool{}
	for _, a := range unknown {
		if a.rec == lives[a.rec.App] {
			unsure[a.rec.App] = true
		}
	}
	for _, a := range strangers {
		m := d.watch(a.rec.Plan.Process.Name, a.rec.Plan.Process, a.rec.Plan.Ready, a.rec, a.running)
		m.setServes(tenure{since: a.rec.Live})
		d.mu.Lock()
		live := d.state(a.rec.App).live
		d.mu.Unlock()
		if rec := lives[a.rec.App]; live == nil && rec != nil && !unsure[a.rec.App] && !d.layout(a.rec.App).isStopped() {
			live = d.endedMember(rec) // since the last server did
		}
		// A watch that the last server did not finish goes on.
		if live != nil && live.rec.Previous == a.rec.Instance {
			d.keepVigil(a.rec.App, m, live)
		} else {
			d.retire(a.rec.App, m)
		}
	}
	var mend errgroup.Group
	mend.SetLimit(max(2, runtime.NumCPU()))
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		d.rotateLogs()
	}()
	var down []string
	for _, n := range names {
		if !running[n] && !unsure[n] {
			down = append(down, n)
		}
		mend.Go(func() error {
			if err := d.mend(ctx, n, lives[n]); err != nil {
				d.log.WithField("app", n).Errorf("after the start: %v", err)
			}
			return nil
		})
	}
	if err := mend.Wait(); err != nil {
		return err
	}
	d.bringUp(ctx, down, func() { d.rebuildChanged(names) })
	// What retention no longer keeps is in nobody's way. By now each app that is
	// to be started has its turn.
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		for _, n := range names {
			if d.ctx.Err() != nil {
				return
			}
			if d.layout(n).hasSpare() {
				d.sweep(n)
			}
		}
	}()
	// The first list and the first deploy need not wait for hundreds of files.
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		d.site.ReadApps()
		d.List() // what is wrong is for who asks
	}()
	return nil
}

// bringUp starts, a few at a time and behind the caller's back, what is live and
// does not run: after a reboot, everything. Each app's turn is taken before it
// returns, so that a push waits for the app's own start. Then then is called.
func (d *Deployer) bringUp(ctx context.Context, apps []string, then func()) {
	var starts errgroup.Group
	starts.SetLimit(max(2, runtime.NumCPU()))
	var waiting []func() error
	for _, app := range apps {
		l := d.layout(app)
		if l.isStopped() {
			continue
		}
		live, err := l.live()
		if err != nil || live.Plan != nil && !live.Plan.runs() {
			continue // logged already, or nothing to start
		}
		leave, err := d.queue.enter(ctx, app, "its start after the server's", "", func(*ticket) {})
		if err != nil {
			return
		}
		d.mu.Lock()
		d.state(app).starting = true
		d.mu.Unlock()
		waiting = append(waiting, func() error {
			defer leave()
			defer func() {
				d.mu.Lock()
				d.state(app).starting = false
				d.mu.Unlock()
			}()
			if d.ctx.Err() != nil {
				return nil
			}
			// The watch may have switched back, to what runs.
			live, err := l.live()
			if err != nil {
				return nil
			}
			d.mu.Lock()
			m := d.state(app).live
			d.mu.Unlock()
			if m != nil && m.rec.Instance == live.Instance {
				return nil
			}
			if err := d.startRecorded(app, l, live); err != nil {
				d.log.WithField("app", app).Errorf("after the start: %v", err)
			}
			return nil
		})
	}
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		for _, w := range waiting {
			starts.Go(w)
		}
		starts.Wait()
		then()
	}()
}

// mend makes one app's repository, records and files agree with its link
// current, whose record live was a moment ago; nil where that is not known.
func (d *Deployer) mend(ctx context.Context, app string, live *Record) error {
	l := d.layout(app)
	var errs []error
	if d.Repositories.Exists(app) {
		errs = append(errs, d.Repositories.Recover(app))
	}
	if d.isDamaged(app) {
		return errors.Join(errs...) // logged, and nothing of it is removed
	}
	var err error
	if live == nil || live.Instance != l.liveID() { // the watch may have switched back
		live, err = l.live()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(append(errs, d.refsOfHalfMade(ctx, app, l), d.removeHalfMade(app, l))...)
	}
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, d.agree(ctx, app, l, live), d.refsOfHalfMade(ctx, app, l), d.removeHalfMade(app, l))
	d.unmarkStopped(app, l, live)
	if l.strays(live) {
		errs = append(errs, d.sweepNow(app))
	}
	return errors.Join(errs...)
}

// strays tells whether a source is left that no instance has: one of an instance
// that is gone half. What retention alone no longer keeps is none.
func (l layout) strays(live *Record) bool {
	trees, _ := os.ReadDir(l.sources())
	var used map[string]bool
	for _, t := range trees {
		dir := filepath.Join(l.sources(), t.Name())
		if dir == live.Source || isThere(filepath.Join(l.instance(t.Name()), recordName)) {
			continue
		}
		if used == nil { // restarts have the source of an instance before them
			used = map[string]bool{}
			ids, _ := l.instanceIDs()
			for _, id := range ids {
				if rec, err := readRecord(filepath.Join(l.instance(id), recordName)); err == nil {
					used[rec.Source] = true
				}
			}
		}
		if !used[dir] {
			return true
		}
	}
	return false
}

// bootPatience is how long the start of an app may keep others from theirs.
const bootPatience = 20 * time.Second

// startRecorded starts the live instance from what its record says, and waits
// until it accepts requests, for a while: it is supervised from then on.
func (d *Deployer) startRecorded(app string, l layout, live *Record) error {
	if live.Plan == nil {
		return fmt.Errorf("%s has no record of how to start it\ndeploy it again: %s deploy %s", live.Instance, d.SSH, app)
	}
	os.Remove(live.Plan.Ready)
	p := live.Plan.Process
	if err := d.files.MkdirAll("make-logs", filepath.Dir(p.Log), d.site.DirMode); err != nil {
		return err
	}
	running, err := d.Runner.Start(p)
	if err != nil {
		return fmt.Errorf("starting v%d: %w", live.Release, err)
	}
	m := d.watch(p.Name, p, live.Plan.Ready, live, running)
	m.setServes(tenure{since: running.Since()})
	d.mu.Lock()
	d.state(app).live = m
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(d.ctx, bootPatience)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for !isThere(live.Plan.Ready) {
		select {
		case <-tick.C:
		case <-running.Done():
			return fmt.Errorf("v%d did not start: %s %s\nits output is in %s", live.Release, live.Plan.server(), ended(running), p.Log)
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// agree makes what follows the switch true again after a crash: the record of
// the release, the branch, the release's ref.
func (d *Deployer) agree(ctx context.Context, app string, l layout, live *Record) error {
	have, err := readRecord(l.release(live.Release))
	whole := err == nil && have.Instance == live.Instance // it is written last
	if !whole {
		op := &operation{d: d, app: app, l: l}
		op.recordRelease(live)
	}
	if !d.Repositories.Exists(app) {
		return nil
	}
	var refs []RefUpdate
	for _, ref := range []string{live.Ref, releaseRef(live.Release)} {
		if ref == "" {
			continue
		}
		id, err := d.Repositories.Ref(ctx, app, ref)
		if err != nil {
			return err
		}
		if id != live.Commit && (ref != live.Ref || !whole || d.deploys(ctx, app, ref)) {
			refs = append(refs, RefUpdate{Ref: ref, New: live.Commit})
		}
	}
	if len(refs) == 0 {
		return nil
	}
	tx, err := d.Repositories.Prepare(ctx, app, refs)
	if err != nil {
		return fmt.Errorf("making the branch agree with what is live: %w", err)
	}
	d.log.WithField("app", app).Infof("moved %s to %s, which is live", live.Ref, short(live.Commit))
	return tx.Commit()
}

// deploys tells whether a ref is the branch that deploys now. One that did so once
// is as any other: what is pushed to it is stored, and is nobody's to take back.
func (d *Deployer) deploys(ctx context.Context, app, ref string) bool {
	branch, err := d.Branch(ctx, app)
	if err != nil {
		d.log.WithField("app", app).Warnf("%s is left where it is: %v", ref, err)
	}
	return err == nil && ref == "refs/heads/"+branch
}

// removeHalfMade removes the instances of operations that a crash cut off: all
// that were never live. Their logs stay.
func (d *Deployer) removeHalfMade(app string, l layout) error {
	ids, err := l.instanceIDs()
	if err != nil {
		return err
	}
	current := l.liveID()
	var errs []error
	for _, id := range ids {
		if id == current {
			continue
		}
		rec, err := readRecord(filepath.Join(l.instance(id), recordName))
		if err == nil && isThere(l.release(rec.Release)) {
			continue
		}
		d.noteInterrupted(app, l, id)
		errs = append(errs, d.discard(l, id))
	}
	venvs, _ := filepath.Glob(filepath.Join(l.dir, ".venvs", "*"))
	for _, dir := range venvs {
		if _, err := readVenv(dir); errors.Is(err, fs.ErrNotExist) && !l.usesVenv(dir) {
			errs = append(errs, d.files.RemoveAll("discard-venv", dir))
		}
	}
	for _, dir := range []string{l.dir, l.releases()} {
		errs = append(errs, d.files.Tidy("tidy-app", dir, ""))
	}
	for _, id := range ids {
		errs = append(errs, d.files.Tidy("tidy-app", l.instance(id), ""))
	}
	return errors.Join(errs...)
}

// hasSpare tells whether an app has more than the one instance, source and
// virtualenv that it needs: what retention looks at, by names alone.
func (l layout) hasSpare() bool {
	ids, err := l.instanceIDs()
	spare := err != nil || len(ids) > 1
	for _, store := range []string{l.sources(), filepath.Join(l.dir, ".venvs")} {
		entries, _ := os.ReadDir(store)
		spare = spare || len(entries) > 1
	}
	return spare
}
