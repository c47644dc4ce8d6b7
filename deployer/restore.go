package deployer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"scotch/config"
)

// Restore brings a destroyed app back: its file, repository, data, keys, instances
// and logs. from is one of DestroyedApp.Stamp, "" for the app's last one. What was
// live is then started, as by a restart, unless a person had stopped it. The app is
// back once all of it is, its file last: a crash before that leaves an app that is
// still destroyed, and what failed is gone on with by the same again.
func (d *Deployer) Restore(ctx context.Context, app, from string, by Actor, out io.Writer) error {
	if err := config.ValidName(app); err != nil {
		return err
	}
	running, err := d.restore(ctx, app, from)
	if err != nil || running == nil {
		return err
	}
	if err := d.again(ctx, running, by, out); err != nil {
		return fmt.Errorf("%s is back, and does not run: %w", app, err)
	}
	return nil
}

// again starts what was live. What lay outside the app's directory was removed,
// because a deploy makes it anew.
func (d *Deployer) again(ctx context.Context, live *Record, by Actor, out io.Writer) error {
	switch {
	case !isThere(live.Source):
		fmt.Fprintf(out, "its source went with it: v%d is deployed again\n", live.Release)
		_, err := d.DeployRef(ctx, Request{App: live.App, Ref: releaseRef(live.Release), By: by}, out)
		return err
	case live.Venv != "" && damagedVenv(live.Venv):
		fmt.Fprintln(out, "its virtualenv went with it, and is made anew")
		return d.Rebuild(ctx, live.App, by, out)
	}
	return d.Restart(ctx, live.App, by, out)
}

// restore moves the app's parts back, and returns what was live and is to run,
// nil for nothing.
func (d *Deployer) restore(ctx context.Context, app, from string) (live *Record, err error) {
	leave, err := d.turnOfAny(ctx, app, "bringing it back")
	if err != nil {
		return nil, err
	}
	defer leave()
	file, err := d.site.AppFile(app)
	if err != nil {
		return nil, err
	}
	l := d.layout(app)
	var x putAwayApp
	if l.isDestroying() {
		// A destroy, or the like of this, that failed half way.
		u, err := l.destruction()
		if err != nil || u == nil || u.Purge || from != "" && from != u.Stamp {
			return nil, errors.Join(err, d.spared(app))
		}
		x.Stamp = u.Stamp
	} else if isThere(file) {
		return nil, &RefusedError{Reason: fmt.Sprintf("app %q exists already", app), Hint: "its file is " + file}
	} else if x, err = d.findDestroyed(app, from); err != nil {
		return nil, err
	}
	moves, err := d.movesBack(app, x, file, l)
	if err != nil {
		return nil, err
	}
	// Nobody takes its place on the web meanwhile.
	if err := d.lockWeb(ctx, app, nil); err != nil {
		return nil, err
	}
	defer d.unlockWeb()
	kept := l
	for _, m := range moves {
		if m.to == l.dir {
			kept.dir = m.from
		}
	}
	rec, liveErr := kept.live()
	// A stopped app answers with its page again once it is started.
	idle := rec != nil && (kept.isStopped() || rec.Plan != nil && !rec.Plan.runs())
	where := file
	for _, m := range moves {
		if m.to == file {
			where = m.from
		}
	}
	if err := d.mayComeBack(app, where, file, rec, idle); err != nil {
		return nil, err
	}
	for _, m := range moves {
		if err := d.files.Rename("restore-app", m.from, m.to); err != nil {
			return nil, fmt.Errorf("bringing %q back: %w\nthe rest of it is untouched; mend that and try again", m.to, err)
		}
	}
	// Until now a next start would have put all away again.
	if err := d.files.Remove("restore-app", filepath.Join(l.dir, destructionName)); err != nil {
		return nil, fmt.Errorf("bringing %q back: %w\nall of it is there; mend that and try again", app, err)
	}
	if errors.Is(liveErr, os.ErrNotExist) {
		return nil, nil
	}
	if liveErr != nil {
		return nil, liveErr
	}
	if other, _ := d.taken(app, rec.Domains, rec.URLPrefix); other == "" {
		d.claimed(app, rec)
	}
	if idle {
		return nil, nil
	}
	return l.live() // where things are now
}

func (d *Deployer) findDestroyed(app, from string) (putAwayApp, error) {
	var found []putAwayApp
	var names []string
	for _, x := range d.destroyed() {
		if x.App == app {
			found, names = append(found, x), append(names, x.Stamp)
		}
	}
	i := len(found) - 1
	if from != "" {
		i = slices.Index(names, from)
	}
	switch {
	case len(found) == 0:
		return putAwayApp{}, &RefusedError{Reason: fmt.Sprintf("nothing is kept of an app %q that was destroyed", app), Hint: "df lists what is; what was destroyed with --purge is gone"}
	case from == "" && len(found) > 1:
		return putAwayApp{}, &RefusedError{
			Reason: fmt.Sprintf("%d apps %q are kept that were destroyed", len(found), app),
			Hint:   fmt.Sprintf("%s create %s --from=NAME brings one back; kept are %s", d.SSH, app, strings.Join(names, ", ")),
		}
	case i < 0:
		return putAwayApp{}, &RefusedError{Reason: fmt.Sprintf("nothing is kept as %q", from), Hint: "kept are " + strings.Join(names, ", ")}
	}
	return found[i], nil
}

// move is a part of a destroyed app on its way back.
type move struct{ from, to string }

// movesBack are the parts that are put away: the app's directory first, with the
// plan of its destroy in it, which keeps all else out until they are back, and the
// app's file last.
func (d *Deployer) movesBack(app string, x putAwayApp, file string, l layout) ([]move, error) {
	places := []string{d.Repositories.Path(app), filepath.Join(d.site.Paths.Logs, app), filepath.Join(d.site.Paths.Data, app)}
	places = append(places, d.keyPlaces(app)...)
	away := func(place string) string {
		to := filepath.Join(filepath.Dir(place), destroyedName, x.Stamp)
		if filepath.Ext(place) == ".cfg" {
			to += ".cfg"
		}
		return to
	}
	places = append([]string{l.dir}, places...)
	// What the destroy itself noted: configuration may say otherwise today.
	for _, dir := range []string{away(l.dir), l.dir} {
		if data, err := os.ReadFile(filepath.Join(dir, destructionName)); err == nil {
			var u destruction
			if json.Unmarshal(data, &u) == nil && u.App == app {
				places = append(places, u.Places...)
			}
		}
	}
	var moves []move
	for _, place := range append(places, file) {
		from := away(place)
		if !isThere(from) || place == file || slices.Contains(moves, move{from, place}) {
			continue
		}
		if isThere(place) {
			return nil, &RefusedError{Reason: fmt.Sprintf("%q is in the way of what is to come back there", place), Hint: "move it elsewhere, then try again"}
		}
		moves = append(moves, move{from, place})
	}
	if isThere(file) {
		return moves, nil
	}
	if !isThere(away(file)) {
		return nil, &RefusedError{Reason: fmt.Sprintf("of %q no file of the app is kept", x.Stamp), Hint: "make the app anew, create " + app + ", and copy what you need"}
	}
	return append(moves, move{away(file), file}), nil
}

// mayComeBack tells of another app that has taken its place on the web meanwhile:
// the one that its file names, and that of its record where it is idle, for what
// runs is started with the file's. A file with mistakes in it is told of by whatever
// is done next. The file lies at where. The caller holds the web server's lock.
func (d *Deployer) mayComeBack(app, where, file string, rec *Record, idle bool) error {
	if idle {
		if err := d.checkClaims(app, rec.Domains, rec.URLPrefix); err != nil {
			return err
		}
	}
	// An operator's link leads somewhere from where it was, not from where it is.
	if target, err := os.Readlink(where); err == nil && !filepath.IsAbs(target) {
		where = filepath.Join(filepath.Dir(file), target)
	}
	data, err := os.ReadFile(where)
	if err != nil {
		return err
	}
	a, err := d.site.App(app, config.AppOptions{File: data})
	if err != nil {
		return nil
	}
	return d.checkClaims(app, a.Domains, a.URLPrefix)
}
