package python

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// format is part of each key. It changes with whatever makes the same
// declaration give another virtualenv.
const format = "4"

// How an app's dependencies are installed.
type kind int

const (
	none         kind = iota
	lockedByUV        // uv.lock
	exported          // poetry.lock, pdm.lock, Pipfile.lock
	listed            // requirements.txt
	project           // the source is a package that is installed itself
	projectsList      // pyproject.toml only lists dependencies
)

// declaration is what a source declares.
type declaration struct {
	kind    kind
	from    string // the file, "" for none
	files   []file
	needs   []string  // for projectsList: PEP 508 requirements
	lock    *lockfile // for exported
	root    bool      // for exported: the project itself is installed too
	mutable string    // why the result can't be used again, "" where it can
	notes   []string
}

// Dependencies implements deployer.Toolchain.
func (t *Toolchain) Dependencies(ctx context.Context, app *config.App, src string, in deployer.Interpreter, extra []string) (deployer.Dependencies, error) {
	d, err := t.declared(ctx, app, src, in)
	if err != nil {
		return deployer.Dependencies{}, err
	}
	deps := deployer.Dependencies{From: d.from, Shareable: d.mutable == "", Notes: d.notes}
	inst, err := t.installer(ctx, app, in)
	if err != nil {
		return deployer.Dependencies{}, err
	}
	if inst.note != "" {
		deps.Notes = append(deps.Notes, inst.note)
	}
	if d.kind == lockedByUV && inst.uv == "" {
		return deployer.Dependencies{}, errors.New("uv.lock is installed by uv, which is not on the server's PATH\ninstall uv (https://docs.astral.sh/uv/), or push a requirements.txt instead: uv export --frozen --no-dev -o requirements.txt")
	}
	deps.Installer = inst.name

	p, err := t.python(ctx, app, in.Path)
	if err != nil {
		return deployer.Dependencies{}, err
	}
	// Not the installer's version: what it installs is in the declaration, and a
	// newer uv is no reason to install every app anew. Nor what else of an
	// interpreter may change: Changed judges that.
	tool, _, _ := strings.Cut(inst.name, " ")
	h := keyHash{sha256.New()}
	h.add("format", format, "kind", fmt.Sprint(d.kind), "platform", runtime.GOOS, runtime.GOARCH, p.libc, osRelease(), "installer", tool)
	h.add("interpreter", in.Path, in.Version)
	for _, f := range d.files {
		h.add("file", f.name, string(f.sum()))
	}
	extra = slices.Sorted(slices.Values(extra))
	h.add("extra", strings.Join(extra, "\n"))
	for _, kv := range installerEnv(app) {
		h.add("env", kv)
	}
	if !deps.Shareable {
		h.add("instance", app.InstanceID)
	}
	deps.Key = hex.EncodeToString(h.Sum(nil))[:40]
	return deps, nil
}

// declared has a reader read what the source declares.
func (t *Toolchain) declared(ctx context.Context, app *config.App, src string, in deployer.Interpreter) (*declaration, error) {
	a, err := t.askReader(ctx, app, question{About: aboutDependencies, Source: src, Interpreter: in})
	if err == nil && a.Declaration == nil {
		err = errors.New("reading what the source declares: no answer")
	}
	return a.Declaration, err
}

// osRelease names the distribution and its version: extensions are linked to its
// libraries (https://www.freedesktop.org/software/systemd/man/latest/os-release.html).
func osRelease() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	var id, version string
	for l := range strings.Lines(string(b)) {
		switch k, v, _ := strings.Cut(strings.TrimSpace(l), "="); k {
		case "ID":
			id = strings.Trim(v, `"'`)
		case "VERSION_ID":
			version = strings.Trim(v, `"'`)
		}
	}
	return id + " " + version
}

// keyHash takes strings so that no two lists of them look alike.
type keyHash struct{ hash.Hash }

func (h keyHash) add(parts ...string) {
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		io.WriteString(h, p)
	}
}

var loginName = pattern(`(?i)(PASSWORD|USERNAME|TOKEN|SECRET|CREDENTIALS)`)

// installerEnv is what of the app's configuration can change what an installer
// does. Credentials are left out: a rotated password changes no package.
func installerEnv(app *config.App) []string {
	var out []string
	add := func(v config.Var) {
		if !loginName().MatchString(v.Name) {
			out = append(out, v.Name+"="+mask(v.Value))
		}
	}
	for _, v := range app.Env {
		if strings.HasPrefix(v.Name, "PIP_") || strings.HasPrefix(v.Name, "UV_") {
			add(v)
		}
	}
	for _, v := range app.BuildEnv {
		add(v)
	}
	slices.Sort(out)
	return out
}

// declared reads what a source declares for an interpreter, the most exact first.
func declared(app *config.App, src string, in deployer.Interpreter) (*declaration, error) {
	s, err := openSource(src)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	d := &declaration{}
	if s.isFile("uv.lock") {
		return d, d.readUVLock(s)
	}
	for _, l := range []lockTool{poetry, pdm, pipenv} {
		if s.isFile(l.name) {
			if s.isFile("requirements.txt") {
				d.notes = append(d.notes, fmt.Sprintf("%s counts, requirements.txt is not read", l.name))
			}
			return d, d.readLock(s, app, in, l)
		}
	}
	switch {
	case s.isFile("requirements.txt"):
		return d, d.readRequirements(s)
	case s.isFile("Pipfile"):
		return nil, errors.New("there is a Pipfile without its lock: what it asks for is not exact\nmake the lock, and push it too: pipenv lock")
	case s.isFile("pyproject.toml"), s.isFile("setup.py"):
		err := d.readProject(s)
		if d.from == "" {
			d.noteNearMiss(s)
		}
		return d, err
	}
	d.noteNearMiss(s)
	return d, nil
}

// noteNearMiss tells of what is called nearly like a file that would be read, where
// none is. Case counts, here and for the installers.
func (d *declaration) noteNearMiss(s source) {
	for _, e := range s.list(".") {
		for _, name := range []string{"requirements.txt", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "Pipfile", "pyproject.toml", "setup.py"} {
			switch {
			case !strings.EqualFold(e.Name(), name):
			case e.Name() != name:
				d.notes = append(d.notes, fmt.Sprintf("%s is not read: %s is, in this case of letters", e.Name(), name))
			case e.IsDir():
				d.notes = append(d.notes, name+" is not read: it is a directory")
			case !s.isFile(name):
				d.notes = append(d.notes, name+" is not read: it is no regular file, or a link to none")
			}
		}
	}
}

func (d *declaration) readUVLock(s source) error {
	d.kind, d.from = lockedByUV, "uv.lock"
	for _, name := range []string{"uv.lock", "pyproject.toml"} {
		b, err := s.read(name)
		if err != nil {
			return fmt.Errorf("read what uv.lock belongs to: %w", err)
		}
		d.files = append(d.files, file{name: name, content: b})
	}
	if err := checkUVLock(d.files[1].content, d.files[0].content); err != nil {
		return err
	}
	// uv writes the project itself as { virtual = "." } where it is no package,
	// else, like each local package, as one of these.
	if m := localInUVLock().FindString(string(d.files[0].content)); m != "" {
		d.mutable = "uv.lock: " + m
	}
	return nil
}

var localInUVLock = pattern(`(?m)^source = \{ (?:editable|directory|path) = .*$`)

func (d *declaration) readRequirements(s source) error {
	d.kind, d.from = listed, "requirements.txt"
	r, err := readRequirements(s, d.from)
	if err != nil {
		return err
	}
	d.files, d.mutable = r.files, r.mutable
	if r.mutable != "" {
		d.notes = append(d.notes, "installed anew for each release: "+deployer.Neutral(r.mutable))
	}
	d.noteUnpinned(r.unpinned, r.count)
	return nil
}

func (d *declaration) noteUnpinned(names []string, of int) {
	if len(names) == 0 {
		return
	}
	shown := strings.Join(names[:min(3, len(names))], ", ")
	if len(names) > 3 {
		shown += ", …"
	}
	d.notes = append(d.notes, fmt.Sprintf("%d of %d requirements name no exact version (%s): a fresh install takes the newest", len(names), of, deployer.Neutral(shown)))
}

// readProject reads a pyproject.toml or a setup.py. A pyproject.toml may hold
// no more than the settings of tools; then nothing is declared.
func (d *declaration) readProject(s source) error {
	for _, name := range []string{"pyproject.toml", "setup.py", "setup.cfg"} {
		if !s.isFile(name) {
			continue
		}
		b, err := s.read(name)
		if err != nil {
			return err
		}
		d.files = append(d.files, file{name: name, content: b})
	}
	first := d.files[0]
	if first.name == "pyproject.toml" {
		doc, err := parseTOML(first.name, first.content)
		if err != nil {
			return err
		}
		if err := needsPoetryLock(s, doc); err != nil {
			return err
		}
		switch {
		case doc.has("build-system"), doc.has("tool", "poetry"):
			d.kind, d.from = project, first.name
		case s.isFile("setup.py"):
			d.kind, d.from = project, "setup.py"
		case doc.has("project"):
			return d.readProjectsList(doc)
		default:
			d.files = nil
			return nil
		}
	} else {
		d.kind, d.from = project, first.name
	}
	d.mutable = d.from + " installs the source itself"
	return nil
}

// readProjectsList is for a project without a build system, which is none that
// can be installed: what it needs is.
func (d *declaration) readProjectsList(doc document) error {
	d.kind, d.from = projectsList, "pyproject.toml"
	d.needs = doc.texts("project", "dependencies")
	var loose []string
	for _, n := range d.needs {
		if strings.HasPrefix(n, "-") || strings.ContainsAny(n, "\n\x00") {
			return fmt.Errorf("pyproject.toml: %q in dependencies is no requirement", n)
		}
		q := parseRequirement(n)
		if q.mutable && d.mutable == "" {
			d.mutable = "pyproject.toml: " + mask(q.text)
		}
		if !q.pinned && !q.mutable {
			loose = append(loose, q.name)
		}
	}
	d.noteUnpinned(loose, len(d.needs))
	return nil
}

// installer is what makes virtualenvs here.
type installer struct {
	name string // "uv 0.9.1", "pip 23.0.1"
	uv   string // path, "" for pip
	note string
}

func (t *Toolchain) installer(ctx context.Context, app *config.App, in deployer.Interpreter) (installer, error) {
	uv, version, err := t.uv(ctx, app)
	if err == nil && uv != "" {
		return installer{name: "uv " + version, uv: uv}, nil
	}
	if ctx.Err() != nil {
		return installer{}, context.Cause(ctx)
	}
	var note string
	if err != nil {
		note = "uv is here and not used: " + deployer.FirstLine(err.Error())
	}
	p, err := t.python(ctx, app, in.Path)
	if err != nil {
		return installer{}, err
	}
	if p.pip == "" {
		return installer{}, fmt.Errorf("%s can make no virtualenv: it has no ensurepip\n%s", in.Path, needVenv(in))
	}
	return installer{name: "pip " + p.pip, note: note}, nil
}

// needVenv is the mend for an interpreter without venv and ensurepip.
func needVenv(in deployer.Interpreter) string {
	if filepath.Dir(in.Path) == filepath.Dir(systemPython) {
		return fmt.Sprintf("install it: apt install %s", debianName(in, "venv"))
	}
	return "install uv (https://docs.astral.sh/uv/), or name another one by [app] interpreter"
}

// debianName is the Debian package of one part of an interpreter: python3.11-dev.
func debianName(in deployer.Interpreter, part string) string {
	if v, err := parseVersion(in.Version); err == nil && len(v.release) > 1 {
		return fmt.Sprintf("python%d.%d-%s", v.release[0], v.release[1], part)
	}
	return "python3-" + part
}
