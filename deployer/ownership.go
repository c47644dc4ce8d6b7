package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"scotch/config"
)

// In system mode each app has a user of its own. Builds write as that user;
// what they made is then sealed: it belongs to root, and the app may read it.
// In standalone mode a.User is empty and all of this does nothing.

// Grouped is an extra ability of a WebServer that runs as somebody else: the
// group that must be able to connect to the apps' sockets.
type Grouped interface{ Group() string }

// noHome is the home that the machine has of an app's user, and Debian of its own:
// none. In one that the app writes, sshd would find keys that let somebody in, a mail
// server a program to start, and systemd units of a session, all out of what the app
// is confined to. What an app runs has its data as HOME.
const noHome = "/nonexistent"

// ensureUser makes the app's system user where it is missing.
func (d *Deployer) ensureUser(ctx context.Context, a *config.App) error {
	if a.User == "" {
		return nil
	}
	if _, err := user.Lookup(a.User); err == nil {
		return nil
	}
	err := d.Runner.Run(ctx, Command{
		Args: []string{"useradd", "--system", "--user-group", "--no-create-home", "--home-dir", noHome,
			"--shell", "/usr/sbin/nologin", "--comment", "scotch app " + a.Name, a.User},
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
	})
	if err != nil {
		return fmt.Errorf("making the system user %q of app %q: %w\nmake it by hand (useradd --system %s), or set [app] user", a.User, a.Name, err, a.User)
	}
	return nil
}

// checkUser refuses a user or group that may connect to apps' sockets: whoever
// may, can have any app's uWSGI run a file (the variable UWSGI_FILE of a
// request), as that app's user. It is called once the user exists.
func (d *Deployer) checkUser(a *config.App) error {
	if a.User != "" {
		if uid, gid, err := ids(a); err != nil {
			return err
		} else if uid == 0 || gid == 0 {
			return fmt.Errorf("[app] user and group of %q are %q and %q, and one of them is root's\nno app runs as root: remove the line, and the app gets a user and a group of its own", a.Name, a.User, a.Group)
		}
	}
	g, ok := d.WebServer.(Grouped)
	if a.User == "" || !ok || g.Group() == "" {
		return nil
	}
	u, err := user.Lookup(a.User)
	if err != nil {
		return err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return err
	}
	web, err := user.LookupGroup(g.Group())
	if err != nil {
		return err
	}
	const hint = "whoever is in it can run code as any app's user: remove the line, and the app gets a user and a group of its own"
	if slices.Contains(groups, web.Gid) {
		return fmt.Errorf("[app] user of %q is %q, who is in the web server's group %q\n%s", a.Name, a.User, web.Name, hint)
	}
	if a.Group == web.Name {
		return fmt.Errorf("[app] group of %q is %q, the web server's group\n%s", a.Name, a.Group, hint)
	}
	return nil
}

func ids(a *config.App) (uid, gid int, err error) {
	u, err := user.Lookup(a.User)
	if err != nil {
		return 0, 0, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if a.Group != "" {
		g, err := user.LookupGroup(a.Group)
		if err != nil {
			return 0, 0, fmt.Errorf("[app] group of %q is %q, and there is no such group\nmake it (groupadd --system %s), or set [app] group", a.Name, a.Group, a.Group)
		}
		gid, err1 = strconv.Atoi(g.Gid)
	}
	return uid, gid, errors.Join(err1, err2)
}

// own gives a directory to the app's user. A directory of sockets belongs to
// the web server's group too, and nobody else may enter it.
func (d *Deployer) own(a *config.App, dir string, sockets bool) error {
	if a.User == "" {
		if sockets {
			return os.Chmod(dir, 0o750)
		}
		return nil
	}
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o750)
	if sockets {
		mode |= fs.ModeSetgid
		if g, ok := d.WebServer.(Grouped); ok && g.Group() != "" {
			grp, err := user.LookupGroup(g.Group())
			if err != nil {
				return err
			}
			if gid, err = strconv.Atoi(grp.Gid); err != nil {
				return err
			}
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}

// ownTree gives a whole tree to the app's user.
func (d *Deployer) ownTree(a *config.App, dir string) error {
	if a.User == "" {
		return nil
	}
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	return eachBelow(dir, func(f entry) error { return f.lchown(uid, gid) })
}

// sealTree takes a tree that a build made away from the app's user: it belongs
// to root, and its group, the app's, may read.
func (d *Deployer) sealTree(a *config.App, dir string) error {
	if a.User == "" {
		return nil
	}
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	top := true
	return eachBelow(dir, func(f entry) error {
		// Where the kernel lets anybody link to anybody's files (proc(5),
		// protected_hardlinks is 0), a build has linked to one of them.
		if st := f.info.Sys().(*syscall.Stat_t); st.Nlink > 1 && int(st.Uid) != uid && f.info.Mode().IsRegular() {
			return fmt.Errorf("%q is another name of a file that is not the app's own\ncopy it; sysctl -w fs.protected_hardlinks=1 keeps others from linking to what is not theirs", f.name)
		}
		// A directory before what is in it: from then on nobody changes that.
		if err := f.lchown(0, gid); err != nil || f.info.Mode()&fs.ModeSymlink != 0 {
			return err
		}
		// What a build may have left writable for its group is so no more.
		mode := f.info.Mode().Perm() &^ 0o022
		if top {
			mode, top = 0o750, false // no other app reads below it
		}
		return f.chmod(mode)
	})
}

// entry is a file in a directory that is held open.
type entry struct {
	in   *os.Root
	name string // in it, "." for the directory itself
	info fs.FileInfo
}

func (e entry) lchown(uid, gid int) error    { return e.in.Lchown(e.name, uid, gid) }
func (e entry) chmod(mode fs.FileMode) error { return e.in.Chmod(e.name, mode) }

// eachBelow calls do for a directory and then for all below it, each directory
// before what is in it. The app's processes may be moving things there: each step
// goes down from a directory that is held open, never by a path that may lead
// elsewhere by then, and no link is followed out of the tree.
func eachBelow(dir string, do func(entry) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	if err := do(entry{root, ".", info}); err != nil {
		return err
	}
	return eachIn(root, 0, do)
}

// maxNested is how many directories may lie in one another. Each that is open
// costs a descriptor and memory, and a build could make a million.
const maxNested = 500

func eachIn(dir *os.Root, depth int, do func(entry) error) error {
	if depth > maxNested {
		return fmt.Errorf("more than %d directories lie in one another", maxNested)
	}
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := dir.Lstat(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was moved or removed meanwhile
		} else if err != nil {
			return err
		}
		if err := do(entry{dir, e.Name(), info}); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if !info.IsDir() {
			continue
		}
		// The slash refuses what is no directory any more; to open a pipe would be to
		// wait for its other end.
		sub, err := dir.OpenRoot(e.Name() + "/")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		err = eachIn(sub, depth+1, do)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// giveBuilder makes dir ready for a build by the app's user: an empty
// directory of its own. In standalone mode the installer makes it itself.
func (op *operation) giveBuilder(a *config.App, dir string) error {
	if a.User == "" {
		return nil
	}
	if err := op.d.files.Mkdir("make-venv", dir, 0o750); err != nil {
		return err
	}
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

// seal closes the source tree: from now on nobody but scotch writes into it.
func (op *operation) seal(a *config.App, rec *Record) error {
	return op.d.sealTree(a, rec.Source)
}

// readers is the group that may read what is written for an app, -1 where the app
// runs as the server does.
func (d *Deployer) readers(a *config.App) (int, error) {
	if a.User == "" {
		return -1, nil
	}
	_, gid, err := ids(a)
	return gid, err
}

// GiveTo makes the app's user the owner of a directory.
func GiveTo(a *config.App, dir string) error {
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}
