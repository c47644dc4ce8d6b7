package deployer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"scotch/config"
)

// publication is a change of the web server's files that a switch is about to
// need. It holds the server-wide lock until unlock.
type publication struct {
	d    *Deployer
	what string // for the report
	// before is what the changed files held, nil where they did not exist.
	before map[string][]byte
	order  []string
	modes  map[string]fs.FileMode
	loaded bool // the web server was told to read them
	// overdue tells that it was to be told before: reloadMark was there.
	overdue bool
}

func (p *publication) unlock() { p.d.unlockWeb() }

// Logger is an extra ability of a WebServer: the files that it appends to for
// scotch. They are made, empty and for their owner alone, before its
// configuration is tested, and rotated with the apps' logs.
type Logger interface{ Logs() []string }

// makeLogs makes the web server's logs where they are missing.
func (d *Deployer) makeLogs() error {
	for _, path := range d.webLogs() {
		if isThere(path) {
			continue
		}
		if err := d.files.MkdirAll("make-logs", filepath.Dir(path), d.site.DirMode); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deployer) webLogs() []string {
	if l, ok := d.WebServer.(Logger); ok {
		return l.Logs()
	}
	return nil
}

// webMoment is how long nobody is told of the wait for the web server's files.
const webMoment = time.Second

// webHolder is who has the web server's files, for those who wait.
type webHolder struct {
	app   string // "" for the server's own start
	since time.Time
}

func (h *webHolder) String() string {
	return fmt.Sprintf("%s, which has them since %s", cmp.Or(h.app, "the server's start"), time.Since(h.since).Round(time.Second))
}

// lockWeb takes the web server's files for the caller alone, unless ctx ends
// first. Where that takes longer than a moment tell, if there is one, is told
// behind which app the caller, app, waits.
func (d *Deployer) lockWeb(ctx context.Context, app string, tell *Report) error {
	moment := time.NewTimer(webMoment)
	defer moment.Stop()
	for {
		select {
		case d.webLock <- struct{}{}:
			d.webHolder.Store(&webHolder{app, time.Now()})
			return nil
		case <-moment.C:
			if h := d.webHolder.Load(); h != nil && tell != nil {
				tell.Note("waiting for %s's files, behind %s", d.webName(), h)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *Deployer) unlockWeb() {
	d.webHolder.Store(nil)
	<-d.webLock
}

// render asks the web server for the app's files, and notes in the record where
// on the web the app is to be found.
func (d *Deployer) render(a *config.App, l layout, rec *Record) (err error) {
	rec.WebFiles, err = d.WebServer.Render(d.route(a, l, rec))
	rec.URL, rec.Domains, rec.URLPrefix = d.WebServer.URL(a), a.Domains, a.URLPrefix
	return err
}

// between renders the web server's files for the moment in which current is renamed
// from one instance to another whose socket has another name or protocol, after a
// change of [plugins]. Either one's own files name a socket by way of current that is
// not there for that moment. These are the new one's, but lead to the old instance by
// its own directory: they are published first, and the new one's once it is live.
func (op *operation) between(a *config.App, rec, old *Record) (err error) {
	d := op.d
	if d.oneDoor(old, rec) {
		return nil
	}
	r := d.route(a, op.l, rec)
	r.Socket, r.Protocol = old.Plan.Socket, old.Plan.Protocol
	op.meanwhile, err = d.WebServer.Render(r)
	return err
}

// oneDoor tells whether the web server finds both instances in the same way, by the
// link current, or has not both to find.
func (d *Deployer) oneDoor(old, rec *Record) bool {
	return old == nil || !old.Plan.runs() || !rec.Plan.runs() || d.liveSocket(old) == d.liveSocket(rec) && old.Plan.Protocol == rec.Plan.Protocol
}

// publish makes the web server's files those given, of a release that takes the place
// of old, and where they differ from what is on disk has the server check all of its
// configuration and reload it. tell is told of a long wait. Nothing differs at most deploys: a switch needs no reload, for the
// files name the link current. The caller unlocks the result.
func (d *Deployer) publish(ctx context.Context, rec *Record, files []File, old *Record, tell *Report) (p *publication, err error) {
	base, err := d.WebServer.Base()
	if err != nil {
		return nil, err
	}
	if err := d.lockWeb(ctx, rec.App, tell); err != nil {
		return nil, err
	}
	p = &publication{d: d, what: "switched", before: map[string][]byte{}, modes: map[string]fs.FileMode{}}
	defer func() {
		if err != nil {
			d.unlockWeb()
		}
	}()
	if err := d.checkClaims(rec.App, rec.Domains, rec.URLPrefix); err != nil {
		return nil, err
	}
	for _, f := range append(base, files...) {
		if err := p.put(f); err != nil {
			return nil, errors.Join(err, p.undo(ctx))
		}
	}
	if old != nil {
		if err := p.drop(old.WebFiles, files); err != nil {
			return nil, errors.Join(err, p.undo(ctx))
		}
	}
	if off(d.WebServer) != nil {
		p.what = p.unpublished()
		if len(p.order) > 0 {
			d.reloaded()
		}
		return p, nil
	}
	if len(p.order) == 0 {
		return p, nil
	}
	p.what = "configured, switched"
	if err := p.testAndReload(ctx, p.order); err != nil {
		return nil, errors.Join(err, p.undo(ctx))
	}
	return p, nil
}

// turn publishes other contents of the same files, within one publication. What
// it returns is undone by itself; the lock stays p's.
func (p *publication) turn(ctx context.Context, files []File) (*publication, error) {
	q := &publication{d: p.d, before: map[string][]byte{}, modes: map[string]fs.FileMode{}}
	for _, f := range files {
		if err := q.put(f); err != nil {
			return nil, errors.Join(err, q.undo(ctx))
		}
	}
	if len(q.order) == 0 {
		return q, nil
	}
	if err := q.testAndReload(ctx, q.order); err != nil {
		return nil, errors.Join(err, q.undo(ctx))
	}
	return q, nil
}

// put writes a file where it differs from what is there.
func (p *publication) put(f File) error {
	have, err := os.ReadFile(f.Path)
	if err == nil && bytes.Equal(have, f.Data) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := p.d.ofThisSite(f.Path, have); err != nil {
		return err
	}
	if err := p.d.files.MkdirAll("make-web-directory", filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	if err := p.remember(f.Path, have, err == nil, f.Mode); err != nil {
		return err
	}
	return p.d.files.Write("write-web-file", f.Path, f.Data, f.Mode)
}

// remember is called before a file is changed.
func (p *publication) remember(path string, data []byte, existed bool, mode fs.FileMode) error {
	if len(p.order) == 0 {
		p.overdue = isThere(p.d.reloadMark())
		if err := p.d.toReload(); err != nil {
			return err
		}
	}
	p.order = append(p.order, path)
	p.modes[path] = mode
	p.before[path] = nil
	if existed {
		p.before[path] = append([]byte{}, data...)
	}
	return nil
}

// reloadMark is there from before the first change of the web server's files until
// it has read them: where a crash comes between, the files may agree with what is
// live, and the web server answers by others.
func (d *Deployer) reloadMark() string { return filepath.Join(d.site.Paths.Run, "reload.json") }

func (d *Deployer) toReload() error {
	if isThere(d.reloadMark()) {
		return nil
	}
	if err := d.files.MkdirAll("make-run-directory", d.site.Paths.Run, d.site.DirMode); err != nil {
		return err
	}
	return d.files.Write("mark-reload", d.reloadMark(), []byte("{}\n"), 0o600)
}

func (d *Deployer) reloaded() {
	if err := d.files.Remove("unmark-reload", d.reloadMark()); err != nil {
		d.log.Warnf("%s is reloaded once more by the next start: %v", d.webName(), err)
	}
}

// drop removes files that the app no longer needs: those of its own, and then
// those that it shared, where nobody else needs them.
func (p *publication) drop(had, has []File) error {
	var shared []File
	for _, f := range had {
		if slices.ContainsFunc(has, func(g File) bool { return g.Path == f.Path }) {
			continue
		}
		if f.SharedBy != "" {
			shared = append(shared, f)
		} else if err := p.remove(f); err != nil {
			return err
		}
	}
	for _, f := range shared {
		users, err := filepath.Glob(f.SharedBy)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			continue
		}
		if err := p.remove(f); err != nil {
			return err
		}
		os.Remove(filepath.Dir(f.SharedBy)) // empty by now, or somebody's own
	}
	return nil
}

func (p *publication) remove(f File) error {
	data, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.d.ofThisSite(f.Path, data); err != nil {
		return err
	}
	if err := p.remember(f.Path, data, true, f.Mode); err != nil {
		return err
	}
	return p.d.files.Remove("remove-web-file", f.Path)
}

// undo brings the files back, and has the web server read them if it was told to
// read the others.
func (p *publication) undo(ctx context.Context) error {
	if len(p.order) == 0 {
		return nil
	}
	var unmarked error
	if p.loaded {
		unmarked = p.d.toReload()
	}
	if err := p.restore(); err != nil {
		return errors.Join(unmarked, err)
	}
	if p.loaded {
		if err := p.d.WebServer.Reload(context.WithoutCancel(ctx), p.d.Runner); err != nil {
			return errors.Join(unmarked, err)
		}
	}
	if p.loaded || !p.overdue {
		p.d.reloaded()
	}
	return unmarked
}

func (p *publication) restore() error {
	var errs []error
	for i := len(p.order) - 1; i >= 0; i-- {
		path := p.order[i]
		if data := p.before[path]; data != nil {
			if err := p.d.files.MkdirAll("restore-web-directory", filepath.Dir(path), 0o755); err != nil {
				errs = append(errs, err)
			}
			errs = append(errs, p.d.files.Write("restore-web-file", path, data, p.modes[path]))
		} else {
			errs = append(errs, p.d.files.Remove("restore-web-file", path))
		}
	}
	return errors.Join(errs...)
}

// inFile finds the file that a web server's check complains of.
var inFile = pattern(` in (/\S+?):(\d+)`)

func (p *publication) testAndReload(ctx context.Context, ours []string) error {
	if err := p.d.testWeb(ctx, ours); err != nil {
		return err
	}
	if err := p.d.files.before("reload-web"); err != nil {
		return err
	}
	p.loaded = true
	if err := p.d.WebServer.Reload(ctx, p.d.Runner); err != nil {
		return fmt.Errorf("reloading %s: %w", p.d.webName(), err)
	}
	p.d.reloaded()
	return nil
}

// testWeb has the web server check all of its configuration. A complaint about
// a file that is none of ours names it.
func (d *Deployer) testWeb(ctx context.Context, ours []string) error {
	if err := d.makeLogs(); err != nil {
		return err
	}
	var out bytes.Buffer
	test := d.WebServer.Test()
	test.Stdout, test.Stderr = &out, &out
	if err := d.Runner.Run(ctx, test); err != nil {
		if late, ok := errors.AsType[*TimeoutError](err); ok {
			return fmt.Errorf("the check of %s's configuration does not end: %w\nsomething that the configuration names may not answer, a disk or a name server: run %q on the server", d.webName(), late, strings.Join(test.Args, " "))
		}
		why := FirstLine(out.String())
		explained := false
		if e, ok := d.WebServer.(Explainer); ok {
			explained = e.Explain(out.String()) != ""
		}
		if m := inFile().FindStringSubmatch(out.String()); m != nil && !explained && !slices.Contains(ours, m[1]) {
			return fmt.Errorf("%s refuses its configuration: %s\nthe culprit is %s line %s, which is not a file of this app: mend it, then try again", d.webName(), why, m[1], m[2])
		}
		next := neutralLines(out.String())
		if e, ok := d.WebServer.(Explainer); ok {
			if hint := e.Explain(out.String()); hint != "" {
				next += "\n" + hint
			}
		}
		return fmt.Errorf("%s refuses its configuration: %w\n%s", d.webName(), err, next)
	}
	return nil
}

// neutralLines is Neutral of each line.
func neutralLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, l := range lines {
		lines[i] = Neutral(strings.TrimRight(l, "\r"))
	}
	return strings.Join(lines, "\n")
}

// tellUnreached warns where new files of the web server's are not what answers.
func (op *operation) tellUnreached(ctx context.Context, a *config.App) {
	r, ok := op.d.WebServer.(Reacher)
	if !ok {
		return
	}
	if why := r.Reach(context.WithoutCancel(ctx), a); why != "" {
		op.report.Note("warning: %s", why)
	}
}

// unpublish removes the web server's files of an app that goes.
func (d *Deployer) unpublish(ctx context.Context, rec *Record) error {
	if err := d.lockWeb(ctx, rec.App, nil); err != nil {
		return err
	}
	defer d.unlockWeb()
	p := &publication{d: d, before: map[string][]byte{}, modes: map[string]fs.FileMode{}}
	if err := p.drop(rec.WebFiles, nil); err != nil {
		return errors.Join(err, p.undo(ctx))
	}
	if len(p.order) > 0 {
		if err := p.testAndReload(ctx, nil); err != nil {
			return errors.Join(err, p.undo(ctx))
		}
	}
	d.claimed(rec.App, nil)
	return nil
}
