package deployer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// A git that dies in the middle of its commit may have moved some of the refs.
// The branch follows what is live (agree). Where nothing is, because the release
// would have been the app's first, it goes back to where it was; and the ref of a
// release that never was goes.

// refsNeverLive puts the refs back that the switch to a release, which did not go
// live, may have moved.
func (d *Deployer) refsNeverLive(ctx context.Context, rec *Record) error {
	if !d.Repositories.Exists(rec.App) {
		return nil
	}
	before := map[string]string{}
	if rec.RefWas != "" {
		before[rec.Ref] = rec.RefWas
	}
	if !isThere(d.layout(rec.App).release(rec.Release)) {
		before[releaseRef(rec.Release)] = zeroID
	}
	var refs []RefUpdate
	for ref, was := range before {
		now, err := d.Repositories.Ref(ctx, rec.App, ref)
		if err != nil {
			return err
		}
		if now != rec.Commit || was == now {
			continue
		}
		u := RefUpdate{Ref: ref, Old: now}
		if was != zeroID {
			u.New = was
		}
		refs = append(refs, u)
	}
	if len(refs) == 0 {
		return nil
	}
	tx, err := d.Repositories.Prepare(ctx, rec.App, refs)
	if err != nil {
		return fmt.Errorf("moving the branch back: %w", err)
	}
	d.log.WithField("app", rec.App).Infof("moved refs back: %s was never live", short(rec.Commit))
	return tx.Commit()
}

// refsOfHalfMade does so after a crash.
func (d *Deployer) refsOfHalfMade(ctx context.Context, app string, l layout) error {
	ids, err := l.instanceIDs()
	errs := []error{err}
	current := l.liveID()
	for _, id := range ids {
		if id == current {
			continue
		}
		rec, err := readRecord(filepath.Join(l.instance(id), recordName))
		if err == nil && !isThere(l.release(rec.Release)) {
			errs = append(errs, d.refsNeverLive(ctx, rec))
		}
	}
	return errors.Join(errs...)
}
