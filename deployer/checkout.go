package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"scotch/config"
)

// maxSourceConfig bounds the scotch.cfg of a source tree, in bytes.
const maxSourceConfig = 256 << 10

func stack() []byte { return debug.Stack() }

// checkout fills the new instance: the tree at the commit, the interpreter,
// the virtualenv with the dependencies, [app] build, the entry point.
func (op *operation) checkout(ctx context.Context, c Commit, clean bool) (*config.App, *Record, error) {
	op.report.Stage("checkout")
	a, err := op.configure(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if t, ok := op.d.Toolchain.(Preparer); ok {
		done := t.Prepare(ctx, op.app)
		defer func() { // its end is nobody's to wait for, but the server's
			op.d.watchers.Add(1)
			go func() {
				defer op.d.watchers.Done()
				done()
			}()
		}()
	}
	rec := &Record{
		App: op.app, Instance: op.id, Dir: op.dir, Commit: c.ID, Subject: c.Subject,
		By: op.by.Name, Why: op.what, Started: op.started, Root: a.Root, Grace: a.Timeout,
	}
	if err := op.d.placeIsFreeFor(ctx, a, op.report); err != nil {
		return nil, nil, err
	}
	if err := op.d.ensureUser(ctx, a); err != nil {
		return nil, nil, err
	}
	if err := op.makeDirectories(a, rec); err != nil {
		return nil, nil, err
	}
	if err := op.export(ctx, c, a, rec); err != nil {
		return nil, nil, err
	}
	src := filepath.Join(rec.Source, filepath.FromSlash(a.Root))
	if fi, err := os.Stat(src); err != nil || !fi.IsDir() {
		return nil, nil, fmt.Errorf("[app] root is %q, and the commit has no such directory\nadd it, or name another: %s config %s set root=DIRECTORY\nthen %s", a.Root, op.d.SSH, op.app, again(a))
	}
	if err := op.persist(a, src); err != nil {
		return nil, nil, err
	}

	begin := time.Now()
	if rec.Interpreter, err = op.d.Toolchain.Interpreter(ctx, a, src); err != nil {
		return nil, nil, err
	}
	op.report.Step("python", rec.Interpreter.Version+" "+rec.Interpreter.Path+why(rec.Interpreter.Why), since(begin))

	// It is a matter of reading files, so nobody waits for an install to learn that
	// there is none.
	begin = time.Now()
	if rec.EntryPoint, err = op.d.Toolchain.EntryPoint(ctx, a, src); err != nil {
		return nil, nil, op.noEntryPoint(a, src, err)
	}
	found := since(begin)

	err = op.withKey(a, func(a *config.App) error { return op.virtualenv(ctx, a, rec, src, clean) })
	if err != nil {
		return nil, nil, err
	}

	op.report.Step("app", rec.EntryPoint.String()+why(rec.EntryPoint.Why), found)
	op.readProcfile(a, src)
	op.advise(ctx, a, rec, src)

	collects := op.collects(a, rec, src)
	if a.Build != "" || collects {
		if err := op.d.ownTree(a, rec.Source); err != nil {
			return nil, nil, err
		}
	}
	if a.Build != "" {
		err := op.withKey(a, func(a *config.App) error { return op.command(ctx, a, rec, "build", a.Build, a.BuildEnv) })
		if err != nil {
			return nil, nil, err
		}
	}
	if collects {
		if err := op.collectStatic(ctx, a, rec, src); err != nil {
			return nil, nil, err
		}
	}
	if err := op.seal(a, rec); err != nil {
		return nil, nil, err
	}
	if err := op.shareStatic(a, rec); err != nil {
		return nil, nil, err
	}
	return a, rec, op.sync(a, rec)
}

// sync puts what the checkout has made onto the disk, on each of the file systems
// where the configuration has it.
func (op *operation) sync(a *config.App, rec *Record) error {
	places := []struct{ name, path string }{{"sync-instance", op.dir}, {"sync-instance/source", rec.Source}, {"sync-instance/venv", rec.Venv}}
	if op.newData {
		places = append(places, struct{ name, path string }{"sync-instance/data", a.DataPath})
	}
	synced := map[uint64]bool{}
	for _, p := range places {
		fi, err := os.Stat(p.path)
		if err != nil {
			return err
		}
		if dev := fi.Sys().(*syscall.Stat_t).Dev; !synced[dev] {
			synced[dev] = true
			if err := op.d.files.SyncFS(p.name, p.path); err != nil {
				return err
			}
		}
	}
	return nil
}

func why(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// configure reads the app's configuration as this commit makes it.
func (op *operation) configure(ctx context.Context, c Commit) (*config.App, error) {
	// [app] root is for the app's own file to say, so it is known before the
	// tree's scotch.cfg is.
	o := config.AppOptions{InstanceID: op.id}
	base, err := op.d.site.App(op.app, o)
	if err != nil {
		return nil, err
	}
	o.SourceName, o.Live = path.Join(base.Root, "scotch.cfg"), op.d.isLive
	o.Source, err = op.d.Source.ReadFile(ctx, op.app, c, o.SourceName, maxSourceConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %q from the commit: %w", o.SourceName, err)
	}
	return op.d.site.App(op.app, o)
}

// isLive tells whether an app has an instance that serves, and so holds its places.
func (d *Deployer) isLive(app string) bool { return d.layout(app).liveID() != "" }

// makeDirectories makes what an instance has beside its source and venv. Where
// the configuration puts a part elsewhere, the instance links to it, so that
// <instances>/NAME/current/run leads to the socket however it is configured.
func (op *operation) makeDirectories(a *config.App, rec *Record) error {
	if err := op.d.checkUser(a); err != nil {
		return err
	}
	f, mode := op.d.files, a.DirMode
	if err := f.MkdirAll("make-data", a.DataPath, mode); err != nil {
		return err
	}
	if err := f.MkdirAll("make-logs", filepath.Dir(op.d.logPath(op.app, op.id)), mode); err != nil {
		return err
	}
	run := filepath.Join(op.dir, "run")
	if op.elsewhere(a, a.RunPath) {
		if err := f.Symlink("link-run", a.RunPath, run); err != nil {
			return err
		}
		run = a.RunPath
	}
	if err := op.newPlace("make-run", "run_path", run); err != nil {
		return err
	}
	if err := op.d.own(a, run, true); err != nil {
		return err
	}
	if err := op.ownData(a); err != nil {
		return err
	}
	rec.Source = filepath.Join(op.l.sources(), op.id)
	if op.elsewhere(a, a.SourcePath) {
		rec.Source = a.SourcePath
	}
	if err := op.newPlace("make-source", "src_path", rec.Source); err != nil {
		return err
	}
	if err := op.checkReach(a, rec); err != nil {
		return err
	}
	return op.link("link-source", rec.Source, "src")
}

// newPlace makes a directory of the new instance. One that is there already is
// somebody else's, another app's perhaps: it is refused and not touched, now or
// when the deploy is taken back.
func (op *operation) newPlace(name, key, path string) error {
	err := op.d.files.Mkdir(name, path, op.d.site.DirMode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("[app] %s leads to %q, which is there already\nanother app uses it: give each app a path of its own, with ${name} and ${instance_id} in it", key, path)
	}
	if err == nil && !within(op.dir, path) && !within(op.l.dir, path) {
		op.outside = append(op.outside, path)
	}
	return err
}

// elsewhere tells whether the configuration puts a part of the instance
// outside its directory.
func (op *operation) elsewhere(a *config.App, p string) bool {
	return !within(a.InstancePath, p)
}

func within(dir, p string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// link makes the instance's link to a part of it that lives in a store,
// relative where both are below the app's directory.
func (op *operation) link(name, target, part string) error {
	if within(op.l.dir, target) {
		if dir, err := filepath.EvalSymlinks(op.dir); err == nil && filepath.Dir(dir) == op.l.dir {
			if rel, err := filepath.Rel(op.dir, target); err == nil {
				target = rel
			}
		}
	}
	return op.d.files.Symlink(name, target, filepath.Join(op.dir, part))
}

func (op *operation) export(ctx context.Context, c Commit, a *config.App, rec *Record) error {
	if err := op.d.files.before("export"); err != nil {
		return err
	}
	begin := time.Now()
	stats, err := op.d.Source.Export(ctx, op.app, c, rec.Source)
	if err != nil {
		return fmt.Errorf("copying the source: %w", err)
	}
	op.report.Step("source", fmt.Sprintf("%s, %s", plural(stats.Files, "file"), size(stats.Bytes)), since(begin))
	return nil
}

// command runs a command line that the app wrote itself ([app] build,
// release), by a shell, as the app's user, in its source.
func (op *operation) command(ctx context.Context, a *config.App, rec *Record, name, line string, extra []config.Var) error {
	if err := op.d.files.before("run-" + name); err != nil {
		return err
	}
	i := instanceFor(a, rec)
	out := op.report.Output()
	defer out.Close()
	title := name
	if name == "release" && op.releaseFrom != "" {
		title = "release (" + op.releaseFrom + ")"
	}
	op.report.Step(title, line, -1)
	begin := time.Now()
	timeout, limits := a.StepTimeout, BuildLimits(a)
	if name == "release" {
		timeout, limits = a.ReleaseTimeout, AppLimits(a)
	}
	err := op.d.Runner.Run(ctx, Command{
		Args: []string{"/bin/sh", "-c", line}, Dir: i.Source, Env: i.environment(extra),
		User: a.User, Group: a.Group, Stdout: out, Stderr: out, Timeout: timeout, Umask: op.d.site.Umask,
		App: a.Name, Limits: limits, Writes: op.buildWrites(a, rec),
	})
	out.Close()
	if err != nil {
		var exit *ExitError
		if errors.As(err, &exit) {
			exit.Name = "the " + name + " command"
			next := "mend it and " + op.again(a)
			if !out.silent() {
				next = "its output above says why; " + next
			}
			return fmt.Errorf("%w\n%s", err, next)
		}
		var late *TimeoutError
		if errors.As(err, &late) {
			late.Name = "the " + name + " command"
			key := "timeout"
			if name == "release" {
				key = "release_timeout"
			}
			return fmt.Errorf("%w\n[deploy] %s says how long it may take", err, key)
		}
		return err
	}
	op.report.Step(name, "done", since(begin))
	return nil
}
