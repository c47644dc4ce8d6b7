package deployer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"scotch/config"
)

// destruction is what is left to do of a destroy. It is written into the app's
// directory before anything is taken away, so that a server that was killed
// meanwhile finishes it at its next start, and not half an app stays.
type destruction struct {
	App     string   `json:"app"`
	Stamp   string   `json:"stamp"`
	Purge   bool     `json:"purge"`
	Outside []string `json:"outside"` // removed: a deploy makes it anew
	Places  []string `json:"places"`  // put away in this order; the app's directory is the last
	Left    string   `json:"left,omitempty"`
}

const destructionName = "destroying.json"

const destroyingIt = "destroying it"

// destroyingError refuses an app that is being destroyed, or whose destroy did
// not come to its end: part of it is gone, and the next start of the server takes
// the rest away.
type destroyingError struct {
	app   string
	purge bool
}

func (e *destroyingError) Error() string {
	return fmt.Sprintf("a destroy of app %q was begun and is not finished", e.app)
}

func (e *destroyingError) Unwrap() error {
	no := &RefusedError{Reason: e.Error(), Hint: "finish it: " + e.next()}
	if !e.purge {
		no.Hint += fmt.Sprintf("\nor bring the app back: create %s --from", e.app)
	}
	return no
}

func (e *destroyingError) next() string {
	if e.purge {
		return fmt.Sprintf("destroy %s --force --purge", e.app)
	}
	return fmt.Sprintf("destroy %s --force", e.app)
}

// destruction is the plan of a destroy that was begun and is not finished, nil
// where there is none.
func (l layout) destruction() (*destruction, error) {
	path := filepath.Join(l.dir, destructionName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	u := new(destruction)
	if err == nil {
		err = json.Unmarshal(data, u)
	}
	if err == nil && u.App != filepath.Base(l.dir) {
		err = fmt.Errorf("it is of %q", u.App)
	}
	if err != nil {
		return nil, fmt.Errorf("%q, what is left to do of a destroy, is not understood: %w", path, err)
	}
	return u, nil
}

// isDestroying tells whether a destroy was begun, by the name of its file alone.
func (l layout) isDestroying() bool { return isThere(filepath.Join(l.dir, destructionName)) }

// spared refuses an app whose destroy was begun.
func (d *Deployer) spared(app string) error {
	l := d.layout(app)
	if !l.isDestroying() {
		return nil
	}
	u, err := l.destruction()
	if u == nil && err == nil {
		return nil // finished just now
	}
	return &destroyingError{app: app, purge: u != nil && u.Purge}
}

// Destroyed is what a destroy has done.
type Destroyed struct {
	File string // where the app's file went; "" where it was gone, or is purged
	// Left is the app's data where that lies elsewhere than scotch puts it, which
	// may be others' too; "" for none.
	Left string
}

// Destroy takes an app away: its processes, the web server's files, and then
// everything of it, renamed into destroyed/ beside where it was, or removed
// with purge. One that failed is taken up where it failed.
func (d *Deployer) Destroy(ctx context.Context, app string, purge bool) (Destroyed, error) {
	a, appErr := d.app(app)
	switch {
	case errors.As(appErr, new(*fileGoneError)), errors.As(appErr, new(*destroyingError)), errors.As(appErr, new(config.Errors)):
	case appErr != nil:
		return Destroyed{}, appErr
	}
	leave, err := d.turnOfAny(ctx, app, destroyingIt)
	if err != nil {
		return Destroyed{}, err
	}
	defer leave()
	l := d.layout(app)
	plan, err := l.destruction()
	if err != nil {
		d.log.WithField("app", app).Warnf("it is destroyed anew: %v", err)
	}
	fresh := plan == nil
	if fresh {
		if err := d.stillThere(app); err != nil && !l.isDestroying() {
			return Destroyed{}, err
		}
		if plan, err = d.planDestruction(app, a, l, purge); err != nil {
			return Destroyed{}, err
		}
		err = d.saveDestruction(l, plan)
	} else if plan.Purge && !purge {
		// Some of it is gone for good: nobody should believe that it is kept.
		return Destroyed{}, d.spared(app)
	} else if plan.Purge != purge {
		plan.Purge = true
		err = d.saveDestruction(l, plan)
	}
	if err != nil {
		return Destroyed{}, err
	}
	done, err := d.destroy(ctx, app, l, plan, fresh)
	if err != nil && l.isDestroying() {
		err = fmt.Errorf("%w\nmend that, then finish it: %s; the next start of the server goes on with it too", err, (&destroyingError{app, plan.Purge}).next())
	}
	return done, err
}

func (d *Deployer) saveDestruction(l layout, u *destruction) error {
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	// Of an app that was never deployed too: it has a repository.
	if err := d.files.MkdirAll("make-app", l.dir, d.site.DirMode); err != nil {
		return err
	}
	return d.files.Write("write-destruction", filepath.Join(l.dir, destructionName), data, 0o600)
}

// destroy does all of a plan that is written. The caller has the app's turn.
func (d *Deployer) destroy(ctx context.Context, app string, l layout, plan *destruction, fresh bool) (Destroyed, error) {
	d.endWatch(app, destroyingIt)
	if live, err := l.live(); err == nil {
		if err := d.unpublish(ctx, live); err != nil {
			if !fresh {
				return Destroyed{}, err
			}
			// It lives on: nothing of it is gone yet.
			return Destroyed{}, errors.Join(err, d.files.Remove("spare-app", filepath.Join(l.dir, destructionName)))
		}
	}
	d.endGuests(app)
	if err := d.stopLive(d.ctx, app); err != nil {
		return Destroyed{}, err
	}
	if err := d.endRetiring(app); err != nil {
		return Destroyed{}, err
	}
	if err := d.endRuns(d.ctx, app); err != nil {
		return Destroyed{}, err
	}
	file, err := d.finishDestroy(plan)
	if err != nil {
		return Destroyed{}, err
	}
	d.mu.Lock()
	delete(d.apps, app)
	d.mu.Unlock()
	return Destroyed{File: file, Left: plan.Left}, nil
}

func (d *Deployer) planDestruction(app string, a *config.App, l layout, purge bool) (*destruction, error) {
	file, err := d.site.AppFile(app)
	if err != nil {
		return nil, err
	}
	// Its data by name, whatever its file says, and where that cannot be read too: a
	// new app of that name would find it.
	data := filepath.Join(d.site.Paths.Data, app)
	u := &destruction{
		App: app, Purge: purge, Stamp: newStamp(app),
		Places: []string{file, d.Repositories.Path(app), filepath.Join(d.site.Paths.Logs, app), data},
	}
	if u.Outside, err = l.outside(); err != nil {
		return nil, err
	}
	elsewhere := ""
	if live, err := l.live(); err == nil {
		elsewhere = live.dataPath()
		if live.Plan != nil {
			for _, f := range live.Plan.Files {
				if !within(l.dir, f.Path) {
					u.Outside = append(u.Outside, f.Path)
				}
			}
		}
	}
	if a != nil {
		elsewhere = a.DataPath
	}
	if elsewhere != data && isThere(elsewhere) {
		u.Left = elsewhere
	}
	u.Places = append(append(u.Places, d.keyPlaces(app)...), l.dir)
	return u, nil
}

// finishDestroy does what is left of a destroy, once nothing of the app runs.
// It stops at the first place that fails: while the app's directory, which is the
// last, is there with the plan in it, nothing else is done with the app. It returns
// where the app's file went.
func (d *Deployer) finishDestroy(u *destruction) (kept string, err error) {
	var errs []error
	for _, p := range u.Outside {
		errs = append(errs, d.files.RemoveAll("destroy-outside", p))
	}
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for _, p := range u.Outside {
		removeOwnParents(u.App, p)
	}
	for i, place := range u.Places {
		if u.Purge && i == len(u.Places)-1 {
			return "", d.purgeLast(place)
		}
		to, err := d.putAway(place, u.Stamp, u.Purge)
		if err != nil {
			return "", err
		}
		if i == 0 {
			kept = to
		}
	}
	return kept, nil
}

// dataPath is where the instance's data is, as its environment says; "" where it
// says nothing.
func (r *Record) dataPath() string {
	for _, v := range r.Environment {
		if path, ok := strings.CutPrefix(v, "SCOTCH_DATA_DIR="); ok {
			return path
		}
	}
	return ""
}

// removeOwnParents removes the directories above a path of an app's that bear
// its name, or are a store of virtualenvs, where nothing is left in them.
func removeOwnParents(app, path string) {
	for dir := filepath.Dir(path); filepath.Base(dir) == app || filepath.Base(dir) == ".venvs"; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			return // not empty
		}
	}
}

// unfinishedDestroys are those that an earlier server did not finish, by app.
func (d *Deployer) unfinishedDestroys() map[string]*destruction {
	found, _ := filepath.Glob(filepath.Join(d.site.Paths.Instances, "*", destructionName))
	all := map[string]*destruction{}
	for _, path := range found {
		u, err := layout{dir: filepath.Dir(path)}.destruction()
		if err != nil {
			d.log.Errorf("%v; it is left alone", err)
		} else if u != nil {
			all[u.App] = u
		}
	}
	return all
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
		if filepath.IsAbs(rec.Venv) && !within(l.dir, rec.Venv) {
			paths = append(paths, filepath.Dir(rec.Venv))
		}
	}
	return paths, nil
}

// putAway renames a place into destroyed/ beside it, or removes it, and returns
// where it is then. One that an earlier try has put away stays there.
func (d *Deployer) putAway(place, stamp string, purge bool) (string, error) {
	// Not destroyed/ inside apps-enabled, where it would be looked at.
	dir := filepath.Join(filepath.Dir(place), destroyedName)
	to := filepath.Join(dir, stamp)
	if ext := filepath.Ext(place); ext == ".cfg" {
		to += ext
	}
	if isThere(place) {
		if err := d.files.MkdirAll("make-destroyed", dir, 0o700); err != nil {
			return "", err
		}
		if err := d.files.Rename("destroy-app", place, to); err != nil {
			return "", err
		}
	} else if !isThere(to) {
		return "", nil
	}
	if !purge {
		return to, nil
	}
	return "", d.files.RemoveAll("purge-app", to)
}

// purgeLast removes an app's directory where it is, the plan in it last: a crash
// in the middle leaves what the next start goes on with.
func (d *Deployer) purgeLast(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.Name() != destructionName {
			errs = append(errs, d.files.RemoveAll("purge-app", filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return d.files.RemoveAll("purge-plan", dir)
}

// endRetiring ends the app's instances that were finishing their requests.
func (d *Deployer) endRetiring(app string) error {
	d.mu.Lock()
	var all []*member
	for _, m := range d.state(app).retiring {
		all = append(all, m)
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(d.ctx, quickStop)
	defer cancel()
	var errs []error
	for _, m := range all {
		errs = append(errs, m.end(ctx))
	}
	return errors.Join(errs...)
}
