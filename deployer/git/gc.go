package git

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The thresholds of git's own gc --auto (git-config(1): gc.auto, gc.autoPackLimit).
const (
	maxLoose = 6700
	maxPacks = 50
	// overdue is how many times as many make it urgent.
	overdue = 4
)

// GCDue implements deployer.Housekeeper. As git does it counts the loose objects
// of one of 256 directories and takes the others for alike.
func (g *Git) GCDue(app string) (due, urgent bool, err error) {
	if !g.Exists(app) {
		return false, false, nil
	}
	objects := filepath.Join(g.Path(app), "objects")
	loose, err1 := names(filepath.Join(objects, "17"))
	packed, err2 := names(filepath.Join(objects, "pack"))
	packs := 0
	for name := range packed {
		if base, ok := strings.CutSuffix(name, ".pack"); ok && !packed[base+".keep"] {
			packs++
		}
	}
	n := 256 * len(loose)
	return n > maxLoose || packs > maxPacks, n > overdue*maxLoose || packs > overdue*maxPacks, errors.Join(err1, err2)
}

func names(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := make(map[string]bool, len(entries))
	for _, e := range entries {
		all[e.Name()] = true
	}
	return all, nil
}

// GC implements deployer.Housekeeper. Objects that nothing refers to stay for two
// weeks (gc.pruneExpire), so that a push under way loses none that it counts on.
func (g *Git) GC(ctx context.Context, app string) error {
	return g.quietly(ctx, app, "-c", "pack.threads=1", "-c", "pack.windowMemory=100m", "gc", "--quiet")
}

// PrunePacked implements deployer.Housekeeper.
func (g *Git) PrunePacked(ctx context.Context, app string) error {
	if !g.Exists(app) {
		return nil
	}
	return g.quietly(ctx, app, "prune-packed", "--quiet")
}

// quietly runs a git that others need not wait for.
func (g *Git) quietly(ctx context.Context, app string, args ...string) error {
	c, err := g.command(app, args...)
	if err != nil {
		return err
	}
	var stderr tail
	c.Args = append([]string{"nice", "-n", "19"}, c.Args...)
	// It looks at all objects at once, and has nobody waiting: its caller ends it by
	// the clock.
	c.Each.Memory, c.Each.CPU = 2*c.Each.Memory, 0
	c.Stdout, c.Stderr = &stderr, &stderr
	return failed(c, args[len(args)-2], &stderr, g.runner.Run(ctx, c))
}
