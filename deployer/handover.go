package deployer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"time"

	"scotch/config"
)

// When [app] user or group changes, a deploy makes what the new user is to read
// anew: source and virtualenv are sealed for one group. The app's data goes over
// to the new user before anything of the new version uses it, and back when the
// deploy fails.

// owner returns who a file belongs to.
func owner(path string) (uid, gid int, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}

// readable tells whether a sealed tree is the app's user's to read.
func readable(a *config.App, dir string) bool {
	if a.User == "" {
		return true
	}
	_, want, err := ids(a)
	if err != nil {
		return false
	}
	_, gid, err := owner(dir)
	return err == nil && gid == want
}

// OwnedByAnother tells whether a directory is there and belongs to another user
// than the app's.
func OwnedByAnother(a *config.App, dir string) bool {
	uid, _, err := owner(dir)
	want, _, err2 := ids(a)
	return err == nil && err2 == nil && uid != want
}

// sameUser refuses to run a release's files as a user who can't read them.
func (op *operation) sameUser(a *config.App, rec *Record) error {
	// A virtualenv that is gone is nobody's: a rebuild makes it anew.
	if a.User == "" || readable(a, rec.Source) && (rec.Venv == "" || !isThere(rec.Venv) || readable(a, rec.Venv)) {
		return nil
	}
	was := "another user"
	if rec.Plan.runs() {
		was = fmt.Sprintf("%q", rec.Plan.Process.User)
		if rec.Plan.Process.User == a.User {
			was = fmt.Sprintf("%q with group %q", a.User, rec.Plan.Process.Group)
		}
	}
	now := fmt.Sprintf("%q", a.User)
	if rec.Plan.runs() && rec.Plan.Process.User == a.User {
		now = fmt.Sprintf("group %q", a.Group)
	}
	next := fmt.Sprintf("deploy it again: %s deploy %s", op.d.SSH, op.app)
	switch {
	case op.file != nil:
		next = fmt.Sprintf("change it with --no-restart, then deploy it: %s deploy %s", op.d.SSH, op.app)
	case op.what == "rollback":
		next = fmt.Sprintf("deploy its commit again: %s deploy %s --ref %s", op.d.SSH, op.app, releaseRef(rec.Release))
	}
	return &RefusedError{Reason: fmt.Sprintf("the app's user changed from %s to %s, and v%d's files are for the old one alone", was, now, rec.Release), Hint: next}
}

// ownData gives the app's data to its user. Data of another user, the one that
// the live version runs as, is opened for the group of the new one alone until
// handOver, so that it serves on.
func (op *operation) ownData(a *config.App) error {
	if a.User == "" {
		return nil
	}
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	oldUID, oldGID, err := owner(a.DataPath)
	if err != nil {
		return err
	}
	if oldUID == 0 || oldUID == uid || op.l.liveID() == "" {
		if oldUID != 0 && oldUID != uid {
			if err := chownAll(a.DataPath, oldUID, uid, gid); err != nil {
				return err
			}
		}
		return op.d.own(a, a.DataPath, false)
	}
	op.handOver = func() error {
		op.report.Note("the app's user is new: its data, %s, is %s's from here on", a.DataPath, a.User)
		return chownAll(a.DataPath, oldUID, uid, gid)
	}
	op.undo = append(op.undo, func() {
		err := errors.Join(chownAll(a.DataPath, uid, oldUID, oldGID), os.Chown(a.DataPath, oldUID, oldGID))
		if err != nil {
			op.d.log.WithField("app", op.app).Errorf("giving its data back to its old user: %v", err)
		}
	})
	return os.Chown(a.DataPath, oldUID, gid)
}

// dataBack gives the app's data back to the user of an instance that serves
// again, where the live one runs as another.
func (op *operation) dataBack(live, again *Record) error {
	if !live.Plan.runs() || !again.Plan.runs() || live.Plan.Process.User == again.Plan.Process.User {
		return nil
	}
	a, err := op.d.configureTree(again, config.AppOptions{})
	if err != nil {
		return err
	}
	a.User, a.Group = again.Plan.Process.User, again.Plan.Process.Group
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	from, _, err := owner(a.DataPath)
	if err != nil {
		return err
	}
	return chownAll(a.DataPath, from, uid, gid)
}

// chownAll gives what one user has below a directory, and the directory, to
// another. It follows no link out of it, and leaves what others have.
func chownAll(dir string, from, uid, gid int) error {
	return eachBelow(dir, func(e entry) error {
		if int(e.info.Sys().(*syscall.Stat_t).Uid) != from {
			return nil
		}
		return e.lchown(uid, gid)
	})
}

// checkReach refuses a directory of the app's that its user can't get to: a
// start would blame the program for it.
func (op *operation) checkReach(a *config.App, rec *Record) error {
	if a.User == "" {
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
	uid, gid, err := ids(a)
	if err != nil {
		return err
	}
	mine := map[string]bool{fmt.Sprint(gid): true}
	for _, g := range groups {
		mine[g] = true
	}
	for _, place := range []struct{ key, path string }{
		{"instance_path", a.InstancePath}, {"src_path", rec.Source}, {"run_path", a.RunPath}, {"venv_path", a.VenvPath}, {"data_path", a.DataPath},
	} {
		for dir := filepath.Dir(place.path); ; dir = filepath.Dir(dir) {
			closed, mode, err := closedTo(dir, uid, mine)
			if errors.Is(err, fs.ErrNotExist) {
				closed, err = false, nil // made later, as dirmode says
			}
			if err != nil {
				return err
			}
			// An access control list may open what the mode does not show.
			if closed && !op.enters(a, dir) {
				at := op.placeOrigin(a, place.key)
				at.Problem = fmt.Sprintf("user %q of the app can't get to %q: %q is closed to it (mode %04o)", a.User, place.path, dir, mode.Perm())
				at.Hint = fmt.Sprintf("name a directory that is open to others, or open this one: chmod o+x %s", dir)
				return at
			}
			if dir == "/" {
				break
			}
		}
	}
	return nil
}

// enters asks the system whether the app's user may enter a directory.
func (op *operation) enters(a *config.App, dir string) bool {
	err := op.d.Runner.Run(op.d.ctx, Command{
		Args: []string{"test", "-x", dir}, Dir: "/", Env: []string{"PATH=/usr/bin:/bin"}, User: a.User, Group: a.Group, Umask: -1, Timeout: 10 * time.Second,
	})
	return err == nil
}

// placeOrigin is the line that puts a directory of the app's where it is.
func (op *operation) placeOrigin(a *config.App, key string) *config.Error {
	e := &config.Error{Section: "app", Key: key}
	at := a.Origin(e.Section, e.Key)
	if at.Layer == config.LayerDefaults {
		if e.Key != "instance_path" && e.Key != "data_path" && a.Origin("app", "instance_path").Layer != config.LayerDefaults {
			return op.placeOrigin(a, "instance_path")
		}
		e.Section, e.Key = "paths", map[bool]string{true: "data", false: "instances"}[key == "data_path"]
		at = a.Origin(e.Section, e.Key)
	}
	e.File, e.Line = at.File, at.Line
	return e
}

// closedTo tells whether a directory's mode keeps a user out of what is below.
func closedTo(dir string, uid int, groups map[string]bool) (bool, fs.FileMode, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return false, 0, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	mode := fi.Mode()
	switch {
	case int(st.Uid) == uid:
		return mode&0o100 == 0, mode, nil
	case groups[fmt.Sprint(st.Gid)]:
		return mode&0o010 == 0, mode, nil
	}
	return mode&0o001 == 0, mode, nil
}
