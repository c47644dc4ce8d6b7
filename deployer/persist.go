package deployer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"scotch/config"
)

// persist makes each [app] persist path of the source a link into the app's
// data directory; what the commit brings there is the first content.
//
// The data is the app's, which may be changing it: nothing outside of it is made
// or given away, whatever links it makes.
func (op *operation) persist(a *config.App, src string) error {
	if len(a.Persist) == 0 {
		return nil
	}
	uid, gid := -1, -1
	if a.User != "" {
		var err error
		if uid, gid, err = ids(a); err != nil {
			return err
		}
	}
	data, err := os.OpenRoot(a.DataPath)
	if err != nil {
		return err
	}
	defer data.Close()
	source, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer source.Close()
	for _, p := range a.Persist {
		// A link of the commit may lead to a persist path that is one already, and
		// so into the data.
		if _, err := source.Stat(path.Dir(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("[app] persist names %q, which a link leads out of the source: %w", p, err)
		}
		inSource := filepath.Join(src, filepath.FromSlash(p))
		if err := op.d.files.before("make-persist"); err != nil {
			return err
		}
		if _, err := data.Lstat(p); err != nil {
			op.newData = true
		}
		isFile := op.tellLeftBehind(a, data, p, inSource) || path.Ext(p) != ""
		if err := op.d.firstContent(data, p, inSource, isFile, uid, gid); err != nil {
			return fmt.Errorf("[app] persist: %q in the app's data: %w", p, err)
		}
		if err := source.RemoveAll(p); err != nil {
			return err
		}
		if err := source.MkdirAll(path.Dir(p), a.DirMode); err != nil {
			return err
		}
		if err := source.Symlink(filepath.Join(a.DataPath, filepath.FromSlash(p)), p); err != nil {
			return err
		}
	}
	return nil
}

// lookedAt bounds how many entries of a directory are looked at for one note.
const lookedAt = 10_000

// tellLeftBehind says of a path that is persistent from this release on what the
// live release has written there: it lies in that one's source and is not taken
// over, for the app is writing it still. It tells whether a file is there.
func (op *operation) tellLeftBehind(a *config.App, data *os.Root, p, inSource string) (isFile bool) {
	if _, err := data.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	live := op.nowLive()
	if live == nil {
		return false
	}
	source, err := os.OpenRoot(filepath.Join(live.Source, filepath.FromSlash(live.Root)))
	if err != nil {
		return false
	}
	defer source.Close()
	fi, err := source.Lstat(p)
	if err != nil || fi.Mode()&fs.ModeSymlink != 0 {
		return false
	}
	isFile = fi.Mode().IsRegular()
	if _, err := os.Lstat(inSource); err == nil && !changedSince(source, p, live.First) {
		return isFile // what the commit has is what the live one has
	}
	from, to := p, filepath.Join(a.DataPath, filepath.FromSlash(p))
	if fi.IsDir() {
		from, to = p+"/.", to+"/"
	}
	op.report.Note("note: %s is in the data from this release on; what v%d has written there stays in the source of v%d.\nTo take it over, once this one is live and while v%d is kept; what the new release has written there by then is replaced:",
		p, live.Release, live.Release, live.Release)
	for _, c := range []string{"stop " + op.app, fmt.Sprintf("run %s --release v%d -- cp -a %s %s", op.app, live.Release, from, to), "start " + op.app} {
		op.report.Note("  %s %s", op.d.SSH, c)
	}
	return isFile
}

// changedSince tells whether something was written below a path of a source.
func changedSince(source *os.Root, p string, then time.Time) bool {
	n, changed := 0, false
	fs.WalkDir(source.FS(), p, func(_ string, e fs.DirEntry, err error) error {
		if n++; err != nil || n > lookedAt {
			return fs.SkipAll
		}
		if fi, err := e.Info(); err == nil && fi.ModTime().After(then) {
			changed = true
			return fs.SkipAll
		}
		return nil
	})
	return changed
}

// firstContent makes what is not there yet of a persist path: a copy of what the
// commit has (a failed deploy must not have eaten it), else an empty directory
// unless a file is meant.
func (d *Deployer) firstContent(data *os.Root, p, inSource string, isFile bool, uid, gid int) error {
	p = path.Clean(p)
	if _, err := data.Lstat(p); err == nil {
		return nil // the app's own, as it is
	} else if !errors.Is(err, fs.ErrNotExist) {
		// A link on the way that leads elsewhere, where the operator has put it.
		if _, there := os.Stat(filepath.Join(data.Name(), filepath.FromSlash(p))); there == nil {
			return nil
		}
		return fmt.Errorf("%w\nit can't be made through a link that leads out of the data: make it by hand, or remove the link", err)
	}
	info, err := os.Lstat(inSource)
	if errors.Is(err, fs.ErrNotExist) {
		if !isFile {
			return makeData(data, p, uid, gid)
		}
		return makeData(data, path.Dir(p), uid, gid)
	} else if err != nil {
		return err
	}
	if err := makeData(data, path.Dir(p), uid, gid); err != nil {
		return err
	}
	// Put together where only this process gets to, whole and on disk before it
	// gets its name: a crash must leave no half of it.
	const stage = ".scotch-persist"
	if err := RemoveTree(filepath.Join(data.Name(), stage)); err != nil {
		return err
	}
	if err := data.Mkdir(stage, 0o700); err != nil {
		return err
	}
	defer data.RemoveAll(stage)
	own, err := data.OpenRoot(stage + "/") // a pipe would wait
	if err != nil {
		return err
	}
	defer own.Close()
	if fi, err := own.Stat("."); err != nil || int(fi.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() || fi.Mode().Perm() != 0o700 {
		return errors.Join(fmt.Errorf("%q is another directory than was made a moment ago", stage), err)
	}
	if err := copyTree(inSource, info, own, uid, gid); err != nil {
		return err
	}
	if err := d.files.SyncFS("copy-persist", data.Name()); err != nil {
		return err
	}
	return data.Rename(path.Join(stage, "content"), p)
}

// copyTree copies a file or directory of a source into "content" of a directory.
func copyTree(from string, info fs.FileInfo, to *os.Root, uid, gid int) error {
	if !info.IsDir() {
		source, err := os.OpenRoot(filepath.Dir(from))
		if err != nil {
			return err
		}
		defer source.Close()
		return copyEntry(source, filepath.Base(from), to, "content", info.Mode(), uid, gid)
	}
	source, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer source.Close()
	return fs.WalkDir(source.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		return copyEntry(source, p, to, path.Join("content", p), fi.Mode(), uid, gid)
	})
}

func copyEntry(from *os.Root, name string, to *os.Root, as string, mode fs.FileMode, uid, gid int) error {
	switch {
	case mode.IsDir():
		// Its owner must be able to write what is put into it.
		if err := to.Mkdir(as, mode.Perm()|0o700); err != nil {
			return err
		}
	case mode&fs.ModeSymlink != 0:
		target, err := from.Readlink(name)
		if err != nil {
			return err
		}
		if err := to.Symlink(target, as); err != nil {
			return err
		}
	default:
		if err := copyFile(from, name, to, as, mode.Perm()); err != nil {
			return err
		}
	}
	if uid < 0 {
		return nil
	}
	return to.Lchown(as, uid, gid)
}

func copyFile(from *os.Root, name string, to *os.Root, as string, mode fs.FileMode) error {
	in, err := from.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.OpenFile(as, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
