package python

import (
	"bytes"
	"encoding/json"

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
func TOMLText(doc, key string) (string, bool) { return parseTOML([]byte(doc)).text(key) }
func TOMLTexts(doc, key string) []string      { return parseTOML([]byte(doc)).texts(key) }

// Installed lists what is in the virtualenv dir.
func Installed(app *config.App, src, dir string) ([]string, error) {
	return installed(deployer.InstallRequest{App: app, Source: src, Dir: dir})
}

// Again is the requirements file for one recorded package.
func Again(app *config.App, src, pinned string) (string, error) {
	d, err := declared(src)
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
