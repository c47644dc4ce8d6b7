package deployer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"scotch/config"
)

// What is live is what the link current names, whether or not the app still has
// a file: people remove and rename files, and a folder may not be mounted. It
// serves on, also after a restart of the server, until the file is back or the
// app is destroyed.

// fileGoneError tells of an app that is live and whose file is gone.
type fileGoneError struct {
	app, file string
	release   int // 0 where that cannot be told
}

func (e *fileGoneError) Error() string {
	return fmt.Sprintf("the file of app %q is gone, %s, and %s serves on\n%s", e.app, e.file, e.serves(), e.next())
}

func (e *fileGoneError) serves() string {
	if e.release == 0 {
		return "what is live"
	}
	return fmt.Sprintf("v%d", e.release)
}

func (e *fileGoneError) next() string {
	return fmt.Sprintf("put it back, or take the app away: destroy %s --force", e.app)
}

// ofApp says of an app that has no file whether it is live all the same.
func (d *Deployer) ofApp(app string, err error) error {
	none, ok := errors.AsType[*config.NoAppError](err)
	l := d.layout(app)
	if !ok || app == destroyedName || !isThere(l.current()) {
		return err
	}
	gone := &fileGoneError{app: app, file: none.Path}
	if live, err := l.live(); err == nil {
		gone.release = live.Release
	}
	return gone
}

// names are the apps, sorted: those that have a file, and those that are live
// without one. An error tells of files that are no app's.
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
		// One that is being destroyed loses its file first.
		if l := d.layout(app); isThere(l.current()) && !isThere(filepath.Join(l.dir, destructionName)) {
			names = append(names, app)
		}
	}
	slices.Sort(names)
	return names, err
}
