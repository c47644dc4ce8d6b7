package python

import (
	"bytes"

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
