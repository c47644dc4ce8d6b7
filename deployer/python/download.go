package python

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// maxDownload bounds the download of an interpreter.
const maxDownload = 5 * time.Minute

// wholeMark lies in a downloaded interpreter that is whole, and on disk.
const wholeMark = ".scotch-whole"

// download lets uv get an interpreter (https://docs.astral.sh/uv/guides/install-python/):
// builds of python-build-standalone, whose hashes are in uv itself. It runs as the
// server, not as the app's user: all apps share what it gets, so none may write it.
// Of the app it takes nothing but numbers. It returns why it did not work.
func (t *Toolchain) download(ctx context.Context, app *config.App, w want, uv string) (failed string, err error) {
	asked := w.forUV()
	if asked == "" || t.opts.Downloads == "" || uv == "" || slices.Contains(t.opts.DownloadEnv, "UV_PYTHON_DOWNLOADS=never") {
		return "", nil
	}
	t.downloading.Lock()
	defer t.downloading.Unlock()
	if _, ok := newest(t.here(ctx, app), w); ok {
		return "", nil // somebody else's, meanwhile
	}
	if err := t.opts.Files.MkdirAll("make-pythons", t.opts.Downloads, 0o755); err != nil {
		return "", fmt.Errorf("make room for interpreters: %w", err)
	}
	timeout := maxDownload
	if app.StepTimeout > 0 {
		timeout = min(timeout, app.StepTimeout)
	}
	env := []string{
		"PATH=" + t.opts.Path, "HOME=" + t.opts.Home, "LANG=C.UTF-8", "NO_COLOR=1",
		"UV_PYTHON_INSTALL_DIR=" + t.opts.Downloads, "UV_PYTHON_INSTALL_BIN=0", "UV_NO_PROGRESS=1", "UV_NO_CACHE=1",
	}
	if _, err := os.Stat(t.opts.CertFile); err == nil {
		env = append(env, "SSL_CERT_FILE="+t.opts.CertFile)
	}
	var out bytes.Buffer
	all := &limited{w: &out, left: 64 << 10}
	// --reinstall: what is there of that version is half made, or it would be used.
	err = t.run.Run(ctx, deployer.Command{
		Args: []string{uv, "python", "install", "--reinstall", asked}, Dir: "/", Env: append(env, t.opts.DownloadEnv...),
		Stdout: all, Stderr: all, Timeout: timeout,
	})
	switch {
	case err == nil:
		return "", t.markWhole()
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	}
	said := strings.Split(strings.TrimSpace(out.String()), "\n")
	why := strings.TrimPrefix(strings.TrimSpace(said[0]), "error: ")
	// A chain of causes follows, or a hint; the last one is the cause.
	for _, line := range slices.Backward(said[1:]) {
		line = strings.TrimSpace(line)
		cause, ok := strings.CutPrefix(line, "cause: ")
		if !ok {
			cause, ok = strings.CutPrefix(line, "Caused by: ")
		}
		if ok {
			why += ": " + cause
			break
		}
	}
	return deployer.FirstLine(mask(why)) + " (" + deployer.FirstLine(err.Error()) + ")", nil
}

// forUV is what is wanted in uv's words, "" where that says too little or too much.
func (w want) forUV() (asked string) {
	switch {
	case len(w.exact.release) > 1 && !w.exact.pre:
		return w.exact.String()
	case len(w.exact.release) == 0 && len(w.specs) == 1:
		for _, c := range w.specs[0] {
			asked += "," + c.op + c.v.String()
			if c.any {
				asked += ".*"
			}
		}
	}
	return strings.TrimPrefix(asked, ",")
}

// downloads are the directories of what was downloaded. uv's links from minor
// versions to them are left out: they turn when another bug-fix release comes.
func (t *Toolchain) downloads() []string {
	dirs, _ := filepath.Glob(filepath.Join(t.opts.Downloads, "cpython-3.*"))
	return slices.DeleteFunc(dirs, func(dir string) bool {
		info, err := os.Lstat(dir)
		return err != nil || !info.IsDir()
	})
}

// markWhole says of what was downloaded that it is whole. uv unpacks beside the
// name and renames, but syncs nothing: after a loss of power there may be a
// directory of that name whose files are empty.
func (t *Toolchain) markWhole() error {
	f := t.opts.Files
	if err := f.SyncFS("sync-python", t.opts.Downloads); err != nil {
		return err
	}
	for _, dir := range t.downloads() {
		mark := filepath.Join(dir, wholeMark)
		if _, err := os.Lstat(mark); err == nil {
			continue
		}
		if err := f.Write("record-python", mark, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// halfMade tells that a directory of programs is of a download that did not end.
func (t *Toolchain) halfMade(bin string) bool {
	dir := filepath.Dir(bin)
	if t.opts.Downloads == "" || filepath.Dir(dir) != filepath.Clean(t.opts.Downloads) {
		return false
	}
	info, err := os.Lstat(filepath.Join(dir, wholeMark))
	return err != nil || !info.Mode().IsRegular() || !slices.Contains(t.downloads(), dir)
}
