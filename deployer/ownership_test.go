package deployer

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"scotch/config"
)

func made(t *testing.T, dir string, names ...string) string {
	t.Helper()
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(n), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A directory became a link while root went through a tree, and what is behind it
// was given away: to anybody's files, for who runs code in a build.
func TestTreeIsLeftByNoLink(t *testing.T) {
	dir, outside := made(t, t.TempDir(), "a/file", "swapped/file", "swapped/etc/file", "z"), made(t, t.TempDir(), "file", "etc/file")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var seen []string
	err := eachBelow(dir, func(e entry) error {
		seen = append(seen, filepath.Join(e.in.Name(), e.name))
		if e.name == "swapped" {
			p := filepath.Join(dir, "swapped")
			if err := os.Rename(p, p+".away"); err != nil {
				t.Error(err)
			}
			if err := os.Symlink(outside, p); err != nil {
				t.Error(err)
			}
		}
		return e.chmod(0o700)
	})
	if err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("%v", err)
	}
	if slices.ContainsFunc(seen, func(p string) bool { return strings.HasPrefix(p, outside) }) {
		t.Errorf("%q", seen)
	}
	filepath.WalkDir(outside, func(p string, _ fs.DirEntry, err error) error {
		if fi, err := os.Lstat(p); err != nil || p != outside && fi.Mode().Perm()&0o044 == 0 {
			t.Errorf("%s: %v %v", p, fi, err)
		}
		return err
	})
}

// The same in a race, and by the method that seals a source.
func TestSealRacesWithABuild(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	a := &config.App{Name: "blog", User: "nobody", Group: "nogroup"}
	_, gid, err := ids(a)
	if err != nil {
		t.Skip(err)
	}
	outside := made(t, t.TempDir(), "file")
	dir := made(t, t.TempDir(), "keep", "d/file")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		p := filepath.Join(dir, "d")
		for {
			select {
			case <-stop:
				return
			default:
			}
			unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
		}
	}()
	for range 1000 {
		(&Deployer{}).sealTree(a, dir) // which may fail: the race goes on
	}
	close(stop)
	<-stopped
	if fi, err := os.Lstat(link); err == nil && fi.IsDir() { // it is the link's turn
		unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "d"), unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
	}
	fi, err := os.Stat(filepath.Join(outside, "file"))
	if err != nil || int(fi.Sys().(*syscall.Stat_t).Gid) == gid {
		t.Errorf("a file outside of the tree belongs to the app: %v", err)
	}
	if err := (&Deployer{}).sealTree(a, dir); err != nil {
		t.Error(err)
	}
	for name, mode := range map[string]fs.FileMode{".": 0o750, "keep": 0o644, "d": 0o755, "d/file": 0o644} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != mode || int(fi.Sys().(*syscall.Stat_t).Gid) != gid {
			t.Errorf("%s: %v %v", name, fi, err)
		}
	}
}

// A link in the app's data led the first content of a persist path, made and given
// away by root, to wherever the app liked.
func TestPersistStaysInTheData(t *testing.T) {
	uid, gid := -1, -1
	if os.Geteuid() == 0 {
		uid, gid = 65534, 65534
	}
	source := made(t, t.TempDir(), "media/a", "media/deep/b", "db.sqlite3")
	if err := os.Symlink("a", filepath.Join(source, "media/link")); err != nil {
		t.Fatal(err)
	}
	outside, dir := t.TempDir(), t.TempDir()
	for _, name := range []string{"media", "there"} {
		if err := os.Symlink(outside, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	made(t, outside, "has/file")
	data, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	d := &Deployer{}
	for _, p := range []string{"media/new", "media/new/deep", "there/db.sqlite3"} {
		err := d.firstContent(data, p, filepath.Join(source, "media"), true, uid, gid)
		if err == nil || !strings.Contains(err.Error(), "make it by hand, or remove the link") {
			t.Errorf("%s: %v", p, err)
		}
	}
	// What an operator has put elsewhere is used as it is.
	if err := d.firstContent(data, "media/has", filepath.Join(source, "media"), true, uid, gid); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("made outside: %v", entries)
	}

	for p, from := range map[string]string{"up/media": "media", "db.sqlite3": "db.sqlite3", "empty/dir": "nothing", "none.db": "nothing"} {
		if err := d.firstContent(data, p, filepath.Join(source, from), filepath.Ext(p) != "", uid, gid); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	for p, want := range map[string]string{"up/media/a": "media/a", "up/media/link": "media/a", "up/media/deep/b": "media/deep/b", "db.sqlite3": "db.sqlite3"} {
		if b, err := os.ReadFile(filepath.Join(dir, p)); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", p, b, err)
		}
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() == "none.db" || strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%q is left", e.Name())
		}
	}
	if uid < 0 {
		return
	}
	filepath.WalkDir(filepath.Join(dir, "up"), func(p string, _ fs.DirEntry, err error) error {
		if fi, err := os.Lstat(p); err != nil || int(fi.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Errorf("%s is not the app's: %v", p, err)
		}
		return err
	})
}

// A link of the commit that leads to a persist path, and so into the data, let an
// app turn what root removes and links into anybody's, in the moment after the look.
func TestPersistRacesWithTheApp(t *testing.T) {
	source, dir, outside := made(t, t.TempDir(), "app.py"), t.TempDir(), made(t, t.TempDir(), "c/file")
	if err := os.Symlink("a.d", filepath.Join(source, "m")); err != nil {
		t.Fatal(err)
	}
	looked := 0
	op := &operation{d: &Deployer{files: &Files{Before: func(string) error {
		if looked++; looked == 2 {
			return os.Symlink(outside, filepath.Join(dir, "a.d"))
		}
		return nil
	}}}}
	a := &config.App{Name: "blog", DataPath: dir, DirMode: 0o755, Persist: []string{"a.d", "m/c"}}
	if err := op.persist(a, source); err == nil || !strings.Contains(err.Error(), "leads out of the source") {
		t.Errorf("%v", err)
	}
	if fi, err := os.Lstat(filepath.Join(outside, "c")); err != nil || !fi.IsDir() {
		t.Errorf("what is not the app's was removed: %v %v", fi, err)
	}
}

// The server's files in an app's directory of sockets got their group after their
// name, by that name: an app that was quick had put a link to /etc/shadow there.
func TestFileHasItsGroupBeforeItsName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	dir := t.TempDir()
	looked := false
	f := &Files{Before: func(op string) error {
		if op != "write/rename" {
			return nil
		}
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			looked = true
			if fi, err := e.Info(); err != nil || fi.Sys().(*syscall.Stat_t).Gid != 65534 || fi.Mode().Perm() != 0o640 {
				t.Errorf("%v %v", fi, err)
			}
		}
		return err
	}}
	if err := f.WriteFor(65534, "write", filepath.Join(dir, "uwsgi.ini"), []byte("x"), 0o640); err != nil || !looked {
		t.Errorf("looked: %v, %v", looked, err)
	}
}

// Where the kernel lets everybody link to all files, a build linked to one that is not
// its own, and root made it readable for the app.
func TestSealLeavesAnothersFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	a := &config.App{Name: "blog", User: "nobody", Group: "nogroup"}
	if _, _, err := ids(a); err != nil {
		t.Skip(err)
	}
	parent := made(t, t.TempDir(), "secret", "tree/app.py")
	secret, dir := filepath.Join(parent, "secret"), filepath.Join(parent, "tree")
	if err := os.Chmod(secret, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(secret, filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	if err := (&Deployer{}).sealTree(a, dir); err == nil || !strings.Contains(err.Error(), "not the app's own") {
		t.Error(err)
	}
	if fi, err := os.Stat(secret); err != nil || fi.Sys().(*syscall.Stat_t).Gid != 0 {
		t.Errorf("%v %v", fi, err)
	}
}
