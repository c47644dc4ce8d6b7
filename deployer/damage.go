package deployer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// mendCurrent makes the link current lead to an instance again where something
// outside of scotch has removed or broken it: to the one that went live last.
// It returns that one's record, nil of an app that was never deployed, which has
// no such link; and what is wrong where it cannot be told.
func (d *Deployer) mendCurrent(app string) (live *Record, err error) {
	l := d.layout(app)
	if live, err = l.live(); err == nil {
		return live, nil
	}
	records, _ := l.history()
	if len(records) == 0 {
		return nil, nil
	}
	if id := l.liveID(); id != "" && isThere(l.instance(id)) {
		return nil, &RefusedError{
			Reason: fmt.Sprintf("what %q serves is not known, its record is damaged: %v", app, err),
			Hint:   fmt.Sprintf("its processes are left alone; a deploy makes a new one: %s deploy %s", d.SSH, app),
		}
	}
	var last *Record
	for _, r := range records {
		whole, err := readRecord(filepath.Join(l.instance(r.Instance), recordName))
		if err == nil && isThere(whole.Source) && isThere(whole.Venv) && (last == nil || whole.Live.After(last.Live)) {
			last = whole
		}
	}
	if last == nil {
		return nil, &RefusedError{
			Reason: fmt.Sprintf("what %q serves is not known: %q leads nowhere, and no instance of its releases is there", app, l.current()),
			Hint:   fmt.Sprintf("a deploy makes a new one: %s deploy %s", d.SSH, app),
		}
	}
	if fi, err := os.Lstat(l.current()); err == nil && fi.Mode()&os.ModeSymlink == 0 {
		aside := fmt.Sprintf("%s.damaged-%s", l.current(), time.Now().UTC().Format("20060102T150405.000"))
		if err := d.files.Rename("put-aside", l.current(), aside); err != nil {
			return nil, fmt.Errorf("%q is no symbolic link, and cannot be put aside: %w", l.current(), err)
		}
	}
	if err := d.files.Symlink("mend-current", last.Instance, l.current()); err != nil {
		return nil, err
	}
	d.log.WithField("app", app).Warnf("%s led nowhere: v%d, which went live last, is live again", l.current(), last.Release)
	return last, nil
}

// lives reads what each app's link current names, once for the whole start: with
// hundreds of apps reading records is most of its work. It holds none of an app
// that was never deployed, nor of one whose damage is noted; the records of the
// processes of those are returned too, to be left alone.
func (d *Deployer) lives(names []string) (lives map[string]*Record, keep []string) {
	lives = make(map[string]*Record, len(names))
	var mu sync.Mutex
	var each errgroup.Group
	each.SetLimit(max(2, runtime.NumCPU()))
	for _, n := range names {
		each.Go(func() error {
			at := stampOf(filepath.Join(d.layout(n).current(), recordName))
			live, err := d.mendCurrent(n)
			mu.Lock()
			defer mu.Unlock()
			if live != nil {
				lives[n] = live
				d.mu.Lock()
				d.state(n).listed = listed{record: at, live: live.brief()}
				d.mu.Unlock()
			}
			if err != nil {
				// Serving goes on as far as it can.
				d.log.WithField("app", n).Error(err)
				d.mu.Lock()
				d.state(n).damage = err
				d.mu.Unlock()
				keep = append(keep, d.layout(n).processRecords()...)
			}
			return nil
		})
	}
	each.Wait() // none returns an error
	return lives, keep
}

// processRecords are the files of an app's processes, for Runner.Strays to
// leave them alone.
func (l layout) processRecords() []string {
	files, _ := filepath.Glob(filepath.Join(l.dir, "*", processRecordName))
	return files
}

// isDamaged tells whether mendCurrent found damage at the start of the server,
// and nothing went live since.
func (d *Deployer) isDamaged(app string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state(app).damage != nil
}

// damaged is what is wrong with the record of what an app serves, which could
// not be read for err; nil where it was never deployed.
func (d *Deployer) damaged(app string, err error) error {
	d.mu.Lock()
	damage := d.state(app).damage
	d.mu.Unlock()
	l := d.layout(app)
	switch {
	case damage != nil:
		return damage
	case errors.Is(err, os.ErrNotExist) && !l.released():
		return nil
	default:
		return &RefusedError{
			Reason: fmt.Sprintf("what %q serves is not known: %v", app, err),
			Hint:   fmt.Sprintf("the next start of the server mends a lost link %q; a deploy makes a new instance", l.current()),
		}
	}
}

// released tells whether an app has a release that can be read.
func (l layout) released() bool {
	for _, err := range l.newest() {
		if err == nil {
			return true
		}
	}
	return false
}
