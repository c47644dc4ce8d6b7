package deployer

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"scotch/config"
)

// Rebuild makes a fresh virtualenv for the live release, with the packages that
// it recorded, and switches to a new instance with it. It is for after an
// upgrade of Python.
func (d *Deployer) Rebuild(ctx context.Context, app string, by Actor, out io.Writer) error {
	if _, err := d.liveRecord(app); err != nil {
		return err
	}
	return d.operate(ctx, task{
		app: app, what: "rebuild", by: by, title: "a rebuild", heavy: true,
		run: func(ctx context.Context, op *operation) error { return op.rebuild(ctx) },
	}, out)
}

func (op *operation) rebuild(ctx context.Context) error {
	d := op.d
	live, err := d.liveRecord(op.app)
	if err != nil {
		return err
	}
	op.report.Headline("%s: rebuilding v%d, %s %q", op.app, live.Release, short(live.Commit), live.Subject)
	op.report.Stage("checkout")
	rec := *live
	a, err := d.configureTree(live, config.AppOptions{InstanceID: op.id})
	if err != nil {
		return err
	}
	if err := op.sameUser(a, live); err != nil {
		return err
	}
	if err := d.ensureUser(ctx, a); err != nil {
		return &StageError{"checkout", err}
	}
	src := filepath.Join(live.Source, filepath.FromSlash(live.Root))
	begin := time.Now()
	if rec.Interpreter, err = d.Toolchain.Interpreter(ctx, a, src); err != nil {
		return &StageError{"checkout", err}
	}
	op.report.Step("python", rec.Interpreter.Version+" "+rec.Interpreter.Path+why(rec.Interpreter.Why), since(begin))
	op.pinned = live.Packages
	err = op.withKey(a, func(a *config.App) error { return op.virtualenv(ctx, a, &rec, src, true) })
	if err != nil {
		return &StageError{"checkout", err}
	}
	if err := op.renewFrom(ctx, &rec, nil); err != nil {
		return err
	}
	op.live(op.nowLive())
	return nil
}

// pythonChanged tells why what is live should be rebuilt, "" for no reason.
func (d *Deployer) pythonChanged(ctx context.Context, live *Record) string {
	c, ok := d.Toolchain.(Checker)
	if !ok || live.Venv == "" {
		return ""
	}
	a := &config.App{Name: live.App}
	if live.Plan.runs() {
		a.User, a.Group = live.Plan.Process.User, live.Plan.Process.Group
	}
	why, err := c.Changed(ctx, a, live.Interpreter, live.Venv)
	if err != nil {
		d.log.WithField("app", live.App).Warnf("looking at its Python: %v", err)
		return ""
	}
	return why
}

// rebuildChanged rebuilds, one after the other and behind the caller's back, the
// apps whose Python changed under their virtualenvs. One that is stopped stays so:
// its own start rebuilds it.
func (d *Deployer) rebuildChanged(apps []string) {
	for _, app := range apps {
		l := d.layout(app)
		if d.ctx.Err() != nil || l.isStopped() {
			continue
		}
		live, err := l.live()
		if err != nil {
			continue
		}
		why := d.pythonChanged(d.ctx, live)
		if why == "" {
			continue
		}
		log := d.log.WithField("app", app)
		log.Warnf("rebuilding it: %s", why)
		if err := d.Rebuild(d.ctx, app, itself(), io.Discard); err != nil {
			log.Errorf("%v", fmt.Errorf("rebuilding it: %w\nsee `logs %s --deploy`", err, app))
		}
	}
}
