package deployer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scotch/config"
)

// deep makes that many directories, one in the other: no path is so long.
func deep(t *testing.T, dir string, n int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for range n {
		if err == nil {
			err = unix.Mkdirat(at, "d", 0o755)
		}
		if err != nil {
			break
		}
		var next int
		next, err = unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(at)
		at = next
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(at)
}

// Each directory of a tree was held open until the last one was reached, to seal it
// and to remove it: a build that made a million took the server's memory and
// descriptors.
func TestTreeOfAMillionDirectories(t *testing.T) {
	dir := made(t, filepath.Join(t.TempDir(), "tree"), "a/file", "z")
	const n = 5000
	deep(t, dir, n)
	deep(t, filepath.Join(dir, "a"), n)
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	err := eachBelow(dir, func(entry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "lie in one another") {
		t.Errorf("%v", err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	// What is left for others meanwhile.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxNested + 200, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	if err := new(Files).RemoveAll("remove", dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestRemoveTree(t *testing.T) {
	top, outside := t.TempDir(), made(t, t.TempDir(), "keep")
	dir := made(t, filepath.Join(top, "tree"), "a/b/c", "d")
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(dir, "a", fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{"tree/a/out", "link"} {
		if err := os.Symlink(outside, filepath.Join(top, l)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"tree", "link", "nothing"} {
		if err := RemoveTree(filepath.Join(top, p)); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(top); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "keep")); err != nil {
		t.Error(err)
	}
}

// A pipe in the place of a directory of the app's data made root wait for its other
// end, and the deploy with it, for ever.
func TestSharedDataIsAPipe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	a := &config.App{Name: "blog", User: "nobody", Group: "nogroup", DataPath: t.TempDir()}
	if _, _, err := ids(a); err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"pipe", "on"} {
		if err := unix.Mkfifo(filepath.Join(a.DataPath, name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, mapped := range []string{"pipe", "on/the/way"} {
		done := make(chan error, 1)
		go func() {
			done <- (&Deployer{}).shareData(a, config.Static{URL: "/x/", Path: mapped, Data: true}, 65534)
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "not a directory") {
				t.Errorf("%s: %v", mapped, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it waits", mapped)
		}
	}
}
