package deployer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"scotch/config"
)

// What [static] maps is all that the web server may read of an app. In system
// mode the source is closed to it, so each instance has a directory static/,
// for root and the web server's group alone, with hard links to the files that
// are mapped. The app's data changes while it is served: there the web server's
// group is let in by access control lists (acl.go). In standalone mode the web
// server is the app's own user, and reads the source and the data as they lie.

const staticName = "static"

// Collected is what Django's collectstatic made.
type Collected struct {
	URL  string `json:"url"`  // begins and ends with "/"
	Path string `json:"path"` // below the source, or the data directory
	Data bool   `json:"data,omitempty"`
}

// statics are the mappings of an instance: those of [static], where a persist
// path leads to the data directory, and what was collected.
func statics(a *config.App, rec *Record) []config.Static {
	var all []config.Static
	for _, s := range a.Static {
		s.Data = s.Data || persisted(a, s.Path)
		all = append(all, s)
	}
	c := rec.Collected
	if c == nil {
		return all
	}
	for _, s := range all {
		if s.URL == c.URL {
			return all
		}
	}
	return append(all, config.Static{URL: c.URL, Path: c.Path, Data: c.Data})
}

// persisted tells whether a path of the source is a link into the data
// directory, or below one.
func persisted(a *config.App, name string) bool {
	name = path.Clean(name)
	for _, p := range a.Persist {
		if p = path.Clean(p); name == p || strings.HasPrefix(name, p+"/") {
			return true
		}
	}
	return false
}

// webGroup is the group that the web server's workers run as, -1 where they run
// as the app's own user or there are none.
func (d *Deployer) webGroup(a *config.App) (int, error) {
	g, ok := d.WebServer.(Grouped)
	if a.User == "" || !ok || g.Group() == "" {
		return -1, nil
	}
	grp, err := user.LookupGroup(g.Group())
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(grp.Gid)
}

// route is what the web server is to serve for an instance once it is live.
func (d *Deployer) route(a *config.App, l layout, rec *Record) Route {
	mapped := *a
	mapped.Static = statics(a, rec)
	source := filepath.Join(l.current(), "src", filepath.FromSlash(a.Root))
	if gid, err := d.webGroup(a); err == nil && gid >= 0 {
		source = filepath.Join(l.current(), staticName)
	}
	return Route{
		App: &mapped, Socket: d.AppServer.Socket(l.run()), Protocol: d.protocol(), Source: source,
		Data: a.DataPath, Stopped: l.stopped(), Dir: l.dir,
	}
}

// shareStatic lets the web server read what is mapped, and nothing else.
func (op *operation) shareStatic(a *config.App, rec *Record) error {
	gid, err := op.d.webGroup(a)
	if err != nil {
		return err
	}
	src := filepath.Join(rec.Source, filepath.FromSlash(rec.Root))
	dst := filepath.Join(op.dir, staticName)
	made, mapped := false, map[string]bool{}
	for _, s := range statics(a, rec) {
		if !s.Data && mapped[s.Path] {
			continue // at another URL too
		}
		mapped[s.Path] = mapped[s.Path] || !s.Data
		if s.Data {
			if gid < 0 {
				continue
			}
			if err := op.d.shareData(a, s, gid); err != nil {
				return fmt.Errorf("letting the web server read [static] %s: %w", s.URL, err)
			}
			continue
		}
		from, err := mappedIn(src, s.Path)
		if err != nil {
			op.report.Note("note: [static] %s leads to %q, and %s: it answers 404", s.URL, s.Path, err)
			continue
		}
		if gid < 0 {
			continue
		}
		if !made {
			made = true
			if err := op.makeStatic(dst, gid); err != nil {
				return err
			}
		}
		m := mirror{root: src, mapped: from} // no link is on the way to it
		if err := m.tree(from, filepath.Join(dst, filepath.FromSlash(s.Path))); err != nil {
			return fmt.Errorf("mapping [static] %s: %w", s.URL, err)
		}
		if m.left > 0 {
			op.report.Note("note: [static] %s: %s left out, which lead out of %q", s.URL, plural(m.left, "link"), s.Path)
		}
	}
	if !made {
		return nil
	}
	return op.d.files.SyncFS("sync-static", dst)
}

// mappedIn is where a directory of a source really lies. A build may have put a
// link on the way to it, and root maps what is found there: what a link leads out
// of the source is not the app's to show.
func mappedIn(src, name string) (string, error) {
	root, err := filepath.EvalSymlinks(src)
	if err != nil {
		return "", err
	}
	from, err := filepath.EvalSymlinks(filepath.Join(src, filepath.FromSlash(name)))
	if err == nil && !within(root, from) {
		return "", errors.New("a link leads it out of the source")
	}
	if err == nil {
		if fi, err := os.Lstat(from); err == nil && fi.IsDir() {
			return from, nil
		}
	}
	return "", errors.New("the source has no such directory")
}

func (op *operation) makeStatic(dst string, gid int) error {
	if err := op.d.files.Mkdir("make-static", dst, 0o750); err != nil {
		return err
	}
	return errors.Join(os.Chown(dst, 0, gid), os.Chmod(dst, 0o750))
}

// mirror links the files of a tree that is sealed: nobody changes it meanwhile.
type mirror struct {
	root   string // what links may lead to: the source
	mapped string
	left   int // links that lead elsewhere
}

// tree makes dst a copy of a directory, its files hard links. What is there
// already (another mapping's) is left as it is.
func (m *mirror) tree(from, dst string) error {
	return filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case p == from:
			err = os.MkdirAll(to, 0o755)
		case e.IsDir():
			err = os.Mkdir(to, 0o755)
		case e.Type().IsRegular():
			err = link(p, to)
		case e.Type()&fs.ModeSymlink != 0:
			err = m.symlink(p, to)
		}
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	})
}

// symlink keeps a link within what is mapped, and puts a file in the place of
// one that leads elsewhere in the source.
func (m *mirror) symlink(p, to string) error {
	target, err := os.Readlink(p)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(p)
	root, err2 := filepath.EvalSymlinks(m.root)
	if err != nil || err2 != nil || !within(root, real) {
		m.left++
		return nil
	}
	if !filepath.IsAbs(target) && within(m.mapped, filepath.Join(filepath.Dir(p), target)) {
		return os.Symlink(target, to)
	}
	if fi, err := os.Lstat(real); err == nil && fi.Mode().IsRegular() {
		return link(real, to)
	}
	m.left++
	return nil
}

// link makes a hard link, or a copy where file systems differ. The file is made
// readable for everybody: nobody but root, the app and the web server gets
// through to it.
func link(from, to string) error {
	fi, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if mode := fi.Mode().Perm(); mode&0o004 == 0 {
		if err := os.Chmod(from, mode|0o044); err != nil {
			return err
		}
	}
	err = os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	// The same file has the same ETag everywhere.
	return errors.Join(err, out.Chmod(0o644), out.Close(), os.Chtimes(to, fi.ModTime(), fi.ModTime()))
}
