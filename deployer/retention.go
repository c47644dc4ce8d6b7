package deployer

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sweepLater frees what retention no longer keeps, behind the caller's back.
func (d *Deployer) sweepLater(app string) {
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		d.sweep(app)
		d.collectGarbage(app)
	}()
}

// sweep removes the instances that retention no longer keeps, never the live
// one, nor one that is being deployed or drained. An app that is being worked
// on is swept when that is done.
func (d *Deployer) sweep(app string) {
	leave, err := d.queue.enterQuietly(d.ctx, app)
	if err != nil {
		return
	}
	defer leave()
	if err := d.sweepNow(app); err != nil {
		d.log.WithField("app", app).Warnf("removing old instances: %v", err)
	}
}

// keepFailed is how many instances that failed keep their log.
const keepFailed = 5

func (d *Deployer) sweepNow(app string) error {
	d.finishSwitch(app, d.layout(app))
	list, err := d.sweepable(app, keepFailed)
	errs := []error{err}
	for _, p := range list {
		errs = append(errs, d.files.RemoveAll(p.op, p.path))
	}
	return errors.Join(errs...)
}

// removable is a path that nothing needs.
type removable struct {
	op   string // the operation of Files that removes it
	what string // for people: "instances"
	path string
}

// sweepable lists what retention no longer keeps of an app, with the logs of the
// last failed instances that stay. The caller has the app's turn.
func (d *Deployer) sweepable(app string, failedLogs int) (list []removable, err error) {
	l := d.layout(app)
	ids, err := l.instanceIDs()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	keep := map[string]bool{}
	if len(ids) > 1 { // else it reads much for nothing
		if keep, err = d.keptInstances(app, l); err != nil {
			return nil, err
		}
	}
	keep[ids[len(ids)-1]] = true // ids never come back
	usedSources, usedVenvs := map[string]bool{}, map[string]bool{}
	stores := map[string]bool{filepath.Join(l.dir, ".venvs"): true}
	failed := 0
	var gone []*Record
	for i := len(ids) - 1; i >= 0; i-- {
		id := ids[i]
		rec, recErr := readRecord(filepath.Join(l.instance(id), recordName))
		if recErr == nil && filepath.IsAbs(rec.Venv) {
			stores[filepath.Dir(rec.Venv)] = true
		}
		if recErr != nil && !keep[id] {
			if failed++; failed <= failedLogs {
				continue // its log
			}
		}
		if keep[id] {
			if recErr == nil {
				usedSources[rec.Source], usedVenvs[rec.Venv] = true, true
			}
			continue
		}
		if recErr == nil {
			gone = append(gone, rec)
		}
		for _, p := range d.instancePlaces(app, l, id) {
			list = append(list, removable{"free-instance", "instances", p})
		}
	}
	for _, rec := range gone {
		for _, p := range append(rec.Outside, rec.Source) {
			if !usedSources[p] {
				list = append(list, removable{"free-outside", "sources", p})
			}
		}
	}
	entries, _ := os.ReadDir(l.sources())
	for _, e := range entries {
		if dir := filepath.Join(l.sources(), e.Name()); !usedSources[dir] {
			list = append(list, removable{"free-source", "sources", dir})
		}
	}
	for store := range stores {
		unused, err := unusedVenvs(store, usedVenvs)
		if err != nil {
			return list, err
		}
		for _, dir := range unused {
			list = append(list, removable{"free-venv", "venvs", dir})
		}
	}
	return list, nil
}

// finishSwitch does what a full disk kept from being done after a switch, when
// nothing could be taken back any more. The caller has the app's turn.
func (d *Deployer) finishSwitch(app string, l layout) {
	live, err := l.live()
	if err != nil {
		return // nothing is live, or it is logged elsewhere
	}
	op := &operation{d: d, app: app, l: l}
	if have, err := readRecord(l.release(live.Release)); err != nil || have.Instance != live.Instance {
		op.recordRelease(live)
	}
	d.unmarkStopped(app, l, live)
}

// unmarkStopped removes the mark of a stopped app that runs.
func (d *Deployer) unmarkStopped(app string, l layout, live *Record) {
	d.mu.Lock()
	m := d.state(app).live
	d.mu.Unlock()
	if m != nil && m.rec.Instance == live.Instance && isThere(l.stopped()) {
		if err := d.files.Remove("start-app", l.stopped()); err != nil {
			d.log.WithField("app", app).Errorf("removing the mark of a stopped app: %v", err)
		}
	}
}

// keptInstances are those that must stay: live, draining, and the newest ones
// of [app] keep releases of different commits.
func (d *Deployer) keptInstances(app string, l layout) (map[string]bool, error) {
	keep := map[string]bool{}
	d.mu.Lock()
	s := d.state(app)
	if s.live != nil {
		keep[s.live.rec.Instance] = true
	}
	for id := range s.retiring {
		keep[id] = true
	}
	if s.vigil != nil && s.vigil.old != nil {
		keep[s.vigil.old.rec.Instance] = true
	}
	for _, r := range s.runs {
		keep[r.Instance] = true
	}
	for id := range s.inUse {
		keep[id] = true
	}
	d.mu.Unlock()
	kept, err := d.keptReleases(app, l)
	if err != nil {
		return nil, err // better too much than too little
	}
	maps.Copy(keep, kept)
	return keep, nil
}

// keptReleases are the instances of the newest releases of [app] keep different
// commits, and the live one.
func (d *Deployer) keptReleases(app string, l layout) (map[string]bool, error) {
	keep := map[string]bool{}
	if id := l.liveID(); id != "" {
		keep[id] = true
	}
	n := 5
	if a, err := d.app(app); err == nil {
		n = a.Keep
	}
	commits := map[string]bool{}
	for r, err := range l.newest() {
		if err != nil {
			return nil, err
		}
		if !commits[r.Commit] && len(commits) >= n {
			break
		}
		commits[r.Commit] = true
		keep[r.Instance] = true
	}
	return keep, nil
}

// firstLive is when the release went live for the first time.
func (r *Record) firstLive() time.Time {
	if r.First.IsZero() {
		return r.Live
	}
	return r.First
}

// tellRetention says which releases the switch has pushed out of those that are
// kept; they are removed behind the caller's back.
func (op *operation) tellRetention() {
	keep, err := op.d.keptReleases(op.app, op.l)
	if err != nil {
		return
	}
	ids, _ := op.l.instanceIDs()
	var numbers []int
	for _, id := range ids {
		if keep[id] {
			continue
		}
		// Of a release's instances the last one counts, which its record names.
		rec, err := readRecord(filepath.Join(op.l.instance(id), recordName))
		if err != nil {
			continue // a failed deploy's log
		}
		if last, err := readRecord(op.l.release(rec.Release)); err == nil && last.Instance == id {
			numbers = append(numbers, rec.Release)
		}
	}
	slices.Sort(numbers)
	var gone []string
	for _, n := range numbers {
		gone = append(gone, fmt.Sprintf("v%d", n))
	}
	if len(gone) > 0 {
		op.report.Step("retention", strings.Join(gone, ", ")+" no longer kept ([app] keep)", -1)
	}
}

// instancePlaces are what is to be removed of an instance.
func (d *Deployer) instancePlaces(app string, l layout, id string) []string {
	dir := l.instance(id)
	// Where [app] instance_path puts it elsewhere, dir is a link.
	var places []string
	if to, err := os.Readlink(dir); err == nil {
		places = append(places, to)
	}
	return append(places, dir, d.logPath(app, id))
}
