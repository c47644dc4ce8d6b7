package deployer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// removeBatch is how many names of a directory are held at a time.
const removeBatch = 1024

// RemoveTree is os.RemoveAll for what an app has made, which may lie a million
// directories deep: os.RemoveAll has each of them open, with a buffer, until the
// last one is empty. Here what lies too deep is first moved to the top.
func RemoveTree(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if fi.IsDir() {
		top, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer top.Close()
		r := remover{top: top}
		if err := r.empty(top, 0); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

type remover struct {
	top   *os.File
	moved int // directories that were moved to the top
}

// empty removes what is in a directory, as much as can be.
func (r *remover) empty(dir *os.File, depth int) error {
	for {
		// What was read before is gone.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(removeBatch)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		moved, failed := r.moved, 0
		var first error
		for _, name := range names {
			if err := r.remove(dir, name, depth); err != nil {
				if failed++; first == nil {
					first = &fs.PathError{Op: "remove", Path: dir.Name() + "/" + name, Err: err}
				}
			}
		}
		more := len(names) == removeBatch || dir == r.top && r.moved > moved
		if first != nil && (!more || failed == len(names)) {
			return first
		}
		if !more {
			return nil
		}
	}
}

func (r *remover) remove(dir *os.File, name string, depth int) error {
	at := int(dir.Fd())
	err := unix.Unlinkat(at, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM { // POSIX says EPERM of a directory
		return err
	}
	if depth == maxNested {
		return r.moveUp(at, name)
	}
	fd, openErr := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case openErr == unix.ENOENT:
		return nil
	case openErr == unix.ENOTDIR || openErr == unix.ELOOP:
		return err
	case openErr != nil:
		return openErr
	}
	sub := os.NewFile(uintptr(fd), name)
	err = r.empty(sub, depth+1)
	sub.Close()
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); err != unix.ENOENT {
		return err
	}
	return nil
}

// moveUp gives a directory a name of its own in the top one.
func (r *remover) moveUp(at int, name string) error {
	for {
		r.moved++
		err := unix.Renameat2(at, name, int(r.top.Fd()), fmt.Sprintf(".deep-%d", r.moved), unix.RENAME_NOREPLACE)
		if err == unix.EINVAL { // not every file system knows the flag
			err = unix.Renameat(at, name, int(r.top.Fd()), fmt.Sprintf(".deep-%d", r.moved))
		}
		if err != unix.EEXIST && err != unix.ENOTEMPTY {
			return err
		}
	}
}
