package python

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// Interpreter implements deployer.Toolchain.
func (t *Toolchain) Interpreter(ctx context.Context, app *config.App, src string) (deployer.Interpreter, error) {
	if app.InterpreterSet {
		return t.configured(ctx, app)
	}
	a, err := t.askReader(ctx, app, question{About: aboutInterpreter, Source: src})
	if err != nil {
		return deployer.Interpreter{}, err
	}
	return t.choose(ctx, app, *cmp.Or(a.Want, &want{}))
}

// configured finds the interpreter that a file names.
func (t *Toolchain) configured(ctx context.Context, app *config.App) (deployer.Interpreter, error) {
	name := app.Interpreter
	switch {
	case filepath.IsAbs(name):
	case strings.Contains(name, "/"):
		return deployer.Interpreter{}, fmt.Errorf("[app] interpreter is %q\ngive an absolute path, a name like \"python3.12\" or a version like \"3.12\"", name)
	default:
		return t.named(ctx, app, name)
	}
	if !isProgram(name) {
		return deployer.Interpreter{}, t.missing(ctx, app, fmt.Sprintf("[app] interpreter is %q%s, and there is no such program", name, inFile(app)))
	}
	in, err := t.ask(ctx, app, name)
	if err != nil {
		return deployer.Interpreter{}, noInterpreter(app, err)
	}
	in.Why = fromInterpreter
	return in, nil
}

const fromInterpreter = "[app] interpreter"

func noInterpreter(app *config.App, err error) error {
	return fmt.Errorf("%s%s: %w\ngive the path of a Python 3, a name like \"python3.12\" or a version like \"3.12\"", fromInterpreter, inFile(app), err)
}

// named finds the interpreter of a name: on the PATH, else by the version in it.
func (t *Toolchain) named(ctx context.Context, app *config.App, name string) (deployer.Interpreter, error) {
	names := []string{name}
	if name == "python" {
		// scotch 0.3's own default. Where a distribution has no such name it is
		// python3 that is meant (PEP 394).
		names = append(names, "python3")
	}
	var failed error
	for _, n := range names {
		for path := range lookPaths(t.opts.Path, n) {
			in, err := t.ask(ctx, app, path)
			switch {
			case err == nil:
				in.Why = fromInterpreter
				return in, nil
			case ctx.Err() != nil:
				return deployer.Interpreter{}, context.Cause(ctx)
			case !script(path):
				return deployer.Interpreter{}, noInterpreter(app, err)
			}
			// pyenv has a shim of each name that any of its versions has, and it fails
			// where that version is not the one chosen: it is as if it were not there.
			if failed == nil {
				failed = err
			}
		}
	}
	v, err := parseVersion(strings.TrimPrefix(name, "python"))
	switch {
	case err == nil:
		in, err := t.choose(ctx, app, want{from: fromInterpreter, text: v.String(), exact: v})
		if err != nil && failed != nil {
			err = fmt.Errorf("%w\nof that name there is only what fails: %w", err, failed)
		}
		return in, err
	case failed != nil:
		return deployer.Interpreter{}, noInterpreter(app, failed)
	}
	return deployer.Interpreter{}, t.missing(ctx, app, fmt.Sprintf("there is no %q on the server's PATH, which %s names%s", name, fromInterpreter, inFile(app)))
}

// whichFile is where the interpreter is to be set: the file that does so already,
// which would win, or the app's source.
func whichFile(app *config.App) string {
	if app.Values != nil {
		switch o := app.Origin("app", "interpreter"); o.Layer {
		case config.LayerApp:
			return fmt.Sprintf("apps-enabled/%s.cfg on the server", app.Name)
		case config.LayerSite:
			return o.File + " on the server"
		}
	}
	return "scotch.cfg"
}

// inFile tells of a file that is not in the source.
func inFile(app *config.App) string {
	if f := whichFile(app); f != "scotch.cfg" {
		return ", in " + f
	}
	return ""
}

// ask returns the interpreter at path. Behind a script it is the program that
// the script starts.
func (t *Toolchain) ask(ctx context.Context, app *config.App, path string) (deployer.Interpreter, error) {
	p, err := t.python(ctx, app, path)
	if err != nil {
		return deployer.Interpreter{}, err
	}
	if script(path) && filepath.IsAbs(p.executable) {
		path = filepath.Clean(p.executable)
	}
	return deployer.Interpreter{Path: path, Version: p.version}, nil
}

// want is the version that an app asks for.
type want struct {
	from  string // the file, "" where it asks for none
	text  string
	exact version     // "3.12" or "3.12.1"; without numbers, specs count
	specs []specifier // one of them must allow it; none allows all
}

func (w want) allows(v version) bool {
	if len(w.exact.release) > 0 {
		return v.within(w.exact)
	}
	return len(w.specs) == 0 || anyAllows(w.specs, v)
}

func (v version) String() string {
	var b strings.Builder
	for i, n := range v.release {
		if i > 0 {
			b.WriteByte('.')
		}
		fmt.Fprint(&b, n)
	}
	return b.String()
}

var runtimePattern = pattern(`^(?:cpython|python)-?(\d.*)$`)

// wanted reads what the source asks for.
func wanted(src string) (want, error) {
	s, err := openSource(src)
	if err != nil {
		return want{}, err
	}
	defer s.Close()
	for _, name := range []string{".python-version", "runtime.txt"} {
		b, err := s.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return want{}, err
		}
		for line := range strings.Lines(string(b)) {
			line, _, _ = strings.Cut(line, "#")
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			if line == "system" { // pyenv's word
				return want{}, nil
			}
			text := line
			if m := runtimePattern().FindStringSubmatch(text); m != nil {
				text = m[1]
			}
			v, err := parseVersion(text)
			if err != nil {
				return want{}, fmt.Errorf("%s asks for %q, which is no version of CPython\nwrite a version like 3.12 into it, or set [app] interpreter", name, line)
			}
			return want{from: name, text: v.String(), exact: v}, nil
		}
	}
	b, err := s.read("pyproject.toml")
	if errors.Is(err, fs.ErrNotExist) {
		return wantedByTools(s, nil)
	} else if err != nil {
		return want{}, err
	}
	// What is no TOML is refused by who installs it, if anybody does.
	doc, _ := parseTOML("pyproject.toml", b)
	text, ok := doc.text("project", "requires-python")
	if !ok {
		return wantedByTools(s, doc)
	}
	spec, err := parseSpecifier(text)
	if err != nil {
		return want{}, fmt.Errorf("requires-python in pyproject.toml: %w\nwrite it like \">=3.11\"", err)
	}
	return want{from: "requires-python", text: text, specs: []specifier{spec}}, nil
}

// wantedByTools reads where Poetry and Pipenv have what others have in
// requires-python.
func wantedByTools(s source, doc document) (want, error) {
	if text, ok := doc.text("tool", "poetry", "dependencies", "python"); ok {
		specs, err := parsePoetryVersions(text)
		if err != nil {
			return want{}, fmt.Errorf("python in [tool.poetry.dependencies]: %w\nwrite it like \"^3.11\"", err)
		}
		return want{from: "python in [tool.poetry.dependencies]", text: text, specs: specs}, nil
	}
	b, err := s.read("Pipfile")
	if err != nil {
		return want{}, nil // also where it is none: who installs it says so
	}
	doc, _ = parseTOML("Pipfile", b)
	for _, key := range []string{"python_full_version", "python_version"} {
		text, ok := doc.text("requires", key)
		if !ok || text == "" || text == "*" {
			continue
		}
		v, err := parseVersion(text)
		if err != nil {
			return want{}, fmt.Errorf("%s in the Pipfile is %q, which is no version\nwrite it like \"3.11\"", key, text)
		}
		return want{from: "the Pipfile", text: v.String(), exact: v}, nil
	}
	return want{}, nil
}

// choose finds the best interpreter for what is wanted: the system's where it
// will do, else the newest.
func (t *Toolchain) choose(ctx context.Context, app *config.App, w want) (deployer.Interpreter, error) {
	why := "default"
	if w.from != "" {
		why = w.from + " " + w.text
	}
	uv, _, _ := t.uv(ctx, app)
	if p, err := t.python(ctx, app, systemPython); err == nil && (uv != "" || p.pip != "") {
		if v, err := parseVersion(p.version); err == nil && w.allows(v) {
			return deployer.Interpreter{Path: systemPython, Version: p.version, Why: why}, nil
		}
	}
	if w.from == "" {
		// Whatever the name finds, a shim of pyenv's too: it is what a person
		// gets at the prompt.
		if path := lookPath(t.opts.Path, app.Interpreter); path != "" {
			if in, err := t.ask(ctx, app, path); err == nil {
				in.Why = why
				return in, nil
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return deployer.Interpreter{}, context.Cause(ctx)
	}
	here := t.here(ctx, app)
	if in, ok := newest(here, w); ok {
		in.Why = why
		return in, nil
	}
	if len(w.exact.release) > 2 {
		// A bug-fix release of the same version runs the same apps and the same
		// wheels; refusing it would help nobody.
		near := want{exact: version{release: w.exact.release[:2]}}
		if in, ok := newest(here, near); ok {
			in.Why = why + ", the nearest here"
			return in, nil
		}
	}
	text := "there is no Python 3 on this server"
	if w.from != "" {
		text = fmt.Sprintf("there is no Python %s on this server, which %s asks for", w.text, w.from)
		failed, err := t.download(ctx, app, w, uv)
		if err != nil {
			return deployer.Interpreter{}, err
		}
		if failed != "" {
			text += "\nand uv could not download it: " + failed
		} else if in, ok := newest(t.here(ctx, app), w); ok {
			in.Why = why + ", downloaded by uv"
			return in, nil
		}
	}
	return deployer.Interpreter{}, t.missing(ctx, app, text)
}

func newest(here []deployer.Interpreter, w want) (deployer.Interpreter, bool) {
	var best deployer.Interpreter
	var at version
	for _, in := range here {
		v, err := parseVersion(in.Version)
		if err == nil && w.allows(v) && (best.Path == "" || at.pre && !v.pre || v.pre == at.pre && v.compare(at) > 0) {
			best, at = in, v
		}
	}
	return best, best.Path != ""
}

var pythonName = pattern(`^python3(\.\d+)?$`)

// managed are the directories of pyenv's and uv's interpreters.
func (t *Toolchain) managed() []string {
	pyenvs := append(slices.Clone(t.opts.Pyenvs), "/opt/pyenv", "/usr/local/pyenv")
	uvs := append(slices.Clone(t.opts.UVPythons), t.opts.Downloads, "/opt/uv/python")
	if t.opts.Home != "" {
		pyenvs = append(pyenvs, filepath.Join(t.opts.Home, ".pyenv"))
		uvs = append(uvs, filepath.Join(t.opts.Home, ".local/share/uv/python"))
	}
	var out []string
	add := func(roots []string, glob string) {
		for _, root := range roots {
			if filepath.IsAbs(root) {
				found, _ := filepath.Glob(filepath.Join(root, glob))
				out = append(out, found...)
			}
		}
	}
	add(pyenvs, "versions/3.*/bin")
	add(uvs, "cpython-3.*/bin")
	return slices.DeleteFunc(out, t.halfMade)
}

// here lists the interpreters of this server that the app's user can run: the
// distribution's, those on the PATH, pyenv's, uv's.
func (t *Toolchain) here(ctx context.Context, app *config.App) []deployer.Interpreter {
	dirs := append([]string{filepath.Dir(systemPython)}, filepath.SplitList(t.opts.Path)...)
	dirs = append(dirs, t.managed()...)
	var out []deployer.Interpreter
	seen := map[string]bool{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil || !filepath.IsAbs(dir) {
			continue
		}
		for _, e := range entries { // python3 sorts first
			path := filepath.Join(dir, e.Name())
			if !pythonName().MatchString(e.Name()) || !isProgram(path) || script(path) {
				continue
			}
			real, err := filepath.EvalSymlinks(path)
			if err != nil || seen[real] {
				continue
			}
			seen[real] = true
			if p, err := t.python(ctx, app, path); err == nil {
				out = append(out, deployer.Interpreter{Path: path, Version: p.version})
			}
		}
	}
	return out
}

// missing is an error that lists what is there.
func (t *Toolchain) missing(ctx context.Context, app *config.App, text string) error {
	here := t.here(ctx, app)
	if len(here) == 0 {
		return fmt.Errorf("%s\ninstall one: apt install python3 python3-venv", text)
	}
	slices.SortStableFunc(here, func(a, b deployer.Interpreter) int {
		v, _ := parseVersion(a.Version)
		w, _ := parseVersion(b.Version)
		return v.compare(w)
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nthis server has:", text)
	for _, in := range here {
		fmt.Fprintf(&b, "\n  %s  %s", in.Version, in.Path)
	}
	b.WriteString("\ninstall the one that is asked for, or name one of these in " + whichFile(app) + ":\n  [app]\n  interpreter = " + here[len(here)-1].Path)
	return errors.New(b.String())
}
