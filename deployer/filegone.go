package deployer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"scotch/config"
)

// What is live is what the link current names, whether or not the app still has
// a file: people remove and rename files, and a folder may not be mounted. It
// serves on, also after a restart of the server, until the file is back or the
// app is destroyed. Of one that never was live directories are left, which a
// destroy takes away too.

// fileGoneError tells of an app that was deployed and whose file is gone.
type fileGoneError struct {
	app, file string
	live      bool
	release   int // that is live, 0 where that cannot be told
}

func (e *fileGoneError) Error() string {
	return fmt.Sprintf("the file of app %q is gone, %s, and %s\n%s", e.app, e.file, e.state(), e.next())
}

// Refused is the error for who pushes.
func (e *fileGoneError) Refused() *RefusedError {
	reason, _, _ := strings.Cut(e.Error(), "\n")
	return &RefusedError{Reason: reason, Hint: e.next()}
}

// state is what is there of the app all the same.
func (e *fileGoneError) state() string {
	switch {
	case !e.live:
		return "it never was live"
	case e.release == 0:
		return "what is live serves on"
	}
	return fmt.Sprintf("v%d serves on", e.release)
}

func (e *fileGoneError) next() string {
	return fmt.Sprintf("put it back, or take the app away: destroy %s --force", e.app)
}

// isLeft tells whether something of an app is there by its directory alone: it is
// live, or a deploy of it was begun.
func (l layout) isLeft() bool {
	if l.isDestroying() { // it loses its file first
		return false
	}
	ids, _ := l.instanceIDs()
	return len(ids) > 0 || isThere(l.current())
}

// ofApp says of an app that has no file whether it is there all the same.
func (d *Deployer) ofApp(app string, err error) error {
	none, ok := errors.AsType[*config.NoAppError](err)
	l := d.layout(app)
	if !ok || app == destroyedName {
		return err
	}
	if doomed := d.spared(app); doomed != nil {
		return doomed
	}
	if !l.isLeft() {
		return err
	}
	gone := &fileGoneError{app: app, file: none.Path, live: isThere(l.current())}
	if live, err := l.live(); err == nil {
		gone.release = live.Release
	}
	return gone
}

// names are the apps, sorted: those that have a file, and those that are there
// without one, be it that a destroy has not taken all of them away yet. An error tells of files that are no app's.
func (d *Deployer) names() ([]string, error) {
	names, err := d.site.Apps()
	slices.Sort(names)
	dirs, _ := os.ReadDir(d.site.Paths.Instances) // none before the first deploy
	known := len(names)
	for _, e := range dirs {
		app := e.Name()
		if _, has := slices.BinarySearch(names[:known], app); has || !e.IsDir() || app == destroyedName || config.ValidName(app) != nil {
			continue
		}
		if l := d.layout(app); l.isLeft() || l.isDestroying() {
			names = append(names, app)
		}
	}
	slices.Sort(names)
	return names, err
}
