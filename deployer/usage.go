package deployer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scotch/config"
)

// AppUsage is what an app takes of the disk, in bytes. A file with several names
// (uv links packages out of its cache) counts once, where it is met first.
type AppUsage struct {
	App        string `json:"app"`
	Repository int64  `json:"repository"`
	Sources    int64  `json:"sources"`
	Venvs      int64  `json:"venvs"`
	Instances  int64  `json:"instances"` // the rest of them: sockets, static files, deploys' logs
	Logs       int64  `json:"logs"`
	Data       int64  `json:"data"`
	Cache      int64  `json:"cache"` // of installers, where each app has its own
	Total      int64  `json:"total"`
}

// DestroyedApp is what a destroy put away and prune --destroyed removes.
type DestroyedApp struct {
	App   string    `json:"app"`
	Stamp string    `json:"stamp"` // its name, for create --from
	When  time.Time `json:"when"`
	Bytes int64     `json:"bytes"`
}

// Disk is a file system that some of the server's directories are on.
type Disk struct {
	Paths      []string `json:"paths"`
	Total      int64    `json:"total"` // bytes
	Free       int64    `json:"free"`  // bytes, for the server
	MinFree    int64    `json:"min_free"`
	Inodes     uint64   `json:"inodes"` // 0 where the file system has no fixed number
	FreeInodes uint64   `json:"free_inodes"`
}

// DiskUsage is what takes the room of a server.
type DiskUsage struct {
	Apps      []AppUsage     `json:"apps"`
	Caches    int64          `json:"caches"`  // of installers, shared by all apps
	Pythons   int64          `json:"pythons"` // interpreters that were downloaded
	AuditLog  int64          `json:"audit_log"`
	Destroyed []DestroyedApp `json:"destroyed"`
	Disks     []Disk         `json:"disks"`
}

// DiskUsage measures what an app takes, or with an empty name all of the server.
// It reads only: it works on a full disk, and without a server that was started.
func (d *Deployer) DiskUsage(ctx context.Context, app string) (*DiskUsage, error) {
	names := []string{app}
	u := &DiskUsage{Apps: []AppUsage{}, Destroyed: []DestroyedApp{}}
	if app == "" {
		var err error
		if names, err = d.names(); err != nil && len(names) == 0 {
			return nil, err
		}
	} else if _, err := d.app(app); errors.As(err, new(*config.NoAppError)) {
		return nil, err
	}
	m := newMeasure()
	for _, n := range names {
		u.Apps = append(u.Apps, d.appUsage(ctx, m, n))
	}
	for _, x := range d.destroyed() {
		if app == "" || x.App == app {
			for _, p := range x.places {
				x.Bytes += m.tree(ctx, p)
			}
			u.Destroyed = append(u.Destroyed, x.DestroyedApp)
		}
	}
	if app == "" {
		u.Caches = m.tree(ctx, d.sharedCache())
		u.Pythons = m.tree(ctx, filepath.Join(d.site.Paths.Instances, ".pythons"))
		logs, _ := filepath.Glob(filepath.Join(d.site.Paths.Logs, "audit.log*"))
		for _, p := range logs {
			u.AuditLog += m.tree(ctx, p)
		}
	}
	u.Disks = d.disks()
	return u, ctx.Err()
}

// sharedCache is the installers' cache where all is one user's.
func (d *Deployer) sharedCache() string { return filepath.Join(d.site.Paths.Instances, ".cache") }

// ownCache is the installers' cache of one app.
func (l layout) ownCache() string { return filepath.Join(l.dir, ".cache") }

func (d *Deployer) appUsage(ctx context.Context, m *measure, app string) AppUsage {
	u := AppUsage{App: app, Repository: m.tree(ctx, d.Repositories.Path(app))}
	l := d.layout(app)
	entries, _ := os.ReadDir(l.dir) // none where it was never deployed
	for _, part := range []struct {
		name  string
		bytes *int64
	}{{".src", &u.Sources}, {".venvs", &u.Venvs}, {".cache", &u.Cache}} {
		*part.bytes = m.tree(ctx, filepath.Join(l.dir, part.name))
	}
	for _, e := range entries {
		if e.Name() != ".src" && e.Name() != ".venvs" && e.Name() != ".cache" {
			u.Instances += m.tree(ctx, filepath.Join(l.dir, e.Name()))
		}
	}
	// What the configuration puts elsewhere.
	ids, _ := l.instanceIDs()
	for _, id := range ids {
		if place, err := os.Readlink(l.instance(id)); err == nil {
			u.Instances += m.tree(ctx, place)
		}
		rec, err := readRecord(filepath.Join(l.instance(id), recordName))
		if err != nil {
			continue
		}
		u.Sources += m.tree(ctx, rec.Source)
		u.Venvs += m.tree(ctx, rec.Venv)
		for _, p := range rec.Outside {
			u.Instances += m.tree(ctx, p)
		}
	}
	u.Logs = m.tree(ctx, filepath.Join(d.site.Paths.Logs, app))
	data := filepath.Join(d.site.Paths.Data, app)
	if a, err := d.app(app); err == nil {
		data = a.DataPath
	}
	u.Data = m.tree(ctx, data)
	u.Total = u.Repository + u.Sources + u.Venvs + u.Instances + u.Logs + u.Data + u.Cache
	return u
}

// disks looks at the file systems of the server's directories.
func (d *Deployer) disks() []Disk {
	paths := d.site.Paths
	var disks []Disk
	seen := map[uint64]int{}
	for _, dir := range []string{paths.Instances, paths.Repositories, paths.Data, paths.Logs, paths.Configuration} {
		var st unix.Statfs_t
		var fi unix.Stat_t
		if unix.Statfs(dir, &st) != nil || unix.Stat(dir, &fi) != nil {
			continue // not made yet
		}
		if i, ok := seen[fi.Dev]; ok {
			disks[i].Paths = append(disks[i].Paths, dir)
			continue
		}
		seen[fi.Dev] = len(disks)
		disks = append(disks, Disk{
			Paths: []string{dir}, Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize,
			MinFree: d.site.Server.MinFree, Inodes: st.Files, FreeInodes: st.Ffree,
		})
	}
	return disks
}

// measure adds up what files take on the disk. Each file counts once.
type measure struct {
	met map[[2]uint64]bool // dev and inode of files with several names, and of whole trees
}

func newMeasure() *measure { return &measure{met: map[[2]uint64]bool{}} }

// tree is what a path and all below it takes, bytes; 0 where there is nothing, or
// it was measured before. Links are not followed.
func (m *measure) tree(ctx context.Context, root string) (bytes int64) {
	first := true
	filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil {
			return nil // gone meanwhile
		}
		fi, err := e.Info()
		if err != nil {
			return nil
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if first || !e.IsDir() && st.Nlink > 1 {
			key := [2]uint64{st.Dev, st.Ino}
			if m.met[key] {
				if e.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			m.met[key] = true
		}
		first = false
		bytes += st.Blocks * 512 // stat(2): always of 512 bytes
		return nil
	})
	return bytes
}

// putAwayApp is a destroyed app with the places where its parts lie.
type putAwayApp struct {
	DestroyedApp
	places []string
}

// destroyed finds what destroys put away, the oldest first.
func (d *Deployer) destroyed() []putAwayApp {
	paths := d.site.Paths
	dirs := []string{paths.AppsEnabled, paths.Repositories, paths.Data, paths.Logs, paths.Instances}
	for _, p := range d.keyPlaces("NAME") {
		dirs = append(dirs, filepath.Dir(p))
	}
	slices.Sort(dirs)
	var all []putAwayApp
	for _, dir := range slices.Compact(dirs) {
		dir = filepath.Join(dir, destroyedName)
		entries, _ := os.ReadDir(dir) // mostly there is none
		for _, e := range entries {
			stamp := strings.TrimSuffix(e.Name(), ".cfg")
			app, when, ok := parseStamp(stamp)
			if !ok {
				continue // not of a destroy
			}
			i := slices.IndexFunc(all, func(x putAwayApp) bool { return x.Stamp == stamp })
			if i < 0 {
				i = len(all)
				all = append(all, putAwayApp{DestroyedApp: DestroyedApp{App: app, Stamp: stamp, When: when}})
			}
			all[i].places = append(all[i].places, filepath.Join(dir, e.Name()))
		}
	}
	slices.SortFunc(all, func(a, b putAwayApp) int { return a.When.Compare(b.When) })
	return all
}

// destroyedName is the folder, beside where a thing was, that a destroy puts it into.
const destroyedName = "destroyed"

// stampTime is the time in the name of what a destroy puts away.
const stampTime = "20060102T150405.000"

func newStamp(app string) string { return app + "-" + time.Now().UTC().Format(stampTime) }

func parseStamp(stamp string) (app string, when time.Time, ok bool) {
	i := strings.LastIndex(stamp, "-")
	if i < 0 || config.ValidName(stamp[:i]) != nil {
		return "", time.Time{}, false
	}
	when, err := time.Parse(stampTime, stamp[i+1:])
	return stamp[:i], when, err == nil
}
