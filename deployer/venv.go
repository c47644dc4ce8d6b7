package deployer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"scotch/config"
)

// Virtualenvs live in a store, .venvs/KEY, and instances link to them: what
// satisfies the same declaration is made once. A virtualenv is whole when
// venvRecord lies in it, written last and durably; without that file it is
// half made and never used.
const venvRecord = "scotch-venv.json"

type venv struct {
	Key      string    `json:"key"`
	Shared   bool      `json:"shared"` // others with the key may use it
	From     string    `json:"from"`
	Made     time.Time `json:"made"`
	Packages []string  `json:"packages"`
}

// virtualenv gives the instance a virtualenv: one from the store where the
// dependencies did not change, else a new one.
func (op *operation) virtualenv(ctx context.Context, a *config.App, rec *Record, src string, clean bool) error {
	begin := time.Now()
	var extra []string
	if r, ok := op.d.AppServer.(Requirer); ok {
		var err error
		if extra, err = r.Requires(ctx, rec.Interpreter); err != nil {
			return err
		}
	}
	deps, err := op.d.Toolchain.Dependencies(ctx, a, src, rec.Interpreter, extra)
	if err != nil {
		return err
	}
	rec.Dependencies = deps.From

	store := filepath.Join(op.l.dir, ".venvs")
	if op.elsewhere(a, a.VenvPath) {
		store = filepath.Join(filepath.Dir(a.VenvPath), ".venvs", op.app)
	}
	if !clean && deps.Shareable {
		if dir, v := findVenv(a, store, deps.Key); v != nil {
			rec.Venv, rec.Packages = dir, v.Packages
			op.report.Step("venv", "reused, dependencies unchanged", since(begin))
			return op.linkVenv(a, dir)
		}
	}
	// One made from nothing, or for another user, has a name of its own: the one
	// that it is to replace may be in use.
	dir := filepath.Join(store, deps.Key)
	if _, err := readVenv(dir); clean || !deps.Shareable || err == nil || op.l.usesVenv(dir) {
		dir += "-" + op.id
	}

	for _, n := range deps.Notes {
		op.report.Note("note: %s", n)
	}
	if err := op.makeVenv(ctx, a, rec, src, dir, deps, extra); err != nil {
		op.d.files.RemoveAll("discard-venv", dir)
		return err
	}
	what := plural(len(rec.Packages), "package")
	if deps.From == "" {
		what += ", no dependencies declared"
	} else {
		what += fmt.Sprintf(" from %s with %s", deps.From, deps.Installer)
	}
	op.report.Step("venv", what, since(begin))
	return op.linkVenv(a, dir)
}

func (op *operation) makeVenv(ctx context.Context, a *config.App, rec *Record, src, dir string, deps Dependencies, extra []string) error {
	f := op.d.files
	// What an earlier try left half made.
	if err := f.RemoveAll("clear-venv", dir); err != nil {
		return err
	}
	if err := f.MkdirAll("make-venvs", filepath.Dir(dir), a.DirMode); err != nil {
		return err
	}
	switch {
	case deps.From == "":
		op.report.Note("no requirements.txt, lock file or project found: the virtualenv stays empty")
		op.tellBelow(a, src)
	default:
		op.report.Step("venv", fmt.Sprintf("installing %s with %s", deps.From, deps.Installer), -1)
	}
	if err := op.giveBuilder(a, dir); err != nil {
		return err
	}
	out := op.report.Output()
	defer out.Close()
	i := instanceFor(a, rec)
	i.Venv = dir
	if err := f.before("install"); err != nil {
		return err
	}
	packages, err := op.d.Toolchain.Install(ctx, InstallRequest{
		App: a, Source: src, Dir: dir, Interpreter: rec.Interpreter, Deps: deps, Extra: extra, Pinned: op.pinned,
		Env: i.environment(append(append([]config.Var(nil), op.d.BuildEnv...), a.BuildEnv...)), Out: out, Timeout: a.StepTimeout, Writes: append(op.buildWrites(a, rec), dir),
	})
	if err != nil {
		return op.afterInstall(a, deps, out, err)
	}
	rec.Venv, rec.Packages = dir, packages
	if err := op.d.sealTree(a, dir); err != nil {
		return err
	}
	// Whole on disk before the record says so.
	if err := f.SyncFS("sync-venv", dir); err != nil {
		return err
	}
	data, err := json.MarshalIndent(venv{Key: deps.Key, Shared: deps.Shareable, From: deps.From, Made: time.Now().UTC(), Packages: packages}, "", "  ")
	if err != nil {
		return err
	}
	return f.Write("record-venv", filepath.Join(dir, venvRecord), data, 0o644)
}

// afterInstall adds the next step to the error of an installer that has none.
func (op *operation) afterInstall(a *config.App, deps Dependencies, out *lineWriter, err error) error {
	if !errors.As(err, new(*ExitError)) || strings.Contains(err.Error(), "\n") {
		return err
	}
	what := deps.From
	if what == "" {
		what = "it"
	}
	next := fmt.Sprintf("mend %s and %s", what, op.again(a))
	if !out.silent() {
		next = "its output above says why; " + next
	}
	return fmt.Errorf("%w\n%s", err, next)
}

// plainName is a directory that needs no quotes.
var plainName = pattern(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// tellBelow names a directory of the source that looks like the app where nothing
// at the top does.
func (op *operation) tellBelow(a *config.App, src string) {
	if a.Root != "" {
		return
	}
	for _, name := range []string{"requirements.txt", "pyproject.toml", "Pipfile", "manage.py", "wsgi.py"} {
		if isThere(filepath.Join(src, name)) {
			return
		}
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return
	}
	for _, e := range entries {
		for _, name := range []string{"requirements.txt", "pyproject.toml", "Pipfile", "manage.py"} {
			if e.IsDir() && plainName().MatchString(e.Name()) && isThere(filepath.Join(src, e.Name(), name)) {
				op.report.Note("note: %s is in %q, not at the top; if the app is there: %s config %s set root=%s", name, e.Name(), op.d.SSH, op.app, e.Name())
				return
			}
		}
	}
}

// findVenv looks for a whole virtualenv with that key that the app's user can
// read; of several, the newest.
func findVenv(a *config.App, store, key string) (dir string, v *venv) {
	found, _ := filepath.Glob(filepath.Join(store, key+"*"))
	for _, d := range found {
		if c, err := readVenv(d); err == nil && c.Key == key && c.Shared && !damagedVenv(d) && readable(a, d) && (v == nil || c.Made.After(v.Made)) {
			dir, v = d, c
		}
	}
	return dir, v
}

func readVenv(dir string) (*venv, error) {
	data, err := os.ReadFile(filepath.Join(dir, venvRecord))
	if err != nil {
		return nil, err
	}
	v := new(venv)
	return v, json.Unmarshal(data, v)
}

// usesVenv tells whether an instance has the virtualenv, whatever became of it.
func (l layout) usesVenv(dir string) bool {
	ids, _ := l.instanceIDs()
	return slices.ContainsFunc(ids, func(id string) bool {
		rec, err := readRecord(filepath.Join(l.instance(id), recordName))
		return err == nil && rec.Venv == dir
	})
}

// linkVenv makes the instance's venv a link into the store, and the configured
// venv_path too where that lies elsewhere.
func (op *operation) linkVenv(a *config.App, dir string) error {
	if op.elsewhere(a, a.VenvPath) {
		if err := op.d.files.MkdirAll("make-venv-path", filepath.Dir(a.VenvPath), a.DirMode); err != nil {
			return err
		}
		if err := op.d.files.Symlink("link-venv-path", dir, a.VenvPath); err != nil {
			return err
		}
		op.outside = append(op.outside, a.VenvPath)
	}
	return op.link("link-venv", dir, "venv")
}

// unusedVenvs are the virtualenvs of a store that no instance links to.
func unusedVenvs(store string, used map[string]bool) (unused []string, err error) {
	entries, err := os.ReadDir(store)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if dir := filepath.Join(store, e.Name()); !used[dir] {
			unused = append(unused, dir)
		}
	}
	return unused, nil
}
