package python

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// A build left a pipe where its cache was, and the deploy waited for the other end.
// And one that lies ever deeper cost a walk from the top for each directory.
func TestHostileCache(t *testing.T) {
	dir := t.TempDir()
	pipe, deep := filepath.Join(dir, "pip"), filepath.Join(dir, "uv")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(deep, strings.Repeat("d/", 2*maxNested))
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{below, deep} {
		if err := os.WriteFile(filepath.Join(p, "file"), []byte("1234"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan [2]int64, 1)
	go func() {
		evict(pipe, []cached{{path: "x"}}, 2, 1)
		done <- [2]int64{sizeOf(pipe, nil), sizeOf(deep, nil)}
	}()
	select {
	case got := <-done:
		if got != [2]int64{0, 4} {
			t.Errorf("%d", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
}

// What a build wrote into the metadata of packages was read whole, and kept with the
// release.
func TestInstalledByAHostileBuild(t *testing.T) {
	dir := t.TempDir()
	list := func(metadata string, size int64) ([]string, error) {
		t.Helper()
		meta := filepath.Join(dir, "lib/python3.11/site-packages/evil-1.dist-info/METADATA")
		if err := os.MkdirAll(filepath.Dir(meta), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(meta, []byte(metadata), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(meta, max(size, int64(len(metadata)))); err != nil {
			t.Fatal(err)
		}
		return installed(deployer.InstallRequest{App: &config.App{Name: "blog"}, Dir: dir})
	}
	if got, err := list("Name: evil\nVersion: 1\n\n", 15<<20); err != nil || !slices.Equal(got, []string{"evil==1"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := list("Name: evil\nVersion: "+strings.Repeat("1", 1000)+"\n\n", 0); err == nil {
		t.Errorf("%d bytes", len(got[0]))
	}
}
