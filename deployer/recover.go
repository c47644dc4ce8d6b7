package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
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
	names, err := d.site.Apps()
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
	var keep []string
	for _, n := range names {
		if err := d.mendCurrent(n); err != nil {
			// Serving goes on as far as it can.
			d.log.WithField("app", n).Error(err)
			d.mu.Lock()
			d.state(n).damage = err
			d.mu.Unlock()
			keep = append(keep, d.layout(n).processRecords()...)
		}
	}
	adopted, strangers := d.adopt(names)
	for _, a := range append(adopted, strangers...) {
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
		if _, err := d.Runner.Adopt(*web); err == nil {
			keep = append(keep, web.Record)
		}
	}
	// Builds and the like of a killed server, before anything of theirs is removed.
	if n, err := d.Runner.Strays(ctx, keep); err != nil {
		return fmt.Errorf("ending what an earlier server left running: %w", err)
	} else if n > 0 {
		d.log.Infof("ended %s that an earlier server left", plural(n, "process"))
	}
	if err := d.startWeb(ctx, names, web); err != nil {
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
	for _, a := range strangers {
		m := d.watch(a.rec.Plan.Process.Name, a.rec.Plan.Process, a.rec.Plan.Ready, a.rec, a.running)
		m.setServes(tenure{since: a.rec.Live})
		d.mu.Lock()
		live := d.state(a.rec.App).live
		d.mu.Unlock()
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
		if !running[n] {
			down = append(down, n)
		}
		mend.Go(func() error {
			if err := d.mend(ctx, n); err != nil {
				d.log.WithField("app", n).Errorf("after the start: %v", err)
			}
			return nil
		})
	}
	if err := mend.Wait(); err != nil {
		return err
	}
	d.bringUp(ctx, down, func() { d.rebuildChanged(names) })
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
		live, err := l.live()
		if err != nil || isThere(l.stopped()) || live.Plan != nil && !live.Plan.runs() {
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

// found is a process of an earlier server that still runs.
type found struct {
	rec     *Record
	running Running
}

// adopt finds what still runs: the instances that are live, and others that an
// earlier server was draining.
func (d *Deployer) adopt(names []string) (live, others []found) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	limit := make(chan struct{}, 8)
	for _, name := range names {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			l := d.layout(name)
			ids, err := l.instanceIDs()
			if err != nil {
				return
			}
			current := l.liveID()
			for _, id := range ids {
				rec, err := readRecord(filepath.Join(l.instance(id), recordName))
				if err != nil || !rec.Plan.runs() {
					continue
				}
				// A release that never went live has no right to go on.
				if id != current && !isThere(l.release(rec.Release)) {
					continue
				}
				running, err := d.Runner.Adopt(rec.Plan.Process)
				if err != nil {
					continue
				}
				mu.Lock()
				if id == current && !isThere(l.stopped()) {
					live = append(live, found{rec, running})
				} else {
					others = append(others, found{rec, running})
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return live, others
}

// hosted is the web server's process where scotch runs it.
func (d *Deployer) hosted() *Process {
	h, ok := d.WebServer.(Hosted)
	if !ok {
		return nil
	}
	p := h.Process()
	if p != nil && p.Record == "" {
		p.Record = filepath.Join(d.site.Paths.Run, filepath.Base(p.Name)+".process.json")
	}
	return p
}

// startWeb writes the files that serve no app in particular and starts the web
// server where scotch runs it.
func (d *Deployer) startWeb(ctx context.Context, names []string, p *Process) error {
	if err := d.lockWeb(ctx); err != nil {
		return err
	}
	defer d.unlockWeb()
	base, err := d.WebServer.Base()
	if err != nil {
		return err
	}
	pub := &publication{d: d, before: map[string][]byte{}, modes: map[string]fs.FileMode{}}
	for _, f := range base {
		if err := d.files.Tidy("tidy-web", filepath.Dir(f.Path), filepath.Ext(f.Path)); err != nil {
			return err
		}
		if err := pub.put(f); err != nil {
			return errors.Join(err, pub.restore())
		}
	}
	if err := pub.putLive(names, base); err != nil {
		d.log.Errorf("making the web server's files agree with what is live: %v", err)
	}
	if p == nil {
		if len(pub.order) > 0 {
			if err := d.testAndReload(ctx, pub.order); err != nil {
				// Blocks deploys, not serving.
				d.log.Errorf("%v", errors.Join(err, pub.restore()))
			}
		}
		return nil
	}
	if err := d.files.MkdirAll("make-logs", filepath.Dir(p.Log), d.site.DirMode); err != nil {
		return err
	}
	running, err := d.Runner.Adopt(*p)
	if err == nil {
		d.web = d.watch(p.Name, *p, "", nil, running)
		if len(pub.order) > 0 {
			if err := d.testAndReload(ctx, pub.order); err != nil {
				d.log.Errorf("%v", errors.Join(err, pub.restore()))
			}
		}
		return nil
	}
	if err := addressesFree(d.WebServer.(Hosted).Addresses()); err != nil {
		return err
	}
	if err := d.testWeb(ctx, pub.order); err != nil {
		return err
	}
	if running, err = d.Runner.Start(*p); err != nil {
		return fmt.Errorf("starting %s: %w", p.Name, err)
	}
	d.web = d.watch(p.Name, *p, "", nil, running)
	return nil
}

// putLive writes the files that the live records name, and removes the web
// server's other files of apps: those of a deploy or a destroy that a crash cut
// off. A record that cannot be read leaves all that is there.
func (p *publication) putLive(names []string, base []File) error {
	wanted := map[string]bool{}
	for _, f := range base {
		wanted[f.Path] = true
	}
	for _, name := range names {
		live, err := p.d.layout(name).live()
		if p.d.isDamaged(name) {
			return fmt.Errorf("what %q serves is not known: no file is changed", name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, f := range live.WebFiles {
			wanted[f.Path] = true
			if err := p.put(f); err != nil {
				return err
			}
		}
	}
	o, ok := p.d.WebServer.(Owner)
	if !ok {
		return nil
	}
	for _, pattern := range o.Owned() {
		dirs, err := filepath.Glob(filepath.Dir(pattern))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := p.d.files.Tidy("tidy-web", dir, filepath.Ext(pattern)); err != nil {
				return err
			}
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range files {
			if wanted[path] {
				continue
			}
			if err := p.remove(File{Path: path, Mode: 0o600}); err != nil {
				return err
			}
		}
	}
	return nil
}

// addressesFree tells of an address that is taken before a web server is
// started that would end again and again.
func addressesFree(addresses []string) error {
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return fmt.Errorf("the web server cannot listen at %q: %w\nanother program has that address, or it is not yours to take; [nginx] listen says which to take", a, err)
		}
		l.Close()
	}
	return nil
}

// mend makes one app's repository, records and files agree with its link
// current.
func (d *Deployer) mend(ctx context.Context, app string) error {
	l := d.layout(app)
	var errs []error
	if d.Repositories.Exists(app) {
		errs = append(errs, d.Repositories.Recover(app))
	}
	if d.isDamaged(app) {
		return errors.Join(errs...) // logged, and nothing of it is removed
	}
	live, err := l.live()
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(append(errs, d.refsOfHalfMade(ctx, app, l), d.removeHalfMade(app, l))...)
	}
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, d.agree(ctx, app, l, live), d.refsOfHalfMade(ctx, app, l), d.removeHalfMade(app, l), d.sweepNow(app))
	return errors.Join(errs...)
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
			return fmt.Errorf("v%d did not start: %s %s\nits output is in %s", live.Release, d.serverName(), ended(running), p.Log)
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
	if err != nil || have.Instance != live.Instance {
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
		if id != live.Commit {
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
		errs = append(errs, d.discard(l, id))
	}
	venvs, _ := filepath.Glob(filepath.Join(l.dir, ".venvs", "*"))
	for _, dir := range venvs {
		if _, err := readVenv(dir); err != nil {
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
