package deployer

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"scotch/config"
)

// The file system of the instance alone was put onto the disk: with [app] src_path on
// another one a loss of power just after a push left a release without its source.
func TestEachFileSystemIsSynced(t *testing.T) {
	here := t.TempDir()
	there, err := os.MkdirTemp("/dev/shm", "scotch")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(there)
	if dev(t, here) == dev(t, there) {
		t.Skip("/dev/shm is no file system of its own")
	}
	for _, c := range []struct {
		name                      string
		instance, src, venv, data string
		newData                   bool
		want                      []string
	}{
		{"all in one place", here, here, here, here, true, []string{"sync-instance"}},
		{"the source elsewhere", here, there, here, here, true, []string{"sync-instance", "sync-instance/source"}},
		{"the virtualenv elsewhere", here, here, there, here, false, []string{"sync-instance", "sync-instance/venv"}},
		{"all but the instance elsewhere", here, there, there, there, true, []string{"sync-instance", "sync-instance/source"}},
		{"data elsewhere, with first content", here, here, here, there, true, []string{"sync-instance", "sync-instance/data"}},
		{"data elsewhere, as it was", here, here, here, there, false, []string{"sync-instance"}},
	} {
		var did []string
		d := &Deployer{files: &Files{Before: func(op string) error { did = append(did, op); return nil }}}
		// The instance's directory may be a link to where it is configured to be.
		link := filepath.Join(t.TempDir(), "000001")
		if err := os.Symlink(c.instance, link); err != nil {
			t.Fatal(err)
		}
		op := &operation{d: d, dir: link, newData: c.newData}
		if err := op.sync(&config.App{DataPath: c.data}, &Record{Source: c.src, Venv: c.venv}); err != nil {
			t.Error(err)
		}
		if !slices.Equal(did, c.want) {
			t.Errorf("%s: %q, want %q", c.name, did, c.want)
		}
	}
}

func dev(t *testing.T, path string) uint64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Dev
}
