package deployer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	if err := f.before(op); err != nil {
		return err
	}
	if err := renameio.WriteFile(path, data, mode, renameio.WithStaticPermissions(mode)); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Symlink makes link name target in one step, replacing what link was.
func (f *Files) Symlink(op, target, link string) error {
	if err := f.before(op); err != nil {
		return err
	}
	if err := renameio.Symlink(target, link); err != nil {
		return fmt.Errorf("linking %q to %q: %w", link, target, err)
	}
	return syncDir(filepath.Dir(link))
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
	return os.RemoveAll(path)
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
