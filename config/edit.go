package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Change is one change of a file: a key to set, or to remove.
type Change struct {
	Section, Key string
	// Value is what the key's value is to be, exactly: white space, line breaks
	// and dollar signs included.
	Value string
	// Raw takes Value as files have it, so that ${…} in it is interpolated.
	Raw bool
	// Unset removes the key. One that is not there stays so.
	Unset bool
}

// Set changes a key to exactly this value.
func Set(section, key, value string) Change {
	return Change{Section: section, Key: key, Value: value}
}

// SetRaw changes a key to a value in which ${…} is interpolated.
func SetRaw(section, key, value string) Change {
	return Change{Section: section, Key: key, Value: value, Raw: true}
}

// Unset removes a key.
func Unset(section, key string) Change {
	return Change{Section: section, Key: key, Unset: true}
}

// Edit changes keys in the text of a configuration file and leaves everything
// else as it is: comments, order, empty lines, line ends. A key that is new to
// the file goes below its commented-out line where there is one, else to the
// end of its section.
//
// It refuses a text that has errors, which it names by file, and what a file can't hold (a carriage
// return, a NUL byte, a text that is no UTF-8). It does not know which keys
// there are: Site.App with AppOptions.File tells whether the result is good.
func Edit(file string, data []byte, changes []Change) ([]byte, error) {
	eol := "\n"
	if bytes.Contains(data, []byte("\r\n")) {
		eol = "\r\n"
	}
	if len(changes) > MaxChanges {
		return nil, fmt.Errorf("these are %d changes, and at most %d are made at once", len(changes), MaxChanges)
	}
	lines := bytes.Count(data, []byte("\n"))
	for _, c := range changes {
		lines += strings.Count(c.Value, "\n") + 1
	}
	if len(changes) > 1 && len(changes)*lines > maxWork {
		return nil, fmt.Errorf("these are %d changes of %d lines, which is too much at once\nmake them one by one", len(changes), lines)
	}
	want, errs := parse(file, data)
	if err := errs.err(); err != nil {
		return nil, fmt.Errorf("the file has errors of its own\n%w", err)
	}
	wanted := make(map[ref]string)
	for _, e := range want.entries {
		wanted[ref{e.section, e.key}] = e.raw
	}
	for _, c := range changes {
		r := ref{c.Section, keyName(c.Section, c.Key)}
		if err := c.check(); err != nil {
			return nil, err
		}
		lines := c.lines()
		var err error
		if data, err = change(data, r, c, lines, eol); err != nil {
			return nil, err
		}
		delete(wanted, r)
		if !c.Unset {
			wanted[r] = strings.Join(lines, "\n")
		}
	}
	// What was written must read back as what was wanted, whatever the file
	// looks like: odd indentation makes lines mean something else.
	got, errs := parse("", data)
	same := len(errs) == 0 && len(got.entries) == len(wanted)
	for _, e := range got.entries {
		raw, ok := wanted[ref{e.section, e.key}]
		same = same && ok && raw == e.raw
	}
	if !same {
		return nil, fmt.Errorf("%s is laid out in a way that can't be edited by program\nedit it by hand, and begin its sections and keys at the first column", file)
	}
	return data, nil
}

// MaxChanges bounds the changes of one Edit: each reads the text anew.
const MaxChanges = 500

// maxWork bounds the lines that one Edit looks at.
const maxWork = 2_000_000

// Absent are the changes that remove a key which the text does not have.
func Absent(data []byte, changes []Change) []Change {
	d, _ := parse("", data)
	has := make(map[ref]bool)
	for _, e := range d.entries {
		has[ref{e.section, e.key}] = true
	}
	var absent []Change
	for _, c := range changes {
		if c.Unset && !has[ref{c.Section, keyName(c.Section, c.Key)}] {
			absent = append(absent, c)
		}
	}
	return absent
}

func (c Change) check() error {
	bad := func(why string) error {
		return fmt.Errorf("[%s] %s: %s", brief(c.Section), brief(c.Key), why)
	}
	trimmed := strings.TrimFunc(c.Key, isSpace)
	switch {
	case c.Section == "" || strings.ContainsAny(c.Section, "\n\r]\x00") || strings.TrimFunc(c.Section, isSpace) != c.Section:
		return bad("there can be no section of this name")
	case c.Key == "" || trimmed != c.Key || strings.ContainsAny(c.Key, "=:\n\r\x00") || strings.ContainsAny(c.Key[:1], "[#;"):
		return bad("there can be no key of this name")
	case strings.ContainsAny(c.Value, "\r\x00"):
		return bad("the value holds a carriage return or a NUL byte, which a file can't\nremove them: tr -d '\\r\\000'")
	case strings.ToValidUTF8(c.Value, "") != c.Value:
		return bad("the value is no UTF-8 text\nencode it, with base64 for instance")
	}
	return nil
}

// nothing interpolates to the empty string; it is text in the eyes of the reader.
const nothing = "${text:empty}"

// lines are a value's lines as the file has them. The reader strips white space
// around each and takes some for comments, so those are protected.
func (c Change) lines() []string {
	if c.Unset {
		return nil
	}
	value := c.Value
	if !c.Raw {
		value = escape(value)
	}
	lines := strings.Split(value, "\n")
	for i, l := range lines {
		last := i == len(lines)-1
		trimmed := strings.TrimFunc(l, isSpace)
		switch {
		case l == "" && (!last || i == 0):
			// An empty line within a value is kept as it is.
		case trimmed == "":
			lines[i] = nothing + l
			if l != "" {
				lines[i] += nothing
			}
		default:
			comment := i > 0 && (l[0] == '#' || l[0] == ';')
			if comment || strings.TrimLeftFunc(l, isSpace) != l {
				lines[i] = nothing + lines[i]
			}
			if strings.TrimRightFunc(l, isSpace) != l {
				lines[i] += nothing
			}
		}
	}
	return lines
}

// written are the lines of the file that say KEY = VALUE.
func written(indent, key string, value []string) []string {
	out := []string{strings.TrimRightFunc(indent+key+" = "+value[0], isSpace)}
	for _, l := range value[1:] {
		if l != "" {
			l = indent + "\t" + l
		}
		out = append(out, l)
	}
	return out
}

func change(data []byte, r ref, c Change, value []string, eol string) ([]byte, error) {
	d, errs := parse("", data)
	if err := errs.err(); err != nil {
		return nil, err
	}
	var text []string
	for _, l := range d.lines {
		text = append(text, l.text)
	}
	join := func(parts ...[]string) []byte {
		all := slices.Concat(parts...)
		if len(all) == 0 {
			return nil
		}
		return []byte(strings.Join(all, eol) + eol)
	}
	for _, e := range d.entries {
		if e.section != r.section || e.key != r.key {
			continue
		}
		first := text[e.first]
		indent := first[:len(first)-len(strings.TrimLeftFunc(first, isSpace))]
		name := first[len(indent):]
		name = strings.TrimRightFunc(name[:strings.IndexAny(name, "=:")], isSpace)
		// Comments between the lines of the old value stay.
		var middle, comments []string
		for n := e.first; n <= e.last; n++ {
			if d.lines[n].kind == commentLine {
				comments = append(comments, text[n])
			}
		}
		if !c.Unset {
			middle = written(indent, name, value)
		}
		return join(text[:e.first], middle, comments, text[e.last+1:]), nil
	}
	if c.Unset {
		return data, nil
	}
	at, indent, found := place(d, r)
	if !found {
		if n := len(text); n > 0 && strings.TrimFunc(text[n-1], isSpace) != "" {
			text = append(text, "")
		}
		return join(text, []string{"[" + r.section + "]"}, written("", c.Key, value)), nil
	}
	return join(text[:at], written(indent, c.Key, value), text[at:]), nil
}

// place finds the line before which a new key goes, and its indentation.
func place(d *document, r ref) (at int, indent string, found bool) {
	ends := make(map[int]int, len(d.entries)) // of values, by their first line
	for _, e := range d.entries {
		ends[e.first] = e.last
	}
	current, inValue, hidden := "", -1, false
	for n, l := range d.lines {
		switch l.kind {
		case headerLine:
			name, _ := headerName(strings.TrimFunc(l.text, isSpace))
			current, hidden = name, false
			if current == r.section {
				at, found = n+1, true
				indent = l.text[:len(l.text)-len(strings.TrimLeftFunc(l.text, isSpace))]
			}
		case optionLine:
			inValue = ends[n]
			if current == r.section {
				at = inValue + 1
				indent = l.text[:len(l.text)-len(strings.TrimLeftFunc(l.text, isSpace))]
			}
		case commentLine:
			text := strings.TrimFunc(l.text, isSpace)
			if strings.HasPrefix(text, "#[") {
				hidden = true // the keys below belong to a section that is commented out
			}
			key, _, ok := commentedKey(text)
			if ok && !hidden && current == r.section && key == r.key && n > inValue {
				return n + 1, indent, true
			}
		}
	}
	return at, indent, found
}
