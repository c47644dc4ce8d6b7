package python

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// document is a TOML file.
type document map[string]any

// parseTOML reads the file name. Its errors name the line.
func parseTOML(name string, b []byte) (document, error) {
	d := document{}
	if err := readTOML(name, b, (*map[string]any)(&d)); err != nil {
		return nil, err
	}
	return d, nil
}

// readTOML reads the file name into v.
func readTOML(name string, b []byte, v any) error {
	next := "mend " + name
	if tool, ok := strings.CutSuffix(name, ".lock"); ok {
		next = "lock again and push the result: " + tool + " lock"
	}
	if err := checkNesting(b); err != nil {
		return fmt.Errorf("%s, %w\n%s", name, err, next)
	}
	_, err := toml.Decode(string(b), v)
	if err == nil {
		return nil
	}
	var parse toml.ParseError
	switch {
	case errors.As(err, &parse) && parse.Message != "":
		return fmt.Errorf("%s, line %d: %s\n%s", name, parse.Position.Line, parse.Message, next)
	case errors.As(err, &parse):
		return fmt.Errorf("%s, line %d: it is no TOML\n%s", name, parse.Position.Line, next)
	}
	return fmt.Errorf("%s: %w\n%s", name, err, next)
}

// at returns the value at a path of keys, nil where there is none.
func (d document) at(path ...string) any {
	var v any = map[string]any(d)
	for _, k := range path {
		table, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = table[k]
	}
	return v
}

func (d document) has(path ...string) bool { return d.at(path...) != nil }

// table returns a table, nil where there is none.
func (d document) table(path ...string) map[string]any {
	t, _ := d.at(path...).(map[string]any)
	return t
}

// text returns a string.
func (d document) text(path ...string) (string, bool) {
	s, ok := d.at(path...).(string)
	return s, ok
}

// texts returns the strings of an array.
func (d document) texts(path ...string) []string {
	list, _ := d.at(path...).([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
