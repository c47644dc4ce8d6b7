package deployer

import (
	"context"
	"errors"
	"time"
)

// Housekeeper is an extra ability of Repositories: it packs a repository anew,
// which git is kept from doing by itself at a push.
type Housekeeper interface {
	// GCDue tells whether there are more loose objects or packs than git itself
	// takes for too many (gc.auto, gc.autoPackLimit), and whether there are many
	// times as many. It is cheap: it counts names.
	GCDue(app string) (due, urgent bool, err error)
	// GC packs the repository anew, at low priority. Pushes and fetches may be
	// under way; an export must not. When ctx ends it is left as it was.
	GC(ctx context.Context, app string) error
	// PrunePacked removes loose objects that are in packs too. It writes nothing.
	PrunePacked(ctx context.Context, app string) error
}

// gcTimeout ends one that does not end.
const gcTimeout = time.Hour

// errGaveWay ends a gc for whoever waits behind it.
var errGaveWay = errors.New("somebody waits for the app's turn")

// collectGarbage packs an app's repository anew where that is due: in the app's
// turn, because it would break an export; one repository at a time; and giving way
// to whoever comes, unless it is long overdue.
func (d *Deployer) collectGarbage(app string) {
	h, ok := d.Repositories.(Housekeeper)
	if !ok {
		return
	}
	due, urgent, err := h.GCDue(app)
	if err != nil {
		d.log.WithField("app", app).Warnf("looking at its repository: %v", err)
	}
	if !due {
		return
	}
	if err := d.gc(d.ctx, h, app, urgent); err != nil && d.ctx.Err() == nil && !errors.Is(err, errGaveWay) {
		d.log.WithField("app", app).Warnf("packing its repository anew: %v", err)
	}
}

func (d *Deployer) gc(ctx context.Context, h Housekeeper, app string, urgent bool) error {
	select {
	case d.gcLock <- struct{}{}:
		defer func() { <-d.gcLock }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeout(ctx, gcTimeout)
	defer stop()
	t := &ticket{what: "packing its repository anew", since: time.Now(), turn: make(chan struct{}), quiet: !urgent}
	if !urgent {
		t.yield = func() { cancel(errGaveWay) }
	}
	leave, err := d.queue.join(ctx, app, t, func(*ticket) {})
	if err != nil {
		return err
	}
	defer leave()
	if !d.Repositories.Exists(app) {
		return nil // destroyed meanwhile
	}
	begin := time.Now()
	if err := h.GC(ctx, app); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	d.log.WithField("app", app).Infof("packed its repository anew in %s", since(begin))
	return nil
}
