package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"scotch/config"
)

// zeroID is how git writes "no such object".
const zeroID = "0000000000000000000000000000000000000000"

// register makes a checked-out instance live. ref is the branch that moves
// with the switch, empty where none does (a restart).
func (op *operation) register(ctx context.Context, a *config.App, rec *Record, refs []RefUpdate) (*member, error) {
	d := op.d
	op.report.Stage("register")
	if err := op.allowed(); err != nil {
		return nil, err
	}
	if op.handOver != nil {
		if err := op.handOver(); err != nil {
			return nil, fmt.Errorf("giving the app's data to its new user: %w", err)
		}
	}
	if a.Release != "" && op.what == "deploy" {
		// From here on it may have changed a database, also when it fails.
		rec.Released = true
		op.noteBegun("register", true)
		if err := op.command(ctx, a, rec, "release", a.Release, nil); err != nil {
			return nil, remains(err)
		}
	}
	m, err := op.boot(ctx, a, rec)
	if err != nil {
		return nil, op.afterRelease(rec, err)
	}
	op.next = m
	old := op.nowLive()
	rec.Outside, rec.Settings = op.outside, a.Settings()
	rec.Watch, rec.Previous = 0, ""
	if op.what == "deploy" {
		rec.Watch = a.Health.Watch
	}
	if err := d.render(a, op.l, rec); err != nil {
		return nil, op.afterRelease(rec, err)
	}
	if err := op.between(a, rec, old); err != nil {
		return nil, op.afterRelease(rec, err)
	}
	var answered int64
	if m != nil {
		answered, _ = d.requests(ctx, m) // 0 where not known: then its health requests count too
	}
	if err := op.goLive(ctx, rec, refs, old); err != nil {
		if op.kept {
			op.endWatch()
			op.serves(m)
		}
		return nil, op.afterRelease(rec, err)
	}
	if m != nil {
		m.setServes(tenure{time.Now(), answered})
	}
	op.endWatch()
	d.mu.Lock()
	s := d.state(op.app)
	retired := s.live
	s.live, s.damage = m, nil
	d.mu.Unlock()
	if err := d.files.Remove("start-app", op.l.stopped()); err != nil {
		d.log.WithField("app", op.app).Errorf("removing the mark of a stopped app: %v", err)
	}
	op.vigil = d.keepVigil(op.app, retired, m)
	op.tellRetention()
	return m, nil
}

// serves notes that current names m's instance although its switch failed: it could not
// be taken back. What served before is let go of.
func (op *operation) serves(m *member) {
	d := op.d
	os.Remove(filepath.Join(op.dir, begunName))
	d.mu.Lock()
	s := d.state(op.app)
	old := s.live
	s.live, s.damage = m, nil
	d.mu.Unlock()
	if old != nil && old != m {
		d.retire(op.app, old)
	}
}

// nowLive is the record of what is live, nil where nothing is.
func (op *operation) nowLive() *Record {
	old, err := op.l.live()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		op.d.log.WithField("app", op.app).Warnf("the record of what is live cannot be read: %v", err)
	}
	return old
}

// afterRelease adds to an error what the release command leaves behind.
func (op *operation) afterRelease(rec *Record, err error) error {
	if !rec.Released || op.what != "deploy" {
		return err
	}
	return remains(err)
}

func remains(err error) error {
	return fmt.Errorf("%w\nchanges that the release command made to the database remain", err)
}

// boot starts the instance beside the old one and waits until it is ready and
// healthy: that start is the proof of its entry point.
func (op *operation) boot(ctx context.Context, a *config.App, rec *Record) (*member, error) {
	d := op.d
	inst := instanceFor(a, rec)
	inst.Env = inst.environment(nil)
	rec.Environment = inst.Env
	if op.what == "deploy" {
		op.tellOutranked(a)
	}
	notes := op.report.Output()
	defer notes.Close()
	plan, err := d.AppServer.Plan(ctx, inst, notes)
	if err != nil {
		return nil, err
	}
	plan.Server, plan.Protocol = d.serverName(), d.protocol()
	rec.Plan = plan
	if !plan.runs() {
		op.report.Step(d.serverName(), "off: nothing is started", -1)
		return nil, nil
	}
	if err := config.CheckSocketPath(plan.Socket); err != nil {
		return nil, err
	}
	gid, err := d.readers(a)
	if err != nil {
		return nil, err
	}
	for _, f := range plan.Files {
		if !within(inst.Run, f.Path) {
			continue // to look at, of what is live: written after the switch
		}
		if err := d.files.WriteFor(gid, "write-instance-file", f.Path, f.Data, f.Mode); err != nil {
			return nil, err
		}
	}
	p := &plan.Process
	p.Name = op.app + "/" + op.id
	p.Record = filepath.Join(op.dir, processRecordName)
	p.Log = d.logPath(op.app, op.id)
	p.User, p.Group = a.User, a.Group
	p.Umask = d.site.Umask
	p.Limits, p.Writes = AppLimits(a), appWrites(inst)
	if p.Grace == 0 {
		p.Grace = a.Timeout
	}

	begin := time.Now()
	if err := d.files.before("start-process"); err != nil {
		return nil, err
	}
	running, err := d.Runner.Start(*p)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(p.Args[0]), err)
	}
	m := d.watch(p.Name, *p, plan.Ready, rec, running)
	op.undo = append(op.undo, func() {
		if op.switched { // it was live for a moment, and may have requests
			m.letGo()
			d.drain(d.ctx, m)
		}
		stopCtx, cancel := context.WithTimeout(context.Background(), quickStop)
		defer cancel()
		m.end(stopCtx)
	})
	if err := d.files.before("await-ready"); err != nil {
		return nil, err
	}
	if err := op.awaitReady(ctx, a, rec, running); err != nil {
		return nil, err
	}
	op.report.Step(d.serverName(), plural(a.Workers, "worker")+" ready", since(begin))
	return m, op.awaitHealthy(ctx, a, rec, running)
}

// quickStop bounds the end of an instance that never served.
const quickStop = 2 * time.Second

func (d *Deployer) serverName() string {
	if n, ok := d.AppServer.(interface{ Name() string }); ok {
		return n.Name()
	}
	return "app"
}

// protocol is what the application server's sockets speak, "" for uwsgi.
func (d *Deployer) protocol() string {
	if s, ok := d.AppServer.(Speaker); ok && s.Protocol() != ProtocolUWSGI {
		return s.Protocol()
	}
	return ""
}

// firstServer made the plans that say nothing of it: they are older than any other.
const firstServer = "uwsgi"

func (p *Plan) server() string { return cmp.Or(p.Server, firstServer) }

// ours tells whether a plan is of the application server that [plugins] has today.
// What another one has started is not asked, counted or judged by it.
func (d *Deployer) ours(p *Plan) bool { return p != nil && p.server() == d.serverName() }

// goLive is the switch: everything that can fail is done before the rename of
// current, and what the rename makes true is written before and after it so
// that a crash at any point is mended from current alone.
func (op *operation) goLive(ctx context.Context, rec *Record, refs []RefUpdate, old *Record) error {
	d := op.d
	begin := time.Now()
	files := rec.WebFiles
	if len(op.meanwhile) > 0 {
		files = op.meanwhile
	}
	pub, err := d.publish(ctx, rec, files, old, op.report)
	if err != nil {
		return err
	}
	defer pub.unlock()

	if err := d.readyToSwitch(ctx); err != nil {
		return errors.Join(err, pub.undo(ctx))
	}
	rec.Live = time.Now()
	if rec.First.IsZero() {
		rec.First = rec.Live
	}
	if rec.Took == 0 {
		rec.Took = rec.Live.Sub(rec.Started)
	}
	if old != nil {
		rec.Previous = old.Instance
	}
	rec.Undone, rec.Warning, rec.RefWas = nil, "", ""
	if old == nil {
		if rec.RefWas, err = op.refNow(ctx, rec.Ref); err != nil {
			return errors.Join(err, pub.undo(ctx))
		}
	}
	if err := rec.save(d.files, "write-record", filepath.Join(op.l.instance(rec.Instance), recordName)); err != nil {
		return errors.Join(err, pub.undo(ctx))
	}
	unsave := func() error { return nil }
	if op.save != nil {
		if unsave, err = op.save(); err != nil {
			return errors.Join(err, pub.undo(ctx))
		}
	}
	tx, err := op.prepareRefs(ctx, refs)
	if err != nil {
		return errors.Join(err, unsave(), pub.undo(ctx))
	}
	if err := errors.Join(op.allowed(), op.stillRuns()); err != nil {
		return errors.Join(err, tx.Abort(), unsave(), pub.undo(ctx))
	}
	op.switched = true
	if err := d.files.Symlink("switch", rec.Instance, op.l.current()); err != nil {
		// The rename may have happened, and only its sync failed.
		back := op.switchBack(old)
		if back != nil && op.l.liveID() == rec.Instance {
			return op.stays(ctx, rec, errors.Join(err, tx.Abort()), back)
		}
		return errors.Join(err, back, tx.Abort(), unsave(), pub.undo(ctx))
	}
	turned := &publication{d: d}
	if len(op.meanwhile) > 0 {
		// Until here the old instance has answered.
		if turned, err = pub.turn(ctx, rec.WebFiles); err != nil {
			return errors.Join(err, op.switchBack(old), tx.Abort(), unsave(), pub.undo(ctx))
		}
	}
	if err := d.commitRefs(tx); err != nil {
		// Nothing was acknowledged yet: what serves must be what the ref says.
		err = errors.Join(fmt.Errorf("moving the branch with the switch: %w", err), turned.undo(ctx))
		if back := op.switchBack(old); back != nil {
			if len(op.meanwhile) > 0 {
				_, again := pub.turn(context.WithoutCancel(ctx), rec.WebFiles)
				back = errors.Join(back, again)
			}
			return op.stays(ctx, rec, err, back)
		}
		err = errors.Join(err, unsave(), pub.undo(ctx))
		if old != nil { // a git that was killed may have moved some of them
			err = errors.Join(err, d.agree(context.WithoutCancel(ctx), op.app, op.l, old))
		}
		return errors.Join(err, d.refsNeverLive(context.WithoutCancel(ctx), rec))
	}
	op.kept = true
	os.Remove(filepath.Join(op.dir, begunName))
	d.claimed(op.app, rec)
	op.recordRelease(rec)
	op.pointHead(ctx, rec)
	op.showcase(rec)
	op.report.Step(d.webName(), pub.what, since(begin))
	if len(pub.order) > 0 {
		op.tellUnreached(ctx, &config.App{Name: rec.App, Domains: rec.Domains})
	}
	return nil
}

// stays is the end of a switch that failed with err and could not be taken back, for
// back: the new instance serves. The refs are made to agree; where that fails too the
// next start of the server does it.
func (op *operation) stays(ctx context.Context, rec *Record, err, back error) error {
	op.kept = true
	op.d.claimed(op.app, rec)
	agreed := op.d.agree(context.WithoutCancel(ctx), op.app, op.l, rec)
	return errors.Join(fmt.Errorf("%w\nthe switch could not be taken back: v%d serves", err, rec.Release), back, agreed)
}

// refNow is where a branch is, zeros for nowhere, "" where no ref is meant.
func (op *operation) refNow(ctx context.Context, ref string) (string, error) {
	if ref == "" || !op.d.Repositories.Exists(op.app) {
		return "", nil
	}
	id, err := op.d.Repositories.Ref(ctx, op.app, ref)
	return cmp.Or(id, zeroID), err
}

// commitRefs is an operation of the disk, done by git.
func (d *Deployer) commitRefs(tx RefTransaction) error {
	if err := d.files.before("commit-refs"); err != nil {
		return errors.Join(err, tx.Abort())
	}
	return tx.Commit()
}

// readyToSwitch is the last look before the point of no return: a cancelled
// operation does not switch.
func (d *Deployer) readyToSwitch(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// allowed asks whether whoever asked for the operation may have it still.
func (op *operation) allowed() error {
	if op.d.Allowed == nil || op.by.Key == "" {
		return nil
	}
	return op.d.Allowed(op.by, op.app)
}

// stillRuns tells whether what is about to be switched to has ended since it
// answered. One that was started again meanwhile has not answered yet.
func (op *operation) stillRuns() error {
	if op.next == nil {
		return nil // [plugins] turned the application server off
	}
	running, _ := op.next.process()
	if op.probed != nil {
		running = op.probed
	}
	if running != nil {
		select {
		case <-running.Done():
		default:
			return nil
		}
		return fmt.Errorf("%s ended just before the switch: %s", op.d.serverName(), ended(running))
	}
	return fmt.Errorf("%s ended just before the switch", op.d.serverName())
}

// switchBack makes current name what it named before. Where it does so still,
// nothing is done.
func (op *operation) switchBack(old *Record) error {
	if old == nil {
		return op.d.files.Remove("switch-back", op.l.current())
	}
	if op.l.liveID() == old.Instance {
		return nil
	}
	return op.d.files.Symlink("switch-back", old.Instance, op.l.current())
}

// recordRelease writes releases/vN.json. The switch has happened: a failure is
// logged, and the next start of the server writes it from the live record.
func (op *operation) recordRelease(rec *Record) {
	kept := *rec
	kept.Plan, kept.WebFiles, kept.Environment = nil, nil, nil
	if err := kept.save(op.d.files, "write-release", op.l.release(rec.Release)); err != nil {
		op.d.log.WithField("app", op.app).Errorf("recording release v%d: %v", rec.Release, err)
	}
}

// pointHead makes HEAD of the repository follow the branch that is live, so
// that a clone checks it out.
func (op *operation) pointHead(ctx context.Context, rec *Record) {
	branch, ok := strings.CutPrefix(rec.Ref, "refs/heads/")
	if !ok || rec.Why != "deploy" || op.what != "deploy" {
		return
	}
	if err := op.d.Repositories.Create(context.WithoutCancel(ctx), op.app, branch); err != nil {
		op.d.log.WithField("app", op.app).Errorf("pointing HEAD to %s: %v", branch, err)
	}
}

// showcase writes the files that people look at, outside the instance: they
// show what is live and nothing depends on them.
func (op *operation) showcase(rec *Record) {
	a := &config.App{User: rec.Plan.Process.User, Group: rec.Plan.Process.Group}
	gid, err := op.d.readers(a)
	if err != nil {
		op.d.log.WithField("app", op.app).Warnf("writing files to look at: %v", err)
		return
	}
	for _, f := range rec.Plan.Files {
		if within(filepath.Join(rec.Dir, "run"), f.Path) {
			continue
		}
		err := op.d.files.MkdirAll("make-showcase", filepath.Dir(f.Path), op.d.site.DirMode)
		if err == nil {
			err = op.d.files.WriteFor(gid, "write-showcase", f.Path, f.Data, f.Mode)
		}
		if err != nil {
			op.d.log.WithField("app", op.app).Warnf("writing a file to look at: %v", err)
		}
	}
}

// noRefs is the transaction of a switch that moves no ref.
type noRefs struct{}

func (noRefs) Commit() error { return nil }
func (noRefs) Abort() error  { return nil }

func (op *operation) prepareRefs(ctx context.Context, refs []RefUpdate) (RefTransaction, error) {
	if len(refs) == 0 {
		return noRefs{}, nil
	}
	if err := op.d.files.before("prepare-refs"); err != nil {
		return nil, err
	}
	tx, err := op.d.Repositories.Prepare(ctx, op.app, refs)
	if err != nil {
		return nil, fmt.Errorf("moving the branch: %w", err)
	}
	return tx, nil
}

func (d *Deployer) webName() string {
	if n, ok := d.WebServer.(interface{ Name() string }); ok {
		return n.Name()
	}
	return "web"
}
