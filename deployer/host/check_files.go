package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scotch/config"
)

func (m *Machine) checkServer(ctx context.Context, f *findings, o CheckOptions) {
	bad := o.Server
	if bad == nil {
		return
	}
	start := "systemctl start scotch; journalctl -u scotch says why it ended"
	if m.Site.Mode == "standalone" {
		start = o.Start
	}
	socket := filepath.Join(m.Site.Paths.Run, "control.sock")
	switch {
	case errors.Is(bad, context.DeadlineExceeded):
		f.wrong("systemctl restart scotch (apps go on); its log says more: journalctl -u scotch", "the server has %s and does not answer", socket)
	case m.staleSocket(ctx, socket):
		f.wrong(start, "the server is gone and has left %s (killed, or out of memory); its next start replaces it", socket)
	default:
		f.wrong(start, "the server does not run")
	}
}

func (m *Machine) staleSocket(ctx context.Context, socket string) bool {
	if !exists(socket) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	c.Close()
	return false
}

func (m *Machine) checkUsers(_ context.Context, f *findings) {
	git := m.Site.Server.GitUser
	if _, err := user.Lookup(git); err != nil {
		f.wrong("scotch setup", "there is no user %q, who git runs as ([server] git_user)", git)
	}
	if !m.uses("nginx") {
		return
	}
	group, err := m.Site.Get("nginx", "group")
	if err != nil || group == "" {
		return
	}
	web, err := user.LookupGroup(group)
	if err != nil {
		f.wrong("install nginx, or set [nginx] group to the group of its workers", "there is no group %q, as which nginx reaches the apps", group)
		return
	}
	// Whoever may connect to an app's socket can run code as its user.
	if u, err := user.Lookup(git); err == nil {
		if groups, err := u.GroupIds(); err == nil && slices.Contains(groups, web.Gid) {
			f.wrong("gpasswd --delete "+git+" "+group, "%q is in the group %q: git could run code as any app's user", git, group)
		}
	}
}

// checkPermissions finds what somebody could write or read who should not, and
// what somebody can't reach who must.
func (m *Machine) checkPermissions(_ context.Context, f *findings) {
	s := m.Site
	for _, d := range m.directories() {
		fi, err := os.Stat(d.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.wrong("scotch setup", "%s is missing", d.path)
			continue
		case err != nil:
			f.wrong("run this as root", "%v", err)
			continue
		case !fi.IsDir():
			f.wrong("move it away, then: scotch setup", "%s is no directory", d.path)
			continue
		}
		if owner(fi) != 0 {
			f.wrong("chown root: "+d.path, "%s belongs to %s, who could replace what is in it", d.path, name(owner(fi)))
		}
		if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&fs.ModeSticky == 0 {
			f.wrong("chmod go-w "+d.path, "%s can be written by others (mode %04o)", d.path, fi.Mode().Perm())
		}
	}
	for _, path := range []string{s.Paths.Instances, s.Paths.Data, s.Paths.Repositories} {
		if closed := closedTo(path); closed != "" {
			f.wrong("chmod o+x "+closed, "the apps' users and git can't get through %s to %s", closed, path)
		}
	}
	secrets := []string{s.Server.HostKey}
	apps, _ := s.Apps()
	for _, app := range apps {
		secrets = append(secrets, filepath.Join(s.Paths.AppsEnabled, app+".cfg"))
	}
	for _, path := range secrets {
		checkSecret(f, path)
	}
	for _, path := range append(slices.Clone(s.Files), s.Server.AuthorizedKeys, m.serverProgram()) {
		if fi, err := os.Stat(path); err == nil && (owner(fi) != 0 || fi.Mode().Perm()&0o022 != 0) {
			f.wrong(fmt.Sprintf("chown root: %s && chmod go-w %s", path, path), "%s can be changed by others than root (%s, mode %04o)", path, name(owner(fi)), fi.Mode().Perm())
		}
	}
	if m.uses("nginx") {
		m.checkSockets(f, apps)
	}
}

func checkSecret(f *findings, path string) {
	if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o077 != 0 {
		f.wrong("chmod 600 "+path, "%s can be read by others (mode %04o)", path, fi.Mode().Perm())
	}
}

// checkPrivate is checkPermissions where everything is one user's. Whether others
// get as far as to its files is not asked: with a host key that they could read no
// server starts.
func (m *Machine) checkPrivate(_ context.Context, f *findings) {
	checkSecret(f, m.Site.Server.HostKey)
	for _, path := range append(slices.Clone(m.Site.Files), m.Site.Server.AuthorizedKeys) {
		if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o022 != 0 {
			f.wrong("chmod go-w "+path, "%s can be changed by others (mode %04o)", path, fi.Mode().Perm())
		}
	}
	if dir := OpenToOthers(m.Site); dir != "" {
		f.note("chmod 700 "+dir, "other users of this machine may read what is in %s: sources, data, logs", dir)
	}
}

// OpenToOthers is the directory of a standalone site where others may enter it,
// else "".
func OpenToOthers(s *config.Site) string {
	dir := s.Paths.Configuration
	if fi, err := os.Stat(dir); s.Mode != "standalone" || err != nil || fi.Mode().Perm()&0o011 == 0 {
		return ""
	}
	return dir
}

// checkSockets looks whether nginx, and nobody else, reaches what is live.
func (m *Machine) checkSockets(f *findings, apps []string) {
	group, _ := m.Site.Get("nginx", "group")
	web, err := user.LookupGroup(group)
	if err != nil {
		return
	}
	for _, app := range apps {
		a, err := m.Site.App(app, config.AppOptions{})
		if err != nil {
			continue
		}
		dir := filepath.Join(m.Site.Paths.Instances, app, "current", "run")
		fi, err := os.Stat(dir)
		if err != nil {
			continue // nothing is live
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.Type()&fs.ModeSymlink != 0 && strings.HasSuffix(e.Name(), ".sock") {
				to, _ := os.Readlink(filepath.Join(dir, e.Name()))
				f.wrong("find out why its code does that, then: restart "+app, "%s has put a link in the place of its socket, to %q: nginx asks that in its name", app, to)
			}
		}
		st := fi.Sys().(*syscall.Stat_t)
		if fi.Mode().Perm() != 0o750 || strconv.Itoa(int(st.Gid)) != web.Gid {
			f.wrong("restart "+app, "%s is not for %s and nginx (group %s) alone: it is mode %04o, group %d", dir, a.User, group, fi.Mode().Perm(), st.Gid)
		}
	}
}

// closedTo is the first directory on the way to path that others can't get
// through, "" for none.
func closedTo(path string) string {
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		at = filepath.Join(at, part)
		if fi, err := os.Stat(at); err == nil && fi.Mode().Perm()&0o001 == 0 {
			return at
		}
	}
	return ""
}

func owner(fi fs.FileInfo) int { return int(fi.Sys().(*syscall.Stat_t).Uid) }

func name(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "user " + strconv.Itoa(uid)
}

// checkDisk looks at the room on each file system that the site is on, once.
func (m *Machine) checkDisk(_ context.Context, f *findings) {
	p := m.Site.Paths
	seen := map[uint64]bool{}
	for _, path := range []string{p.Instances, p.Repositories, p.Data, p.Logs, p.Run, p.Configuration, "/tmp"} {
		path = firstExisting(path)
		fi, err := os.Stat(path)
		if err != nil {
			continue
		}
		device := uint64(fi.Sys().(*syscall.Stat_t).Dev)
		var st unix.Statfs_t
		if seen[device] || unix.Statfs(path, &st) != nil {
			continue
		}
		seen[device] = true
		free := int64(st.Bavail) * st.Bsize
		if free < m.Site.Server.MinFree && (path == p.Instances || path == p.Repositories || path == p.Data || path == p.Logs) {
			f.wrong("prune, df, or a larger disk; [server] min_free says how much is to stay free", "%s has %d MB free: pushes are refused below %d MB", path, free>>20, m.Site.Server.MinFree>>20)
		} else if free < 8<<20 {
			f.wrong("free some", "%s has %d MB free", path, free>>20)
		}
		// Some file systems (btrfs) have no fixed number of inodes, and say 0.
		if st.Files > 0 && st.Ffree < max(st.Files/50, 1000) && st.Files > 5000 {
			f.wrong("prune; a virtualenv has thousands of files (df -i)", "%s has %d of %d inodes free", path, st.Ffree, st.Files)
		}
		if st.Flags&unix.ST_RDONLY != 0 && !strings.HasPrefix(path, "/tmp") {
			f.wrong("dmesg says why; after a mistake of the disk: fsck, then mount -o remount,rw", "%s is mounted read-only", path)
		}
	}
}
