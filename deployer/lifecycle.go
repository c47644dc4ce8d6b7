package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"scotch/config"
)

// Create makes an app: its file, from a commented template, and its bare
// repository. An app that is there already stays as it is, and is no error
// where must is false.
func (d *Deployer) Create(ctx context.Context, app string, must bool) error {
	if err := config.ValidName(app); err != nil {
		return err
	}
	if app == destroyedName {
		return &RefusedError{Reason: `no app can be called "destroyed"`, Hint: "that is where apps go that are destroyed; choose another name"}
	}
	leave, err := d.turn(ctx, app, "creating it")
	if err != nil {
		return err
	}
	defer leave()
	file, err := d.site.AppFile(app)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); err == nil {
		if must && d.Repositories.Exists(app) {
			return &RefusedError{Reason: fmt.Sprintf("app %q exists already", app), Hint: "its file is " + file}
		}
	} else {
		if err := d.files.MkdirAll("make-apps", filepath.Dir(file), d.site.DirMode); err != nil {
			return err
		}
		if err := d.files.Write("write-app", file, config.AppTemplate(app), 0o600); err != nil {
			return err
		}
	}
	a, err := d.app(app)
	if err != nil {
		return err
	}
	return d.Repositories.Create(ctx, app, a.Branch)
}

// turn waits for the app's turn without a log of its own.
func (d *Deployer) turn(ctx context.Context, app, title string) (leave func(), err error) {
	if leave, err = d.turnOfAny(ctx, app, title); err != nil {
		return nil, err
	}
	if err := d.spared(app); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// turnOfAny is turn for what may be done with an app whose destroy failed.
func (d *Deployer) turnOfAny(ctx context.Context, app, title string) (leave func(), err error) {
	if err := d.begin(); err != nil {
		return nil, err
	}
	out, err := d.enterAny(ctx, app, title, "", func(*ticket) {})
	if err != nil {
		d.work.Done()
		return nil, err
	}
	return func() { out(); d.work.Done() }, nil
}

// endWatch ends the watch over an app, whose turn the caller has, for good.
func (d *Deployer) endWatch(app, by string) {
	if old := d.endVigil(app, by); old != nil {
		d.retire(app, old)
	}
}

// Restart makes a new instance of the live release, with the configuration as
// it is now, and switches to it as a deploy does. It shares the release's
// source and virtualenv. A stopped app is started by it.
func (d *Deployer) Restart(ctx context.Context, app string, by Actor, out io.Writer) error {
	return d.renew(ctx, app, by, "restart", out)
}

// StartApp starts a stopped app; one that runs is left alone.
func (d *Deployer) StartApp(ctx context.Context, app string, by Actor, out io.Writer) error {
	live, err := d.liveRecord(app)
	if err != nil {
		return err
	}
	if !d.layout(app).isStopped() {
		// One that was switched to while [plugins] had no server for it never ran.
		if live.Plan == nil || live.Plan.runs() {
			fmt.Fprintf(out, "%s runs already\n", app)
			return nil
		}
	} else if why := d.pythonChanged(ctx, live); why != "" {
		fmt.Fprintf(out, "%s is rebuilt first: %s\n", app, why)
		return d.Rebuild(ctx, app, by, out)
	}
	return d.renew(ctx, app, by, "start", out)
}

func (d *Deployer) renew(ctx context.Context, app string, by Actor, what string, out io.Writer) error {
	if _, err := d.liveRecord(app); err != nil {
		return err
	}
	return d.operate(ctx, task{
		app: app, what: what, by: by, title: "a " + what, heavy: true,
		run: func(ctx context.Context, op *operation) error { return op.renew(ctx) },
	}, out)
}

// renew makes the new instance of a restart.
func (op *operation) renew(ctx context.Context) error {
	live, err := op.d.liveRecord(op.app)
	if err != nil {
		return err
	}
	op.report.Headline("%s: %sing v%d, %s %q", op.app, op.what, live.Release, short(live.Commit), live.Subject)
	if err := op.renewFrom(ctx, live, nil); err != nil {
		return err
	}
	op.live(op.nowLive())
	return nil
}

// renewFrom makes a new instance of a release, which shares its source and its
// virtualenv, and switches to it.
func (op *operation) renewFrom(ctx context.Context, base *Record, refs []RefUpdate) error {
	if err := op.d.wholeVenv(base); err != nil {
		return err
	}
	if err := op.d.fitVenv(ctx, base); err != nil {
		return err
	}
	a, err := op.d.configureTree(base, config.AppOptions{InstanceID: op.id, File: op.file, Recorded: op.recorded, OtherServer: op.otherServer})
	if err != nil {
		return err
	}
	rec := *base
	rec.Instance, rec.Dir, rec.Why, rec.Started = op.id, op.dir, op.what, op.started
	rec.Grace = a.Timeout
	for _, r := range refs {
		if strings.HasPrefix(r.Ref, "refs/heads/") {
			rec.Ref = r.Ref
		}
	}
	if err := op.sameUser(a, base); err != nil {
		return err
	}
	if err := op.share(a, &rec); err != nil {
		return err
	}
	if _, err := op.register(ctx, a, &rec, refs); err != nil {
		return &StageError{"register", err}
	}
	return nil
}

// share makes the directories of a new instance of a release that is there
// already, with links to its source and its virtualenv.
func (op *operation) share(a *config.App, rec *Record) error {
	store := rec.Source
	if err := op.makeDirectories(a, rec); err != nil {
		return err
	}
	// The tree is the release's own, not a new one.
	if err := op.d.files.Remove("spare-source", rec.Source); err != nil {
		return err
	}
	rec.Source = store
	op.outside = slices.DeleteFunc(op.outside, func(p string) bool { return p == a.SourcePath })
	if err := op.link("link-source", store, "src"); err != nil {
		return err
	}
	if err := op.shareStatic(a, rec); err != nil {
		return err
	}
	return op.linkVenv(a, rec.Venv)
}

// configureTree reads the app's configuration for an instance of a release
// whose source is there already; without an InstanceID that of the live one.
func (d *Deployer) configureTree(live *Record, o config.AppOptions) (*config.App, error) {
	data, err := treeConfig(live)
	if err != nil {
		return nil, err
	}
	o.Source, o.SourceName = data, "scotch.cfg"
	if o.InstanceID != "" { // a new instance
		o.Live = d.isLive
	}
	return d.site.App(live.App, o)
}

// treeConfig reads the scotch.cfg of a release's source, nil where it has none.
// The app's build may have put a link or a pipe there: what lies outside the
// tree is not read.
func treeConfig(live *Record) ([]byte, error) {
	tree, err := os.OpenRoot(live.Source)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	f, err := tree.OpenFile(filepath.Join(filepath.FromSlash(live.Root), "scotch.cfg"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%q is no regular file", f.Name()))
	}
	return io.ReadAll(io.LimitReader(f, maxSourceConfig))
}

// liveRecord is the record of what an app serves.
func (d *Deployer) liveRecord(app string) (*Record, error) {
	if _, err := d.app(app); err != nil {
		return nil, err
	}
	if err := d.spared(app); err != nil {
		return nil, err
	}
	return d.serving(app)
}

// serving is liveRecord, whatever the app's file says, or if it is gone.
func (d *Deployer) serving(app string) (*Record, error) {
	live, err := d.layout(app).live()
	if err == nil {
		return live, nil
	}
	if damage := d.damaged(app, err); damage != nil {
		return nil, damage
	}
	return nil, &RefusedError{Reason: fmt.Sprintf("app %q was never deployed", app), Hint: "push to it first: git push scotch main"}
}

// StopApp ends an app's processes, after the requests under way. It answers 503
// with a page from then on, also after a reboot, until StartApp or a deploy.
func (d *Deployer) StopApp(ctx context.Context, app string) error {
	if err := d.known(app); err != nil {
		return err
	}
	if _, err := d.serving(app); err != nil {
		return err
	}
	leave, err := d.turn(ctx, app, "stopping it")
	if err != nil {
		return err
	}
	defer leave()
	d.endWatch(app, "stopping it")
	l := d.layout(app)
	if err := d.files.Write("stop-app", l.stopped(), []byte(l.liveID()+"\n"), 0o644); err != nil {
		return err
	}
	return d.stopLive(d.ctx, app)
}

// stopLive drains and ends the live instance's process.
func (d *Deployer) stopLive(ctx context.Context, app string) error {
	d.mu.Lock()
	s := d.state(app)
	m := s.live
	s.live = nil
	d.mu.Unlock()
	if m == nil {
		return nil
	}
	m.letGo()
	d.drain(ctx, m)
	if err := m.end(ctx); err != nil {
		d.mu.Lock()
		s.live = m // it runs on
		d.mu.Unlock()
		return err
	}
	return nil
}
