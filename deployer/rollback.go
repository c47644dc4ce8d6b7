package deployer

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"scotch/config"
)

// Rollback switches back to a kept release, to the one before the live one for
// n = 0: nothing is installed, the instance is health-checked first, and the
// branch follows. While the release's old instance is still warm it is that one
// that serves again, at once; else a new one is started from the release's own
// source and virtualenv. With hold the app is locked for that reason afterwards.
func (d *Deployer) Rollback(ctx context.Context, app string, n int, hold string, by Actor, out io.Writer) (Result, error) {
	if err := checkLockReason(hold); err != nil {
		return Result{}, err
	}
	if _, err := d.liveRecord(app); err != nil {
		return Result{}, err
	}
	var res Result
	err := d.operate(ctx, task{
		app: app, what: "rollback", by: by, title: "a rollback", heavy: true,
		run: func(ctx context.Context, op *operation) (err error) {
			res, err = op.rollback(ctx, n, hold)
			return err
		},
	}, out)
	return res, err
}

func (op *operation) rollback(ctx context.Context, n int, hold string) (Result, error) {
	d := op.d
	switched := false
	live, err := d.liveRecord(op.app)
	if err != nil {
		return Result{}, err
	}
	target, between, err := op.target(live, n)
	if err != nil {
		return Result{}, err
	}
	op.report.Headline("%s: rolling back from v%d to v%d, %s %q", op.app, live.Release, target.Release, short(target.Commit), target.Subject)
	refs, err := op.refsBack(ctx, live, target)
	if err != nil {
		return Result{}, err
	}
	op.tellPersist(live, target)
	if hold != "" {
		// Before the switch: nothing may be deployed between the two, also where the
		// server does not live to say so.
		unhold, err := d.hold(op.app, hold, op.by.Name)
		if err != nil {
			return Result{}, fmt.Errorf("locking the app: %w", err)
		}
		defer func() {
			if !switched {
				err := unhold()
				if err != nil {
					d.log.WithField("app", op.app).Errorf("unlocking after a rollback that failed: %v", err)
				}
			}
		}()
	}
	op.warm = d.endVigil(op.app, op.title+" by "+op.by.Name)
	if op.warm != nil && op.warm.rec.Release == target.Release && d.stillFits(op.warm) {
		op.report.Stage("register")
		op.report.Step("instance", fmt.Sprintf("%s is still warm", target.Instance), -1)
		if err := op.switchBackTo(ctx, live, op.warm, refs); err != nil {
			return Result{}, &StageError{"register", err}
		}
	} else {
		if target.Plan.runs() && off(d.AppServer) == nil && !d.ours(target.Plan) {
			op.report.Note("v%d ran with %s, and [plugins] has %s by now: it takes a new instance", target.Release, target.Plan.server(), d.serverName())
		}
		op.recorded, op.otherServer = target.Settings, !d.ours(target.Plan)
		op.tellDifferences(target)
		if err := op.renewFrom(ctx, target, refs); err != nil {
			return Result{}, err
		}
	}
	switched = true
	now := op.nowLive()
	for _, r := range between {
		if r.Released {
			op.report.Note("note: changes that the release command of v%d made to the database remain", r.Release)
		}
	}
	undone := &Undone{When: time.Now(), By: op.by.Name, Why: fmt.Sprintf("rolled back to v%d", target.Release)}
	if live.Release > target.Release { // forward again nothing is taken back
		if err := op.annotate(live.Release, func(r *Record) { r.Undone = undone }); err != nil {
			d.log.WithField("app", op.app).Errorf("recording the rollback: %v", err)
		}
	}
	if hold != "" {
		op.report.Note("locked: deploys are refused until `%s unlock %s`", d.SSH, op.app)
	}
	op.live(now)
	return Result{Release: now.Release, URL: now.URL}, nil
}

// tellDifferences names what is otherwise than it was at the release: settings
// that go back to what it had, and what stays as it is today.
func (op *operation) tellDifferences(target *Record) {
	d := op.d
	today, err := d.configureTree(target, config.AppOptions{})
	if err != nil {
		return // the start itself tells
	}
	again, err := d.configureTree(target, config.AppOptions{Recorded: target.Settings, OtherServer: !d.ours(target.Plan)})
	if err != nil {
		return
	}
	now, then := today.Settings(), again.Settings()
	for _, was := range then {
		i := slices.IndexFunc(now, func(s config.Setting) bool { return s.Section == was.Section && s.Key == was.Key })
		if i < 0 {
			op.report.Note("%s, as v%d had it; unset today", was, target.Release)
		} else if now[i].Value != was.Value {
			op.report.Note("%s, as v%d had it; today %s", was, target.Release, now[i].Value)
		}
	}
	for _, s := range now {
		if !slices.ContainsFunc(then, func(was config.Setting) bool { return s.Section == was.Section && s.Key == was.Key }) {
			op.report.Note("[%s] %s is unset, as v%d had it", s.Section, s.Key, target.Release)
		}
	}
	if names := differentNames(target.Environment, instanceFor(today, target).environment(nil)); len(names) > 0 {
		op.report.Note("as they are today, not as in v%d: %s of the environment", target.Release, strings.Join(names, ", "))
	}
	if !slices.Equal(target.Domains, today.Domains) || target.URLPrefix != today.URLPrefix {
		op.report.Note("as they are today, not as in v%d: domains and url_prefix", target.Release)
	}
}

// tellPersist names the paths that the one release has in the data and the other in a
// source of its own: what was written there meanwhile is not what the target shows.
func (op *operation) tellPersist(live, target *Record) {
	var paths []string
	for _, rec := range []*Record{live, target} {
		if a, err := op.d.configureTree(rec, config.AppOptions{}); err == nil {
			paths = append(paths, a.Persist...)
		}
	}
	slices.Sort(paths)
	inData := func(rec *Record, p string) bool {
		fi, err := os.Lstat(filepath.Join(rec.Source, filepath.FromSlash(rec.Root), filepath.FromSlash(p)))
		return err == nil && fi.Mode()&os.ModeSymlink != 0
	}
	for _, p := range slices.Compact(paths) {
		switch now, then := inData(live, p), inData(target, p); {
		case now && !then:
			op.report.Note("note: v%d has %s in its own source, as it was there; that of v%d stays in the data", target.Release, p, live.Release)
		case then && !now:
			op.report.Note("note: v%d has %s in the data; that of v%d stays in its own source", target.Release, p, live.Release)
		}
	}
}

// differentNames are the variables that differ, or that only one side has.
func differentNames(was, now []string) []string {
	if was == nil {
		return nil // not recorded
	}
	values := map[string]string{}
	for _, v := range was {
		name, value := ownPart(v)
		values[name] = value
	}
	var names []string
	for _, v := range now {
		name, value := ownPart(v)
		old, had := values[name]
		delete(values, name)
		if (!had || old != value) && !outranked(name) {
			names = append(names, name)
		}
	}
	for name := range values {
		if !outranked(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// ownPart is a variable without what differs between instances by itself: the
// virtualenv, which comes first in PATH.
func ownPart(v string) (name, value string) {
	name, value, _ = strings.Cut(v, "=")
	if name == "PATH" {
		_, value, _ = strings.Cut(value, ":")
	}
	return name, value
}

// target finds the release that a rollback leads to, and the releases that it
// takes back. It reads what is kept and what is taken back, and nothing else of
// what there ever was.
func (op *operation) target(live *Record, n int) (target *Record, between []*Record, err error) {
	releases, err := op.l.present()
	if err != nil {
		return nil, nil, err
	}
	releases = slices.DeleteFunc(releases, func(p present) bool { return !isThere(p.instance.Source) || !isThere(p.instance.Venv) })
	var kept []string
	var undone []*Record
	var spare *Record
	for _, p := range releases {
		number := p.release.Release
		if number != live.Release {
			kept = append(kept, fmt.Sprintf("v%d", number))
		}
		switch {
		case target != nil:
		case n == number:
			target = p.instance
		case n == 0 && number < live.Release:
			if p.release.Undone == nil {
				target = p.instance
			} else if undone = append(undone, p.release); spare == nil {
				spare = p.instance
			}
		}
	}
	// Those that were taken back are no place to go to, but better than none.
	if target == nil && spare != nil {
		target, undone = spare, nil
	}
	for _, r := range undone {
		op.report.Note("v%d is skipped: it was taken back, %s", r.Release, r.Undone.Why)
	}
	switch {
	case target == nil && n == 0:
		return nil, nil, &RefusedError{Reason: fmt.Sprintf("app %q has no release before v%d that is kept", op.app, live.Release), Hint: op.keptHint(kept)}
	case target == nil && isThere(op.l.release(n)):
		return nil, nil, op.notKept(n)
	case target == nil:
		return nil, nil, &RefusedError{Reason: fmt.Sprintf("app %q has no release v%d", op.app, n), Hint: op.keptHint(kept)}
	case target.Release == live.Release:
		return nil, nil, &RefusedError{Reason: fmt.Sprintf("v%d is live already", n), Hint: fmt.Sprintf("%s restart %s starts it anew", op.d.SSH, op.app)}
	}
	for r, err := range op.l.from(live.Release) {
		if err != nil {
			op.d.log.WithField("app", op.app).Warnf("reading its releases: %v", err)
			continue
		}
		if r.Release <= target.Release {
			break
		}
		between = append(between, r)
	}
	return target, between, nil
}

func (op *operation) notKept(n int) error {
	return &RefusedError{
		Reason: fmt.Sprintf("v%d of %q is no longer kept", n, op.app),
		Hint:   fmt.Sprintf("to deploy its commit again: %s deploy %s --ref %s", op.d.SSH, op.app, releaseRef(n)),
	}
}

func (op *operation) keptHint(kept []string) string {
	if len(kept) == 0 {
		return fmt.Sprintf("[app] keep says how many are; %s releases %s lists them", op.d.SSH, op.app)
	}
	return "kept are " + strings.Join(kept, ", ")
}

// refsBack moves the branch that is live to the commit of the target, where it is
// the one that deploys.
func (op *operation) refsBack(ctx context.Context, live, target *Record) ([]RefUpdate, error) {
	if !op.d.Repositories.Exists(op.app) {
		return nil, nil
	}
	var refs []RefUpdate
	switch branch := cmp.Or(live.Ref, target.Ref); {
	case branch == "":
		return nil, nil
	case op.d.deploys(ctx, op.app, branch):
		now, err := op.d.Repositories.Ref(ctx, op.app, branch)
		if err != nil {
			return nil, err
		}
		refs = append(refs, RefUpdate{Ref: branch, Old: cmp.Or(now, zeroID), New: target.Commit})
	default:
		op.report.Note("note: %s stays where it is: [git] branch is another one by now", branch)
	}
	if id, err := op.d.Repositories.Ref(ctx, op.app, releaseRef(target.Release)); err == nil && id == "" {
		refs = append(refs, RefUpdate{Ref: releaseRef(target.Release), New: target.Commit})
	}
	return refs, nil
}

// stillFits tells whether a warm instance runs and would be started just so
// today: by the application server that [plugins] has now, which is asked whether it
// is healthy, and with the environment that [env] says now.
func (d *Deployer) stillFits(m *member) bool {
	running, _ := m.process()
	if running == nil || !d.ours(m.rec.Plan) {
		return false
	}
	a, err := d.configureTree(m.rec, config.AppOptions{})
	if err != nil {
		return false
	}
	return slices.Equal(m.rec.Environment, instanceFor(a, m.rec).environment(nil)) && slices.Equal(a.Domains, m.rec.Domains) && a.URLPrefix == m.rec.URLPrefix
}

// switchBackTo makes a warm instance live again, once it has answered the health
// request. The one that is live now is drained.
func (op *operation) switchBackTo(ctx context.Context, live *Record, m *member, refs []RefUpdate) error {
	running, _ := m.process()
	if running == nil {
		return fmt.Errorf("v%d has ended meanwhile", m.rec.Release)
	}
	a, err := op.d.configureTree(m.rec, config.AppOptions{})
	if err != nil {
		return err
	}
	if err := op.awaitHealthy(ctx, a, m.rec, running); err != nil {
		return err
	}
	return op.goLiveAgain(ctx, live, m, refs)
}

// switchToWarm is what the watch does: it asks for no health, since what serves
// now is worse.
func (op *operation) switchToWarm(ctx context.Context, live *Record, m *member) error {
	if running, _ := m.process(); running == nil {
		return fmt.Errorf("v%d has ended meanwhile", m.rec.Release)
	}
	refs, err := op.refsBack(ctx, live, m.rec)
	if err != nil {
		return err
	}
	return op.goLiveAgain(ctx, live, m, refs)
}

// goLiveAgain is the switch to an instance that was live before and still runs.
func (op *operation) goLiveAgain(ctx context.Context, live *Record, m *member, refs []RefUpdate) error {
	d := op.d
	rec := *m.rec
	rec.Watch = 0
	if live.Ref != "" {
		rec.Ref = live.Ref
	}
	op.next = m
	if err := op.dataBack(live, m.rec); err != nil {
		return err
	}
	if !d.oneDoor(live, &rec) {
		a, err := d.configureTree(m.rec, config.AppOptions{})
		if err == nil {
			a.Domains, a.URLPrefix = rec.Domains, rec.URLPrefix
			err = op.between(a, &rec, live)
		}
		if err != nil { // it is needed all the same
			d.log.WithField("app", op.app).Warnf("some requests may fail while the server is changed: %v", err)
		}
	}
	answered, _ := d.requests(ctx, m)
	err := op.goLive(ctx, &rec, refs, live)
	op.kept = false // of this operation itself nothing stays but its log
	if err != nil {
		return err
	}
	d.mu.Lock()
	s := d.state(op.app)
	retired := s.live
	s.live = m
	d.mu.Unlock()
	op.warm = nil
	m.setServes(tenure{time.Now(), answered}) // rec.Live is before the switch: what failed then was not its
	if err := d.files.Remove("start-app", op.l.stopped()); err != nil {
		d.log.WithField("app", op.app).Errorf("removing the mark of a stopped app: %v", err)
	}
	if retired != nil {
		d.retire(op.app, retired)
	}
	return nil
}

// annotate changes the record of a release, and of its instance where that is
// still there.
func (op *operation) annotate(release int, change func(*Record)) error {
	path := op.l.release(release)
	r, err := readRecord(path)
	if err != nil {
		return err
	}
	change(r)
	return r.save(op.d.files, "annotate-release", path)
}

// lastUndone is the newest release where it was taken back by scotch itself,
// or warned of, since the live one; nil otherwise.
func (l layout) lastUndone(live *Record) *Record {
	if live == nil {
		return nil
	}
	for r, err := range l.newest() {
		if err != nil {
			continue
		}
		if r.Release >= live.Release && (r.Warning != "" || r.Undone != nil && r.Undone.By == "scotch") {
			return r
		}
		break
	}
	return nil
}

// tellUndone tells the next to deploy what became of the last release.
func (op *operation) tellUndone() {
	r := op.l.lastUndone(op.nowLive())
	switch {
	case r == nil:
	case r.Undone != nil:
		op.report.Note("note: scotch took v%d back at %s: %s", r.Release, r.Undone.When.Format("15:04:05"), r.Undone.Why)
	default:
		op.report.Note("note: v%d did not do well after its switch: %s", r.Release, r.Warning)
	}
}
