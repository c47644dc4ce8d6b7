package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"scotch/config"
)

// Create makes an app: its file, from a commented template, and its bare
// repository. An app that is there already stays as it is, and is no error
// where must is false.
func (d *Deployer) Create(ctx context.Context, app string, must bool) error {
	if err := config.ValidName(app); err != nil {
		return err
	}
	if app == "destroyed" {
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
	if err := d.begin(); err != nil {
		return nil, err
	}
	out, err := d.queue.enter(ctx, app, title, "", func(*ticket) {})
	if err != nil {
		d.work.Done()
		return nil, err
	}
	return func() { out(); d.work.Done() }, nil
}

// Restart makes a new instance of the live release, with the configuration as
// it is now, and switches to it as a deploy does. It shares the release's
// source and virtualenv. A stopped app is started by it.
func (d *Deployer) Restart(ctx context.Context, app, by string, out io.Writer) error {
	return d.renew(ctx, app, by, "restart", out)
}

// StartApp starts a stopped app; one that runs is left alone.
func (d *Deployer) StartApp(ctx context.Context, app, by string, out io.Writer) error {
	if _, err := os.Stat(d.layout(app).stopped()); err != nil {
		if _, err := d.liveRecord(app); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s runs already\n", app)
		return nil
	}
	return d.renew(ctx, app, by, "start", out)
}

func (d *Deployer) renew(ctx context.Context, app, by, what string, out io.Writer) error {
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
	rec := *live
	rec.Instance, rec.Dir, rec.Why, rec.Started = op.id, op.dir, op.what, op.started
	a, err := op.d.configureTree(live, op.id)
	if err != nil {
		return err
	}
	rec.Grace = a.Timeout
	store := rec.Source
	if err := op.makeDirectories(a, &rec); err != nil {
		return err
	}
	// The tree is the release's own, not a new one.
	if err := os.Remove(rec.Source); err != nil {
		return err
	}
	rec.Source = store
	op.outside = slices.DeleteFunc(op.outside, func(p string) bool { return p == a.SourcePath })
	if err := op.link("link-source", store, "src"); err != nil {
		return err
	}
	if err := op.linkVenv(a, rec.Venv); err != nil {
		return err
	}
	if _, err := op.register(ctx, a, &rec, nil); err != nil {
		return &StageError{"register", err}
	}
	op.live(&rec)
	return nil
}

// configureTree reads the app's configuration for an instance of a release
// whose source is there already; an empty id is that of the live one.
func (d *Deployer) configureTree(live *Record, id string) (*config.App, error) {
	name := filepath.Join(live.Source, filepath.FromSlash(live.Root), "scotch.cfg")
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return d.site.App(live.App, config.AppOptions{InstanceID: id})
	}
	return d.site.App(live.App, config.AppOptions{InstanceID: id, Source: data, SourceName: "scotch.cfg"})
}

// liveRecord is the record of what an app serves.
func (d *Deployer) liveRecord(app string) (*Record, error) {
	if _, err := d.app(app); err != nil {
		return nil, err
	}
	live, err := d.layout(app).live()
	if errors.Is(err, os.ErrNotExist) {
		return nil, &RefusedError{Reason: fmt.Sprintf("app %q was never deployed", app), Hint: "push to it first: git push scotch main"}
	}
	return live, err
}

// StopApp ends an app's processes, after the requests under way. It answers 503
// with a page from then on, also after a reboot, until StartApp or a deploy.
func (d *Deployer) StopApp(ctx context.Context, app string) error {
	if _, err := d.liveRecord(app); err != nil {
		return err
	}
	leave, err := d.turn(ctx, app, "stopping it")
	if err != nil {
		return err
	}
	defer leave()
	l := d.layout(app)
	if err := d.files.Write("stop-app", l.stopped(), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o644); err != nil {
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
	return m.end(ctx)
}

// Destroy takes an app away: its processes, the web server's files, and then
// everything of it, renamed into destroyed/ beside where it was, or removed
// with purge. It returns where the app's file went.
func (d *Deployer) Destroy(ctx context.Context, app string, purge bool) (string, error) {
	a, appErr := d.app(app)
	if appErr != nil && !errors.As(appErr, new(config.Errors)) {
		return "", appErr
	}
	leave, err := d.turn(ctx, app, "destroying it")
	if err != nil {
		return "", err
	}
	defer leave()
	l := d.layout(app)
	if live, err := l.live(); err == nil {
		if err := d.unpublish(ctx, live); err != nil {
			return "", err
		}
		if live.Plan != nil {
			for _, f := range live.Plan.Files {
				if !within(l.dir, f.Path) {
					d.files.Remove("destroy-showcase", f.Path)
				}
			}
		}
	}
	if err := d.stopLive(d.ctx, app); err != nil {
		return "", err
	}
	d.endRetiring(app)
	outside, err := l.outside()
	if err != nil {
		return "", err
	}
	stamp := app + "-" + time.Now().UTC().Format("20060102T150405.000")
	file, err := d.site.AppFile(app)
	if err != nil {
		return "", err
	}
	places := []string{l.dir, d.Repositories.Path(app), filepath.Join(d.site.Paths.Logs, app)}
	// A data directory that does not carry the app's name may be others' too.
	if a != nil && filepath.Base(a.DataPath) == app {
		places = append(places, a.DataPath)
	}
	// The app's file goes last: until then it can be destroyed again.
	places = append(places, file)
	var kept string
	var errs []error
	for _, p := range outside {
		errs = append(errs, d.files.RemoveAll("destroy-outside", p))
	}
	for i, place := range places {
		to, err := d.putAway(place, stamp, purge)
		errs = append(errs, err)
		if i == len(places)-1 {
			kept = to
		}
	}
	d.mu.Lock()
	delete(d.apps, app)
	d.mu.Unlock()
	return kept, errors.Join(errs...)
}

// outside lists what the app's instances have outside its directory: what a
// deploy makes anew, so it is not kept.
func (l layout) outside() ([]string, error) {
	ids, err := l.instanceIDs()
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, id := range ids {
		if place, err := os.Readlink(l.instance(id)); err == nil {
			paths = append(paths, place)
		}
		rec, err := readRecord(filepath.Join(l.instance(id), recordName))
		if err != nil {
			continue
		}
		paths = append(paths, rec.Outside...)
		if !within(l.dir, rec.Venv) {
			paths = append(paths, filepath.Dir(rec.Venv))
		}
	}
	return paths, nil
}

func (d *Deployer) putAway(place, stamp string, purge bool) (string, error) {
	if _, err := os.Lstat(place); err != nil {
		return "", nil
	}
	if purge {
		return "", d.files.RemoveAll("purge-app", place)
	}
	// Not destroyed/ inside apps-enabled, where it would be looked at.
	dir := filepath.Join(filepath.Dir(place), "destroyed")
	if err := d.files.MkdirAll("make-destroyed", dir, 0o700); err != nil {
		return "", err
	}
	to := filepath.Join(dir, stamp)
	if ext := filepath.Ext(place); ext == ".cfg" {
		to += ext
	}
	return to, d.files.Rename("destroy-app", place, to)
}

func (d *Deployer) endRetiring(app string) {
	d.mu.Lock()
	var all []*member
	for _, m := range d.state(app).retiring {
		all = append(all, m)
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(d.ctx, quickStop)
	defer cancel()
	for _, m := range all {
		m.end(ctx)
	}
}

// Exec runs a one-off command in the live instance's source, virtualenv and
// environment, and returns its exit status.
func (d *Deployer) Exec(ctx context.Context, app string, args []string, in io.Reader, out, errOut io.Writer) (int, error) {
	live, err := d.liveRecord(app)
	if err != nil {
		return 0, err
	}
	a, err := d.configureTree(live, "")
	if err != nil {
		return 0, err
	}
	if err := d.begin(); err != nil {
		return 0, err
	}
	defer d.work.Done()
	i := instanceFor(a, live)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(d.ctx, func() { cancel(context.Cause(d.ctx)) })
	defer stop()
	err = d.Runner.Run(ctx, Command{
		Args: args, Dir: i.Source, Env: i.environment(nil), User: a.User, Group: a.Group,
		Stdin: in, Stdout: out, Stderr: errOut, Umask: d.site.Umask,
	})
	var exit *ExitError
	if errors.As(err, &exit) && exit.Status >= 0 {
		return exit.Status, nil
	}
	if errors.Is(err, ErrNoProgram) {
		// As a shell has it.
		fmt.Fprintf(errOut, "scotch: %s\n", FirstLine(err.Error()))
		return 127, nil
	}
	return 0, err
}
