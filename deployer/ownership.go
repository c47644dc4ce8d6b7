package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"scotch/config"
)

// In system mode each app has a user of its own. Builds write as that user;
// what they made is then sealed: it belongs to root, and the app may read it.
// In standalone mode a.User is empty and all of this does nothing.

// Grouped is an extra ability of a WebServer that runs as somebody else: the
// group that must be able to connect to the apps' sockets.
type Grouped interface{ Group() string }

// ensureUser makes the app's system user where it is missing.
func (d *Deployer) ensureUser(ctx context.Context, a *config.App) error {
	if a.User == "" {
		return nil
	}
	if _, err := user.Lookup(a.User); err == nil {
		return nil
	}
	err := d.Runner.Run(ctx, Command{
		Args: []string{"useradd", "--system", "--user-group", "--no-create-home", "--home-dir", a.DataPath,
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
	return lchownTree(dir, uid, gid)
}

// sealTree takes a tree that a build made away from the app's user: it belongs
// to root, and its group, the app's, may read.
func (d *Deployer) sealTree(a *config.App, dir string) error {
	if a.User == "" {
		return nil
	}
	_, gid, err := ids(a)
	if err != nil {
		return err
	}
	if err := lchownTree(dir, 0, gid); err != nil {
		return err
	}
	// What a build may have left writable for its group is so no more.
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		mode := fi.Mode().Perm() &^ 0o022
		if p == dir {
			mode = 0o750 // no other app reads below it
		}
		return os.Chmod(p, mode)
	})
}

func lchownTree(dir string, uid, gid int) error {
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, uid, gid)
	})
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

// readableBy lets the app's user read a file that was written for it.
func (d *Deployer) readableBy(a *config.App, path string) error {
	if a.User == "" {
		return nil
	}
	_, gid, err := ids(a)
	if err != nil {
		return err
	}
	return os.Chown(path, 0, gid)
}

// GiveTo makes the app's user the owner of a directory.
func GiveTo(a *config.App, dir string) error {
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}
