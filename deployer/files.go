package deployer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Files is the one place that changes the disk for good. Each operation has a
// name, so that a test can stop or break the server at exactly that one. When
// a method returns nil its change survives a loss of power: a file is synced
// before its rename, the directory after it.
type Files struct {
	// Before is called with the name of each operation before it happens; an
	// error from it is the operation's own. Nil in the running server.
	Before func(op string) error
}

func (f *Files) before(op string) error {
	if f == nil || f.Before == nil {
		return nil
	}
	return f.Before(op)
}

// Write replaces path by data in one step.
func (f *Files) Write(op, path string, data []byte, mode fs.FileMode) error {
	return f.WriteFor(-1, op, path, data, mode)
}

// WriteFor is Write for a group, -1 for the server's own. The file is the group's
// before it gets its name: in a directory of an app's that name may be something
// else a moment later.
func (f *Files) WriteFor(gid int, op, path string, data []byte, mode fs.FileMode) error {
	if err := f.before(op); err != nil {
		return err
	}
	if err := f.write(gid, op, path, data, mode); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func (f *Files) write(gid int, op, path string, data []byte, mode fs.FileMode) error {
	// Beside path, not in TMPDIR where that is on the same file system: what a
	// server that is killed now leaves there is found by Tidy.
	tmp, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer tmp.Cleanup()
	if gid >= 0 {
		if err := tmp.Chown(-1, gid); err != nil {
			return err
		}
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := f.before(op + "/rename"); err != nil {
		return err
	}
	return tmp.CloseAtomicallyReplace()
}

// Symlink makes link name target in one step, replacing what link was.
func (f *Files) Symlink(op, target, link string) error {
	if err := f.before(op); err != nil {
		return err
	}
	if err := f.symlink(op, target, link); err != nil {
		return fmt.Errorf("linking %q to %q: %w", link, target, err)
	}
	if err := f.before(op + "/sync"); err != nil {
		return err
	}
	return syncDir(filepath.Dir(link))
}

func (f *Files) symlink(op, target, link string) error {
	err := os.Symlink(target, link)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	// There is no way to a link of a name that is nobody's but in a directory.
	tmp, err := os.MkdirTemp(filepath.Dir(link), "."+filepath.Base(link))
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Symlink(target, filepath.Join(tmp, "link")); err != nil {
		return err
	}
	if err := f.before(op + "/rename"); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "link"), link)
}

// Tidy removes what Write and Symlink leave in a directory when the server is
// killed in the middle of them, for paths whose names end in ending. Nothing may
// be written there meanwhile. A directory that is not there is no error.
func (f *Files) Tidy(op, dir, ending string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		// .NAME and a random number, of six digits at the very least.
		name := strings.TrimRight(e.Name(), "0123456789")
		if len(e.Name())-len(name) >= 6 && strings.HasPrefix(name, ".") && strings.HasSuffix(name, ending) {
			errs = append(errs, f.RemoveAll(op, filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Rename moves a file or directory within one file system.
func (f *Files) Rename(op, from, to string) error {
	if err := f.before(op); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return syncDir(filepath.Dir(from))
	}
	return nil
}

// Mkdir makes a directory that must not exist, and its parents with the same mode.
func (f *Files) Mkdir(op, path string, mode fs.FileMode) error {
	if err := f.before(op); err != nil {
		return err
	}
	if err := f.MkdirAll(op, filepath.Dir(path), mode); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	// The mode is meant, whatever the umask says.
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// MkdirAll makes a directory and its parents where they are missing.
func (f *Files) MkdirAll(op, path string, mode fs.FileMode) error {
	if fi, err := os.Stat(path); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("%q is in the way: it is no directory", path)
		}
		return nil
	}
	if err := f.MkdirAll(op, filepath.Dir(path), mode); err != nil {
		return err
	}
	if err := f.before(op); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Remove removes a file; one that is not there is no error.
func (f *Files) Remove(op, path string) error {
	if err := f.before(op); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncDir(filepath.Dir(path))
}

// RemoveAll removes a tree. It is not one step: what must not be found
// half-removed is renamed out of the way first.
func (f *Files) RemoveAll(op, path string) error {
	if err := f.before(op); err != nil {
		return err
	}
	return RemoveTree(path)
}

// SyncFS puts all that was written below path onto the disk (syncfs(2)), so
// that whole trees need no fsync for each file.
func (f *Files) SyncFS(op, path string) error {
	if err := f.before(op); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("syncing the file system of %q: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("syncing directory %q: %w", path, err)
	}
	return nil
}
