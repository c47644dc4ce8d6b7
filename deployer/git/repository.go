package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"scotch/config"
)

// Create makes an app's bare repository with HEAD on branch, whole or not at
// all. In one that is there already only HEAD changes, where it names another branch.
func (g *Git) Create(ctx context.Context, app, branch string) error {
	if err := config.ValidName(app); err != nil {
		return err
	}
	head := "refs/heads/" + branch
	if err := plumbing.ReferenceName(head).Validate(); err != nil || branch == "" {
		return fmt.Errorf("%q is no name of a branch", branch)
	}
	if g.Exists(app) {
		now, err := g.Head(ctx, app)
		if err != nil || now == head {
			return err
		}
		_, err = g.run(ctx, app, "symbolic-ref", "HEAD", head)
		return err
	}
	if err := g.create(app, head); err != nil {
		return fmt.Errorf("creating the repository of %q: %w", app, err)
	}
	return nil
}

// create makes the repository under another name, which nobody else can enter,
// and renames it when it is on disk.
func (g *Git) create(app, head string) (err error) {
	if err := os.MkdirAll(g.root, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(g.root, ".create-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	r, err := gogit.PlainInit(tmp, true)
	if err != nil {
		return err
	}
	if err := r.Storer.SetReference(plumbing.NewSymbolicReference(plumbing.HEAD, plumbing.ReferenceName(head))); err != nil {
		return err
	}
	c, err := r.Config()
	if err != nil {
		return err
	}
	c.Raw.Section("core").SetOption("repositoryformatversion", "0")
	if err := r.SetConfig(c); err != nil {
		return err
	}
	uid, gid, err := g.owner()
	if err != nil {
		return err
	}
	if err := settle(tmp, uid, gid); err != nil {
		return err
	}
	if err := os.Rename(tmp, g.Path(app)); err != nil {
		return err
	}
	return syncPath(g.root)
}

// owner is who repositories belong to; -1 leaves them the caller's.
func (g *Git) owner() (uid, gid int, err error) {
	if g.o.User == "" {
		return -1, -1, nil
	}
	u, err := user.Lookup(g.o.User)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// settle hands a new tree to its owner, the top last, and brings it to disk.
func settle(dir string, uid, gid int) error {
	var paths []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		paths = append(paths, p)
		return err
	})
	if err != nil {
		return err
	}
	for i := len(paths) - 1; i >= 0; i-- {
		if i == 0 {
			mode := fs.FileMode(0o755)
			if uid >= 0 {
				mode = 0o700 // no other app's user reads what was pushed
			}
			if err := os.Chmod(dir, mode); err != nil {
				return err
			}
		}
		if uid >= 0 {
			if err := os.Lchown(paths[i], uid, gid); err != nil {
				return err
			}
		}
		if err := syncPath(paths[i]); err != nil {
			return err
		}
	}
	return nil
}

func syncPath(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Ref returns the object name that a ref points to, "" if there is none.
func (g *Git) Ref(_ context.Context, app, ref string) (string, error) {
	r, err := g.open(app)
	if err != nil {
		return "", err
	}
	return refIn(r, ref)
}

func refIn(r *gogit.Repository, ref string) (string, error) {
	if err := plumbing.ReferenceName(ref).Validate(); err != nil || !strings.HasPrefix(ref, "refs/") {
		return "", fmt.Errorf("%q is no name of a ref", ref)
	}
	got, err := r.Storer.Reference(plumbing.ReferenceName(ref))
	if errors.Is(err, plumbing.ErrReferenceNotFound) || isDirectory(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", ref, err)
	}
	return got.Hash().String(), nil
}

// isDirectory tells that a ref's name is the folder of other refs.
func isDirectory(err error) bool {
	return errors.Is(err, os.ErrInvalid) || (err != nil && strings.Contains(err.Error(), "is a directory"))
}

// Head returns the ref that HEAD names; it need not exist.
func (g *Git) Head(_ context.Context, app string) (string, error) {
	r, err := g.open(app)
	if err != nil {
		return "", err
	}
	head, err := r.Storer.Reference(plumbing.HEAD)
	if err != nil {
		return "", fmt.Errorf("reading HEAD of %q: %w", app, err)
	}
	if head.Type() != plumbing.SymbolicReference {
		return "", fmt.Errorf("HEAD of %q names no branch", app)
	}
	return head.Target().String(), nil
}

// Recover removes what a killed git left behind: lock files, quarantines, half
// packs, and repositories that were never finished.
func (g *Git) Recover(app string) error {
	if err := g.endLoans(app); err != nil || !g.Exists(app) {
		return err
	}
	root, err := os.OpenRoot(g.Path(app))
	if err != nil {
		return err
	}
	defer root.Close()
	var errs []error
	if g.o.User != "" {
		errs = append(errs, root.Chmod(".", 0o700)) // as settle does: repositories of older versions were open
	}
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		leftover, whole := leftover(p, d)
		if !leftover {
			return nil
		}
		if strings.HasSuffix(p, ".keep") && !madeByGit(root, p) {
			return nil
		}
		errs = append(errs, root.RemoveAll(p))
		if whole {
			return fs.SkipDir
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// RemoveQuarantines removes what pushes left whose git was killed: the objects
// that were not let in (git-receive-pack(1), quarantine environment). No push to
// the app may be under way; anything else may.
func (g *Git) RemoveQuarantines(app string) error {
	if !g.Exists(app) {
		return nil
	}
	root, err := os.OpenRoot(filepath.Join(g.Path(app), "objects"))
	if err != nil {
		return fmt.Errorf("opening the objects of %q: %w", app, err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	errs := []error{err}
	for _, d := range entries {
		// Those of other prefixes are not of a push. git before 2.34 had no tmp_objdir-.
		name := d.Name()
		if d.IsDir() && (strings.HasPrefix(name, "tmp_objdir-incoming-") || strings.HasPrefix(name, "incoming-")) {
			errs = append(errs, root.RemoveAll(name))
		}
	}
	return errors.Join(errs...)
}

// leftover tells whether a path in a repository is what a killed git leaves
// (tmp-objdir.c, lockfile.c and object-file.c of git); whole tells of a directory.
func leftover(p string, d fs.DirEntry) (remove, whole bool) {
	name := d.Name()
	in := strings.HasPrefix(p, "objects/")
	if d.IsDir() {
		quarantine := in && (strings.HasPrefix(name, "tmp_objdir-") || strings.HasPrefix(name, "incoming-"))
		return quarantine, quarantine
	}
	switch {
	case strings.HasSuffix(name, ".lock"):
		// No ref's name ends in .lock (git-check-ref-format(1)).
		return true, false
	case in:
		return strings.HasPrefix(name, "tmp_") || strings.HasPrefix(name, ".tmp-") || strings.HasSuffix(name, ".keep"), false
	}
	return name == "packed-refs.new" || name == "gc.pid" || strings.HasPrefix(name, "shallow_"), false
}

// madeByGit tells a pack's .keep that a push or fetch made for its own time
// from one that a person made for good.
func madeByGit(root *os.Root, p string) bool {
	b, err := root.ReadFile(p)
	if err != nil {
		return false
	}
	s := string(b)
	return strings.HasPrefix(s, "receive-pack ") || strings.HasPrefix(s, "fetch-pack ")
}
