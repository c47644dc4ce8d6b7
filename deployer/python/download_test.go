package python_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/python"
)

// downloader has a uv that "downloads" for 3.98 what $FAKE is. The real one downloads
// in a script, app-download.
func downloader(t *testing.T, dir, fake string, env ...string) *python.Toolchain {
	t.Helper()
	bin, err := os.MkdirTemp("/var/tmp", "scotch-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(bin) })
	os.Chmod(bin, 0o755)
	uv := `#!/bin/sh
case "$1" in
--version) echo "uv 0.99.0"; exit 0;;
python) for v; do :; done
  test "$v" = 3.98 || { printf 'error: Failed to install cpython-%s\n  cause: Failed to download\n  cause: no route to host\n' "$v" >&2; exit 2; }
  d="$UV_PYTHON_INSTALL_DIR/cpython-3.98.1-linux"; rm -rf "$d"; mkdir -p "$d/bin"
  cp "$FAKE" "$d/bin/python3.98"; chmod 755 "$d/bin/python3.98"; ln -sfn "$d" "$UV_PYTHON_INSTALL_DIR/cpython-3.98-linux"
  exit 0;;
esac
exit 1
`
	if err := os.WriteFile(filepath.Join(bin, "uv"), []byte(uv), 0o755); err != nil {
		t.Fatal(err)
	}
	return python.New(newRunner(t), python.Options{Path: bin + ":/usr/bin:/bin", Downloads: dir, DownloadEnv: append(env, "FAKE="+fake)})
}

// pretender is a program that says it is Python 3.98.1.
func pretender(t *testing.T) string {
	t.Helper()
	online(t) // not with -short: it is compiled
	file := filepath.Join(t.TempDir(), "pretender")
	buildGo(t, file, `package main

import "fmt"

func main() { fmt.Println("[\"CPython\", \"3.98.1\", \"\", \"23.0\", \"glibc 2.36\"]") }
`)
	return file
}

// An interpreter that is not there is downloaded, where that is allowed.
func TestDownloadedInterpreter(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(t.TempDir(), "pythons")
	app := &config.App{Name: "blog", Interpreter: "python3"}
	_, err := downloader(t, dir, "/bin/echo").Interpreter(t.Context(), app, tree(t, ".python-version", "3.97"))
	if err == nil || !strings.Contains(err.Error(), "no Python 3.97 on this server, which .python-version asks for\nand uv could not download it: Failed to install cpython-3.97: no route to host (uv exited with 2)\nthis server has:\n") ||
		!strings.Contains(err.Error(), "\ninstall the one that is asked for, or name one of these in scotch.cfg:\n  [app]\n  interpreter = /") {
		t.Errorf("%v", err)
	}
	for _, never := range []*python.Toolchain{downloader(t, "", "/bin/echo"), downloader(t, dir, "/bin/echo", "UV_PYTHON_DOWNLOADS=never")} {
		_, err = never.Interpreter(t.Context(), app, tree(t, ".python-version", "3.98"))
		if err == nil || strings.Contains(err.Error(), "download") {
			t.Errorf("%v", err)
		}
	}
	if _, err = downloader(t, dir, "/bin/echo").Interpreter(t.Context(), app, tree(t, ".python-version", "3.98")); err == nil {
		t.Error("what is no Python is taken for one")
	}
	if _, err := os.Stat(filepath.Join(dir, "cpython-3.98.1-linux/bin/python3.98")); err != nil {
		t.Error(err)
	}
}

// A download that was cut off, or whose files a loss of power took, is never used:
// the next one takes its place. What is whole can be read by each app's user.
func TestHalfDownloadedInterpreter(t *testing.T) {
	t.Parallel()
	fake := pretender(t)
	base, err := os.MkdirTemp("/var/tmp", "scotch-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	os.Chmod(base, 0o755)
	dir := filepath.Join(base, "pythons")
	app := &config.App{Name: "blog", Interpreter: "python3"}
	if os.Geteuid() == 0 {
		app.User = "nobody"
	}
	half := filepath.Join(dir, "cpython-3.98.1-linux/bin/python3.98")
	os.MkdirAll(filepath.Dir(half), 0o755)
	b, err := os.ReadFile(fake)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(half, b, 0o755)
	src := tree(t, ".python-version", "3.98")
	if in, err := downloader(t, dir, fake, "UV_PYTHON_DOWNLOADS=never").Interpreter(t.Context(), app, src); err == nil || strings.Contains(err.Error(), half) {
		t.Errorf("half of one is used: %+v %v", in, err)
	}
	tc := downloader(t, dir, fake)
	for _, why := range []string{".python-version 3.98, downloaded by uv", ".python-version 3.98"} {
		in, err := tc.Interpreter(t.Context(), app, src)
		if want := (deployer.Interpreter{Path: half, Version: "3.98.1", Why: why}); err != nil || in != want {
			t.Errorf("%+v %v, want %+v", in, err, want)
		}
	}
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o044 != 0o044 || info.Mode().Perm()&0o022 != 0 {
			t.Errorf("%s: %v %v", p, info.Mode(), err)
		}
		return err
	})
}
