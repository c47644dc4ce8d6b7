package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/ini.v1"
)

// Layer is where in the order of layers a value comes from.
type Layer string

// The layers; a later one wins over the ones above it.
const (
	LayerDefaults Layer = "defaults" // built in
	LayerPlugin   Layer = "plugin"   // a plugin's defaults
	LayerSite     Layer = "site"     // a site file
	LayerSource   Layer = "source"   // scotch.cfg of the app's source
	LayerApp      Layer = "app"      // the app's own file
	LayerScotch   Layer = "scotch"   // filled in or completed by scotch itself
)

// Origin says where a value was written.
type Origin struct {
	Layer Layer  `json:"layer"`
	File  string `json:"file,omitempty"` // empty for LayerScotch
	Line  int    `json:"line,omitempty"` // counted from 1, 0 where no line says it
}

// String is FILE:LINE, or what stands for it.
func (o Origin) String() string {
	switch {
	case o.File == "":
		return "filled in by scotch"
	case o.Line == 0:
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// Entry is one value of a configuration.
type Entry struct {
	Section string `json:"section"`
	Key     string `json:"key"`
	Raw     string `json:"raw"`   // as written, before interpolation
	Value   string `json:"value"` // interpolated; as Raw where that fails
	Origin  Origin `json:"origin"`
}

// Values is a merged set of layers. It does not change once it was returned,
// so any number of goroutines may read it.
type Values struct {
	// ini.v1 holds the data. Its own reader differs from configparser's in most
	// of what matters (duplicate keys, continuation, quotes) and knows no line
	// numbers, so read.go reads.
	data    *ini.File
	origins map[ref]Origin
	given   map[string]string // what ${key} finds in every section, last
	// written is what a person wrote where scotch has appended to it.
	written map[ref]string
	free    func(section string) bool
}

func newValues(free func(string) bool) *Values {
	// In ini.v1 [a.b] inherits from [a], by a delimiter that can be chosen; a
	// NUL byte is in no section's name.
	data := ini.Empty(ini.LoadOptions{ChildSectionDelimiter: "\x00"})
	data.BlockMode = false // no lock: never written once it is shared
	return &Values{data: data, origins: make(map[ref]Origin), written: make(map[ref]string), free: free}
}

// add merges a file over what is there.
func (v *Values) add(d *document, l Layer) {
	for _, s := range d.sections {
		v.data.NewSection(s.name) // fails for an empty name only, which no header has
	}
	for _, e := range d.entries {
		v.set(ref{e.section, e.key}, e.raw, Origin{Layer: l, File: d.file, Line: e.first + 1})
	}
}

func (v *Values) set(r ref, raw string, o Origin) {
	v.data.Section(r.section).NewKey(r.key, raw) // fails for an empty name only
	v.origins[r] = o
}

// raw returns a value as written, from the section or from [DEFAULT].
func (v *Values) raw(r ref) (string, bool) {
	if raw, ok := v.own(r); ok {
		return raw, true
	}
	if keepsCase(r.section) || r.section == defaultSection {
		return "", false
	}
	if s, err := v.data.GetSection(r.section); s == nil || err != nil || r.section == "" {
		return "", false
	}
	return v.own(ref{defaultSection, r.key})
}

// own is raw without [DEFAULT]. Of a key that is not there ini.v1 makes an
// error with much ado: origins knows it sooner.
func (v *Values) own(r ref) (string, bool) {
	if _, has := v.origins[r]; !has {
		return "", false
	}
	k, err := v.data.Section(r.section).GetKey(r.key)
	if err != nil {
		return "", false
	}
	return k.Value(), true
}

func (v *Values) fromDefault(r ref) bool {
	_, own := v.origins[r]
	return !own
}

// Lookup returns a value, and whether there is one. A value that can't be
// interpolated is an *Error.
func (v *Values) Lookup(section, key string) (string, bool, error) {
	r := ref{section, keyName(section, key)}
	raw, ok := v.raw(r)
	if !ok {
		return "", false, nil
	}
	value, err := v.interpolate(r, raw)
	if err != nil {
		return "", true, v.located(err)
	}
	return value, true, nil
}

// Get returns a value. One that is not set is an error, as is one that can't be
// interpolated.
func (v *Values) Get(section, key string) (string, error) {
	value, ok, err := v.Lookup(section, key)
	if err == nil && !ok {
		err = &Error{Section: section, Key: key, Problem: "is not set"}
	}
	return value, err
}

// located turns a fault into an *Error with the file and line to mend.
func (v *Values) located(err error) error {
	var f *fault
	if !errors.As(err, &f) {
		return err
	}
	return v.errorAt(f.at, f.problem, f.hint)
}

func (v *Values) errorAt(r ref, problem, hint string) *Error {
	o := v.Origin(r.section, r.key)
	return &Error{File: o.File, Line: o.Line, Section: r.section, Key: r.key, Problem: problem, Hint: hint}
}

// Keys returns the keys of a section in the order in which they first appeared,
// those of [DEFAULT] last. Sections whose keys are names of something outside
// ([env], [build_env], [static], a plugin's free section) have only their own.
func (v *Values) Keys(section string) []string {
	s, err := v.data.GetSection(section)
	if err != nil || section == "" {
		return nil
	}
	keys := s.KeyStrings()
	if section == defaultSection || keepsCase(section) || v.free != nil && v.free(section) {
		return keys
	}
	for _, k := range v.data.Section(defaultSection).KeyStrings() {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// Sections returns the sections in the order in which they first appeared,
// without [DEFAULT].
func (v *Values) Sections() []string {
	return slices.DeleteFunc(v.data.SectionStrings(), func(s string) bool { return s == defaultSection })
}

// Origin says where a value was written; a value that [DEFAULT] gives has
// [DEFAULT]'s origin, one that is not set a zero Origin.
func (v *Values) Origin(section, key string) Origin {
	r := ref{section, keyName(section, key)}
	if o, ok := v.origins[r]; ok {
		return o
	}
	if keepsCase(section) {
		return Origin{}
	}
	return v.origins[ref{defaultSection, r.key}]
}

// Entries returns every value where it was written: those of [DEFAULT] once,
// first, where there are any.
func (v *Values) Entries() []Entry {
	var all []Entry
	for _, section := range v.data.SectionStrings() {
		s := v.data.Section(section)
		for _, k := range s.Keys() {
			r := ref{section, k.Name()}
			e := Entry{Section: section, Key: k.Name(), Raw: k.Value(), Origin: v.origins[r]}
			value, err := v.interpolate(r, e.Raw)
			if err != nil {
				value = e.Raw
			}
			e.Value = value
			all = append(all, e)
		}
	}
	return all
}

// check interpolates every value and returns what fails.
func (v *Values) check() Errors {
	var errs Errors
	for _, section := range v.data.SectionStrings() {
		if section == defaultSection {
			continue // its values mean something only in the sections that use them
		}
		for _, key := range v.data.Section(section).KeyStrings() {
			r := ref{section, key}
			raw, _ := v.raw(r)
			if !strings.Contains(raw, "$") {
				continue
			}
			if _, err := v.interpolate(r, raw); err != nil {
				errs.add(v.located(err).(*Error))
			}
		}
	}
	return errs
}
