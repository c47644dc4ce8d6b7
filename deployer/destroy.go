package deployer

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

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
}

const destructionName = "destroying.json"

// Destroy takes an app away: its processes, the web server's files, and then
// everything of it, renamed into destroyed/ beside where it was, or removed
// with purge. It returns where the app's file went, "" where it was gone.
func (d *Deployer) Destroy(ctx context.Context, app string, purge bool) (string, error) {
	a, appErr := d.app(app)
	switch {
	case errors.As(appErr, new(*fileGoneError)):
		a, _ = d.site.App(app, config.AppOptions{NoFile: true}) // its data is where scotch puts it
	case appErr != nil && !errors.As(appErr, new(config.Errors)):
		return "", appErr
	}
	leave, err := d.turn(ctx, app, "destroying it")
	if err != nil {
		return "", err
	}
	defer leave()
	if err := d.stillThere(app); err != nil {
		return "", err
	}
	l := d.layout(app)
	plan, err := d.planDestruction(app, a, l, purge)
	if err != nil {
		return "", err
	}
	d.endWatch(app, "destroying it")
	live, liveErr := l.live()
	if isThere(l.dir) {
		data, err := json.Marshal(plan)
		if err != nil {
			return "", err
		}
		if err := d.files.Write("write-destruction", filepath.Join(l.dir, destructionName), data, 0o600); err != nil {
			return "", err
		}
	}
	if liveErr == nil {
		if err := d.unpublish(ctx, live); err != nil {
			// It lives on: nothing of it is gone yet.
			return "", errors.Join(err, d.files.Remove("spare-app", filepath.Join(l.dir, destructionName)))
		}
	}
	if err := d.stopLive(d.ctx, app); err != nil {
		return "", err
	}
	d.endRetiring(app)
	if err := d.endRuns(d.ctx, app); err != nil {
		return "", err
	}
	kept, err := d.finishDestroy(plan)
	d.mu.Lock()
	delete(d.apps, app)
	d.mu.Unlock()
	return kept, err
}

func (d *Deployer) planDestruction(app string, a *config.App, l layout, purge bool) (*destruction, error) {
	file, err := d.site.AppFile(app)
	if err != nil {
		return nil, err
	}
	u := &destruction{
		App: app, Purge: purge, Stamp: newStamp(app),
		Places: []string{file, d.Repositories.Path(app), filepath.Join(d.site.Paths.Logs, app)},
	}
	if u.Outside, err = l.outside(); err != nil {
		return nil, err
	}
	if live, err := l.live(); err == nil && live.Plan != nil {
		for _, f := range live.Plan.Files {
			if !within(l.dir, f.Path) {
				u.Outside = append(u.Outside, f.Path)
			}
		}
	}
	// A data directory elsewhere than where scotch puts it may be others' too.
	if a != nil && a.DataPath == filepath.Join(d.site.Paths.Data, app) {
		u.Places = append(u.Places, a.DataPath)
	}
	u.Places = append(append(u.Places, d.keyPlaces(app)...), l.dir)
	return u, nil
}

// finishDestroy does what is left of a destroy, once nothing of the app runs.
// It returns where the app's file went.
func (d *Deployer) finishDestroy(u *destruction) (kept string, err error) {
	var errs []error
	for _, p := range u.Outside {
		errs = append(errs, d.files.RemoveAll("destroy-outside", p))
	}
	for _, p := range u.Outside {
		removeOwnParents(u.App, p)
	}
	for i, place := range u.Places {
		to, err := d.putAway(place, u.Stamp, u.Purge)
		errs = append(errs, err)
		if i == 0 {
			kept = to
		}
	}
	return kept, errors.Join(errs...)
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
		data, err := os.ReadFile(path)
		u := new(destruction)
		if err == nil {
			err = json.Unmarshal(data, u)
		}
		if err != nil || filepath.Base(filepath.Dir(path)) != u.App {
			d.log.Errorf("%q is not understood and left alone: %v", path, err)
			continue
		}
		all[u.App] = u
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

func (d *Deployer) putAway(place, stamp string, purge bool) (string, error) {
	if _, err := os.Lstat(place); err != nil {
		return "", nil
	}
	// Not destroyed/ inside apps-enabled, where it would be looked at.
	dir := filepath.Join(filepath.Dir(place), destroyedName)
	if err := d.files.MkdirAll("make-destroyed", dir, 0o700); err != nil {
		return "", err
	}
	to := filepath.Join(dir, stamp)
	if ext := filepath.Ext(place); ext == ".cfg" {
		to += ext
	}
	if err := d.files.Rename("destroy-app", place, to); err != nil || !purge {
		return to, err
	}
	return "", d.files.RemoveAll("purge-app", to)
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
