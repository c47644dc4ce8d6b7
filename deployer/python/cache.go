package python

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// DefaultMaxCache is the size, in bytes, of an installer's cache.
const DefaultMaxCache = 2 << 30

// pruneTimeout bounds what a deploy waits for its cache to be cut.
const pruneTimeout = 30 * time.Second

// bound keeps a cache below its size, after an installation that may have made it
// grow: never a reason for a deploy to fail. uv is asked to remove what it does not
// need, and where that is not enough the whole cache goes; it is only a cache. Of
// pip's, which are single files, those go that were used longest ago.
func (t *Toolchain) bound(ctx context.Context, app *config.App, env []string, inst installer) {
	if t.opts.Cache == nil {
		return
	}
	dir := t.opts.Cache(app)
	if dir == "" {
		return
	}
	if uv := filepath.Join(dir, "uv"); inst.uv != "" && sizeOf(uv, nil) > t.opts.MaxCache {
		// It runs as who wrote the cache, and waits for others that use it.
		for _, how := range []string{"prune", "clean"} {
			t.run.Run(ctx, deployer.Command{Args: []string{inst.uv, "cache", how}, Dir: "/", Env: env, User: app.User, Group: app.Group, Timeout: pruneTimeout,
				App: app.Name, Limits: deployer.BuildLimits(app)})
			if sizeOf(uv, nil) <= t.opts.MaxCache {
				break
			}
		}
	}
	pip := filepath.Join(dir, "pip")
	var files []cached
	if total := sizeOf(pip, &files); total > t.opts.MaxCache {
		evict(pip, files, total, t.opts.MaxCache/2)
	}
}

type cached struct {
	path string // relative
	used time.Time
	size int64
}

// maxNested is how deep a cache is looked into: far deeper than any goes, and
// not as deep as a hostile build can make it.
const maxNested = 50

// sizeOf is what the regular files below a directory take; nothing is followed.
func sizeOf(dir string, files *[]cached) (total int64) {
	root, err := os.OpenRoot(dir + "/") // a pipe of that name would wait
	if err != nil {
		return 0
	}
	defer root.Close()
	fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Count(path, "/") > maxNested {
			return fs.SkipDir
		}
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			total += info.Size()
			if files != nil {
				*files = append(*files, cached{path, info.ModTime(), info.Size()})
			}
		}
		return nil
	})
	return total
}

// evict removes the oldest files until no more than want is left. The app's user
// writes the directory: through os.Root no link leads out of it.
func evict(dir string, files []cached, total, want int64) {
	root, err := os.OpenRoot(dir + "/")
	if err != nil {
		return
	}
	defer root.Close()
	slices.SortFunc(files, func(a, b cached) int { return a.used.Compare(b.used) })
	for _, f := range files {
		if total <= want {
			return
		}
		if root.Remove(f.path) == nil {
			total -= f.size
		}
	}
}
