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
