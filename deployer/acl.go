package deployer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"scotch/config"
)

// shareData lets a group read one directory of an app's data, made where it is
// missing: to find the way through those above it, and to read all in it, also
// what the app puts there later. What else is in the directories on the way is
// closed to others, since whoever gets through could open it by its name.
//
// The data is the app's, which may be changing it: nothing outside of it is
// reached, whatever links it makes.
func (d *Deployer) shareData(a *config.App, s config.Static, gid int) error {
	uid, own, err := ids(a)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(a.DataPath)
	if err != nil {
		return err
	}
	defer root.Close()
	name := path.Clean(s.Path)
	if err := makeData(root, name, uid, own); err != nil {
		return err
	}
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if err := passOnly(root, dir, name, gid); err != nil {
			return noACL(err, filepath.Join(a.DataPath, dir))
		}
		if dir == "." {
			break
		}
	}
	return noACL(readAll(root, name, gid), filepath.Join(a.DataPath, name))
}

// noACL explains a file system without access control lists.
func noACL(err error, dir string) error {
	if errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("the file system of %q has no access control lists: %w\nput [app] data_path on one that has them (ext4, XFS, Btrfs), or map a directory of the source", dir, err)
	}
	return err
}

func makeData(root *os.Root, name string, uid, gid int) error {
	made := ""
	for part := range strings.SplitSeq(name, "/") {
		made = path.Join(made, part)
		err := root.Mkdir(made, 0o750)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = root.Lchown(made, uid, gid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// passOnly lets the group through a directory on the way to another.
func passOnly(root *os.Root, dir, target string, gid int) error {
	// O_DIRECTORY: opening a pipe of the app's would wait for its other end.
	f, err := root.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	had, err := readACL(f, aclDefault)
	if err != nil {
		return err
	}
	if err := grant(f, gid, 1); err != nil {
		return err
	}
	if had != nil {
		return nil // done before, and what came since inherited it
	}
	access, err := aclOf(f)
	if err != nil {
		return err
	}
	// New files are closed to others, whatever the app's umask.
	inherited := access.without(gid)
	inherited.set(aclOther, 0, 0)
	if err := inherited.write(f, aclDefault); err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		if e.Type()&fs.ModeSymlink != 0 || p == target || strings.HasPrefix(target, p+"/") {
			continue
		}
		fi, err := root.Lstat(p)
		if err == nil && fi.Mode().Perm()&0o007 != 0 {
			err = root.Chmod(p, fi.Mode().Perm()&^0o007)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readAll lets the group read a tree. Once its top says so, what came since has
// inherited it.
func readAll(root *os.Root, name string, gid int) error {
	tree, err := root.OpenRoot(name + "/") // a pipe would wait
	if err != nil {
		return err
	}
	defer tree.Close()
	top, err := tree.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	inherited, err := readACL(top, aclDefault)
	if err != nil {
		return err
	}
	if inherited.get(aclGroup, uint32(gid))&4 != 0 {
		return grant(top, gid, 5)
	}
	share := func(e entry) error {
		if !e.info.IsDir() && !e.info.Mode().IsRegular() {
			return nil
		}
		f, err := e.in.OpenFile(e.name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if !e.info.IsDir() {
			return grant(f, gid, 4)
		}
		if err := grant(f, gid, 5); err != nil {
			return err
		}
		l, err := aclOf(f)
		if err != nil {
			return err
		}
		return l.write(f, aclDefault)
	}
	info, err := top.Stat()
	if err != nil {
		return err
	}
	if err := share(entry{tree, ".", info}); err != nil {
		return err
	}
	return eachIn(tree, 0, share)
}

// Access control lists as the kernel takes them (acl(5); the layout is that of
// linux/posix_acl_xattr.h): golang.org/x/sys has no functions for them.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"

	aclVersion = 2
	aclUserObj = 0x01
	aclGrpObj  = 0x04
	aclGroup   = 0x08
	aclMask    = 0x10
	aclOther   = 0x20
	aclNobody  = 0xffffffff // the id of an entry that names nobody
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

type acl []aclEntry

// readACL reads a list, nil where there is none.
func readACL(f *os.File, which string) (acl, error) {
	buf := make([]byte, 4096)
	n, err := unix.Fgetxattr(int(f.Fd()), which, buf)
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "reading the access control list of", Path: f.Name(), Err: err}
	}
	var l acl
	for b := buf[min(4, n):n]; len(b) >= 8; b = b[8:] {
		l = append(l, aclEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])})
	}
	return l, nil
}

// aclOf is the list that decides about a file: where it has none, its mode.
func aclOf(f *os.File) (acl, error) {
	l, err := readACL(f, aclAccess)
	if l != nil || err != nil {
		return l, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mode := uint16(fi.Mode().Perm())
	return acl{{aclUserObj, mode >> 6, aclNobody}, {aclGrpObj, mode >> 3 & 7, aclNobody}, {aclOther, mode & 7, aclNobody}}, nil
}

// grant lets a group do so, besides what it may do already.
func grant(f *os.File, gid int, perm uint16) error {
	l, err := aclOf(f)
	if err != nil {
		return err
	}
	have := l.get(aclGroup, uint32(gid))
	l.set(aclGroup, uint32(gid), have|perm)
	return l.write(f, aclAccess)
}

func (l acl) get(tag uint16, id uint32) uint16 {
	for _, e := range l {
		if e.tag == tag && (tag != aclGroup || e.id == id) {
			return e.perm
		}
	}
	return 0
}

func (l *acl) set(tag uint16, id uint32, perm uint16) {
	if tag != aclGroup {
		id = aclNobody
	}
	for i, e := range *l {
		if e.tag == tag && e.id == id {
			(*l)[i].perm = perm
			return
		}
	}
	*l = append(*l, aclEntry{tag, perm, id})
}

// without is the list without a group.
func (l acl) without(gid int) acl {
	var rest acl
	for _, e := range l {
		if e.tag != aclGroup || e.id != uint32(gid) {
			rest = append(rest, e)
		}
	}
	return rest
}

// write makes it the list of a file. The kernel wants it sorted by tag and id,
// with a mask, the most that any group may do, where it names one.
func (l acl) write(f *os.File, which string) error {
	var mask uint16
	var sorted acl
	for _, tag := range []uint16{aclUserObj, 0x02, aclGrpObj, aclGroup} {
		for _, e := range l {
			if e.tag != tag {
				continue
			}
			if tag != aclUserObj {
				mask |= e.perm
			}
			at := len(sorted)
			for at > 0 && sorted[at-1].tag == tag && sorted[at-1].id > e.id {
				at--
			}
			sorted = append(sorted[:at], append(acl{e}, sorted[at:]...)...)
		}
	}
	sorted = append(sorted, aclEntry{aclMask, mask, aclNobody}, aclEntry{aclOther, l.get(aclOther, 0), aclNobody})
	data := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range sorted {
		data = binary.LittleEndian.AppendUint16(data, e.tag)
		data = binary.LittleEndian.AppendUint16(data, e.perm)
		data = binary.LittleEndian.AppendUint32(data, e.id)
	}
	if err := unix.Fsetxattr(int(f.Fd()), which, data, 0); err != nil {
		return &fs.PathError{Op: "writing the access control list of", Path: f.Name(), Err: err}
	}
	return nil
}
