package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"scotch/config"
)

// PruneOptions say what prune frees besides what nothing needs.
type PruneOptions struct {
	App string // "" for all, and what is no app's
	// Destroyed frees what was destroyed at least that long ago; nil: nothing of it.
	Destroyed *time.Duration
	Caches    bool // frees the installers' caches
	DryRun    bool // says what it would free
}

// Freed is what prune freed, or would.
type Freed struct {
	App   string `json:"app,omitempty"`
	What  string `json:"what"`
	Count int    `json:"count"`
	Bytes int64  `json:"bytes"` // of the disk, 0 where it is not known before
}

// Prune frees what nothing needs: instances and virtualenvs that retention does not
// keep, logs of failed deploys, of instances that are gone and the older rotated
// ones, loose objects that git has twice; and packs repositories anew where that is
// due. Each app is done in its turn, so nothing under way loses anything. It writes
// nothing before it has freed, so it works on a full disk. report gets what was freed of each app.
// What fails is joined into the error, and the rest is done all the same.
func (d *Deployer) Prune(ctx context.Context, o PruneOptions, report func(Freed)) error {
	if err := d.begin(); err != nil {
		return err
	}
	defer d.work.Done()
	names := []string{o.App}
	if o.App == "" {
		var err error
		if names, err = d.names(); err != nil && len(names) == 0 {
			return err
		}
	} else if _, err := d.app(o.App); errors.As(err, new(*config.NoAppError)) && o.Destroyed == nil {
		return err
	}
	p := &pruning{d: d, o: o, m: newMeasure(), report: report}
	var errs []error
	for _, app := range names {
		if err := p.app(ctx, app); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", app, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	errs = append(errs, p.destroyed(ctx))
	if o.App == "" && o.Caches {
		errs = append(errs, p.sharedCache(ctx))
	}
	// Last: it needs room itself.
	for _, app := range names {
		if err := p.repository(ctx, app); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", app, err))
		}
	}
	return errors.Join(errs...)
}

// pruning is one prune.
type pruning struct {
	d      *Deployer
	o      PruneOptions
	m      *measure
	report func(Freed)
}

// turn waits for an app's turn. A watch over what went live goes on.
func (p *pruning) turn(ctx context.Context, app string) (leave func(), err error) {
	return p.d.enter(ctx, app, "a prune", "", func(*ticket) {})
}

func (p *pruning) app(ctx context.Context, app string) error {
	leave, err := p.turn(ctx, app)
	if err != nil {
		return err
	}
	defer leave()
	list, err := p.d.sweepable(app, 0)
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, r := range list {
		gone[r.path] = true
	}
	for _, r := range p.d.oldLogs(app, gone) {
		if !gone[r.path] {
			list = append(list, r)
		}
	}
	if p.o.Caches {
		list = append(list, removable{"free-cache", "caches", p.d.layout(app).ownCache()})
	}
	return p.free(ctx, app, list)
}

// free removes, and reports by kind in the order of their first.
func (p *pruning) free(ctx context.Context, app string, list []removable) error {
	var sums []Freed
	var errs []error
	for _, r := range list {
		if !isThere(r.path) {
			continue
		}
		bytes := p.m.tree(ctx, r.path)
		if !p.o.DryRun {
			if err := p.d.files.RemoveAll(r.op, r.path); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		i := 0
		for i < len(sums) && sums[i].What != r.what {
			i++
		}
		if i == len(sums) {
			sums = append(sums, Freed{App: app, What: r.what})
		}
		sums[i].Count++
		sums[i].Bytes += bytes
	}
	for _, f := range sums {
		p.report(f)
	}
	return errors.Join(errs...)
}

// oldLogs are an app's logs of instances that are not there, or in gone, and
// rotated ones but for the last of each instance.
func (d *Deployer) oldLogs(app string, gone map[string]bool) (list []removable) {
	dir := filepath.Join(d.site.Paths.Logs, app)
	entries, _ := os.ReadDir(dir) // none where it was never deployed
	l := d.layout(app)
	for _, e := range entries {
		id, rest, _ := strings.Cut(e.Name(), ".log")
		if !validID(id) {
			continue
		}
		n, err := strconv.Atoi(cmp.Or(strings.TrimPrefix(rest, "."), "0"))
		instance := l.instance(id)
		if there := isThere(instance) && !gone[instance]; err == nil && (!there || n > 1) {
			list = append(list, removable{"free-log", "logs", filepath.Join(dir, e.Name())})
		}
	}
	return list
}

func (p *pruning) destroyed(ctx context.Context) error {
	if p.o.Destroyed == nil {
		return nil
	}
	var errs []error
	for _, x := range p.d.destroyed() {
		if p.o.App != "" && x.App != p.o.App || time.Since(x.When) < *p.o.Destroyed {
			continue
		}
		leave, err := p.turn(ctx, x.App) // somebody may bring it back now
		if err != nil {
			return err
		}
		list := make([]removable, 0, len(x.places))
		for _, place := range x.places {
			list = append(list, removable{"free-destroyed", "destroyed", place})
		}
		errs = append(errs, p.free(ctx, x.Stamp, list))
		leave()
	}
	return errors.Join(errs...)
}

// sharedCache frees the cache that all apps' installers share, while none installs.
func (p *pruning) sharedCache(ctx context.Context) error {
	list := []removable{{"free-cache", "caches", p.d.sharedCache()}}
	if !isThere(list[0].path) {
		return nil
	}
	if !p.o.DryRun {
		if err := p.d.allSlots(ctx); err != nil {
			return err
		}
		defer p.d.slots.Release(int64(p.d.wide))
	}
	return p.free(ctx, "", list)
}

// slotsPoll is how often a prune looks whether no deploy is under way.
const slotsPoll = 100 * time.Millisecond

// allSlots takes all of the server's slots for deploys, once none is taken. It does
// not stand in line for them: deploys behind it would wait although there are some.
func (d *Deployer) allSlots(ctx context.Context) error {
	tick := time.NewTicker(slotsPoll)
	defer tick.Stop()
	for !d.slots.TryAcquire(int64(d.wide)) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.open.Done():
			return refusedClosing()
		}
	}
	return nil
}

// repository frees what git has twice, and packs anew where that is due.
func (p *pruning) repository(ctx context.Context, app string) error {
	h, ok := p.d.Repositories.(Housekeeper)
	if !ok || !p.d.Repositories.Exists(app) {
		return nil
	}
	due, _, err := h.GCDue(app)
	if err != nil || p.o.DryRun {
		if due {
			p.report(Freed{App: app, What: "git gc", Count: 1})
		}
		return err
	}
	path := p.d.Repositories.Path(app)
	before := newMeasure().tree(ctx, path)
	if err := p.prunePacked(ctx, h, app); err != nil {
		return err
	}
	if due {
		// As one that nobody waits for less than for a person's command.
		if err := p.d.gc(ctx, h, app, true); err != nil {
			return err
		}
	}
	if freed := before - newMeasure().tree(ctx, path); freed > 0 || due {
		p.report(Freed{App: app, What: "git gc", Count: 1, Bytes: max(0, freed)})
	}
	return nil
}

func (p *pruning) prunePacked(ctx context.Context, h Housekeeper, app string) error {
	leave, err := p.turn(ctx, app)
	if err != nil {
		return err
	}
	defer leave()
	return h.PrunePacked(ctx, app)
}
