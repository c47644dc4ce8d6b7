package python

import (
	"bytes"
	"encoding/json"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// The inside, for tests: what is hard to reach through the door.

// Filter passes chunks through the output filter of an app's installer.
func Filter(app *config.App, chunks ...string) (out string, hints []string) {
	var b bytes.Buffer
	f := newFilter(&b, secrets(app), deployer.Interpreter{Version: "3.11.2"})
	for _, c := range chunks {
		f.Write([]byte(c))
	}
	f.flush()
	return b.String(), f.hints()
}

// Allows tells whether a version specifier allows a version.
func Allows(spec, v string) (bool, error) {
	s, err := parseSpecifier(spec)
	if err != nil {
		return false, err
	}
	w, err := parseVersion(v)
	return s.allows(w), err
}

// TOMLText and TOMLTexts read one value.
func TOMLText(doc, key string) (string, bool) {
	d, _ := parseTOML("x.toml", []byte(doc))
	return d.text(strings.Split(key, ".")...)
}

func TOMLTexts(doc, key string) []string {
	d, _ := parseTOML("x.toml", []byte(doc))
	return d.texts(strings.Split(key, ".")...)
}

// Exported are the requirements files that the lock file of src becomes.
func Exported(app *config.App, src, python string) (batches []string, notes []string, err error) {
	d, err := declared(app, src, deployer.Interpreter{Path: systemPython, Version: python})
	if err != nil {
		return nil, nil, err
	}
	for _, b := range d.lock.batches(src) {
		batches = append(batches, b.text(d.lock, login(app, nil)))
	}
	return batches, d.notes, nil
}

// Declared names the file that declares what src needs.
func Declared(app *config.App, src string) (from string, err error) {
	d, err := declared(app, src, system)
	if err != nil {
		return "", err
	}
	return d.from, nil
}

// MarkerAllows evaluates a marker for a version of Python.
func MarkerAllows(python, marker string, extras ...string) (bool, error) {
	return markersOf(deployer.Interpreter{Version: python}).allows(marker, extras...)
}

// PoetryAllows tells whether Poetry's words for versions allow one.
func PoetryAllows(spec, v string) (bool, error) {
	specs, err := parsePoetryVersions(spec)
	if err != nil {
		return false, err
	}
	w, err := parseVersion(v)
	return anyAllows(specs, w), err
}

// Installed lists what is in the virtualenv dir.
func Installed(app *config.App, src, dir string) ([]string, error) {
	return installed(deployer.InstallRequest{App: app, Source: src, Dir: dir})
}

// Again is the requirements file for one recorded package.
func Again(app *config.App, src, pinned string) (string, error) {
	d, err := declared(app, src, system)
	if err != nil {
		return "", err
	}
	_, rest, err := again(d, deployer.InstallRequest{App: app, Source: src}, []string{pinned})
	return rest, err
}

// Origin is the recorded line of a package "x" that says this of itself.
func Origin(url, vcs, commit string) (string, error) {
	b, err := json.Marshal(map[string]any{"url": url, "vcs_info": map[string]string{"vcs": vcs, "commit_id": commit}})
	if err != nil {
		return "", err
	}
	from, err := originOf(source{}, b, deployer.InstallRequest{App: &config.App{}, Source: "/nowhere/src", Dir: "/nowhere/venv"}, nil)
	if err != nil || from == "" {
		return "x==1", err
	}
	return "x @ " + from, nil
}

var system = deployer.Interpreter{Path: systemPython, Version: "3.11.2"}
