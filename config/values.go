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
	// under is what these lie over, nil for nothing: what is not set here is looked
	// up there. It is shared, and so is never written.
	under   *Values
	removed map[ref]bool      // what is set in under and not here
	given   map[string]string // what ${key} finds in every section, last
	// written is what a person wrote where scotch has appended to it.
	written map[ref]string
	free    func(section string) bool
	// known returns the key of that very name, which [DEFAULT] can set; nil: none is known.
	known func(ref) (Key, bool)
	// recorded tells of a key whether a release records it, and whether it is an
	// application server's. nil: none is.
	recorded func(k ref) (yes, server bool)
}

func newValues(free func(string) bool) *Values {
	// In ini.v1 [a.b] inherits from [a], by a delimiter that can be chosen; a
	// NUL byte is in no section's name.
	data := ini.Empty(ini.LoadOptions{ChildSectionDelimiter: "\x00"})
	data.BlockMode = false // no lock: never written once it is shared
	return &Values{data: data, origins: make(map[ref]Origin), removed: make(map[ref]bool), written: make(map[ref]string), free: free}
}

// over makes values that lie over others, which must not change any more: all of
// theirs, for the price of those that differ.
func over(under *Values) *Values {
	v := newValues(under.free)
	v.under, v.known, v.recorded = under, under.known, under.recorded
	return v
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
	delete(v.removed, r)
}

// remove makes a key one that is not set.
func (v *Values) remove(r ref) {
	if _, has := v.origins[r]; has {
		v.data.Section(r.section).DeleteKey(r.key)
		delete(v.origins, r)
	}
	v.removed[r] = true
}

// raw returns a value as written, from the section or from [DEFAULT].
func (v *Values) raw(r ref) (string, bool) {
	if raw, ok := v.own(r); ok {
		return raw, true
	}
	if keepsCase(r.section) || r.section == defaultSection || v.removed[r] || !v.hasSection(r.section) {
		return "", false
	}
	return v.own(ref{defaultSection, r.key})
}

// own is raw without [DEFAULT]. Of a key that is not there ini.v1 makes an
// error with much ado: origins knows it sooner.
func (v *Values) own(r ref) (string, bool) {
	if _, has := v.origins[r]; !has {
		if v.under == nil || v.removed[r] {
			return "", false
		}
		return v.under.own(r)
	}
	k, err := v.data.Section(r.section).GetKey(r.key)
	if err != nil {
		return "", false
	}
	return k.Value(), true
}

// origin is where a key of the section itself was written.
func (v *Values) origin(r ref) (Origin, bool) {
	o, has := v.origins[r]
	if !has && v.under != nil && !v.removed[r] {
		return v.under.origin(r)
	}
	return o, has
}

func (v *Values) fromDefault(r ref) bool {
	_, own := v.origin(r)
	return !own
}

func (v *Values) hasSection(name string) bool {
	if name == "" {
		return false // ini.v1 takes it for [DEFAULT]
	}
	_, err := v.data.GetSection(name)
	return err == nil || v.under != nil && v.under.hasSection(name)
}

// sections are in the order in which they first appeared, [DEFAULT] first.
func (v *Values) sections() []string {
	if v.under == nil {
		return v.data.SectionStrings()
	}
	all := v.under.sections()
	for _, s := range v.data.SectionStrings() {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// keys are those of the section itself, in the order in which they first appeared.
func (v *Values) keys(section string) []string {
	var all []string
	if v.under != nil {
		all = slices.DeleteFunc(v.under.keys(section), func(k string) bool { return v.removed[ref{section, k}] })
	}
	s, err := v.data.GetSection(section)
	if err != nil {
		return all
	}
	if v.under == nil {
		return s.KeyStrings()
	}
	has := make(map[string]bool, len(all))
	for _, k := range all {
		has[k] = true
	}
	for _, k := range s.KeyStrings() {
		if !has[k] {
			all = append(all, k)
		}
	}
	return all
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
	return &Error{File: o.File, Line: o.Line, Section: r.section, Key: r.key, Default: o.Line > 0 && v.fromDefault(r), Problem: problem, Hint: hint}
}

// Keys returns the keys of a section in the order in which they first appeared,
// those of [DEFAULT] last. Sections whose keys are names of something outside
// ([env], [build_env], [static], a plugin's free section) have only their own.
func (v *Values) Keys(section string) []string {
	if !v.hasSection(section) {
		return nil
	}
	keys := v.keys(section)
	if section == defaultSection || keepsCase(section) || v.free != nil && v.free(section) {
		return keys
	}
	for _, k := range v.keys(defaultSection) {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// Sections returns the sections in the order in which they first appeared,
// without [DEFAULT].
func (v *Values) Sections() []string {
	return slices.DeleteFunc(v.sections(), func(s string) bool { return s == defaultSection })
}

// Origin says where a value was written; a value that [DEFAULT] gives has
// [DEFAULT]'s origin, one that is not set a zero Origin.
func (v *Values) Origin(section, key string) Origin {
	r := ref{section, keyName(section, key)}
	o, own := v.origin(r)
	if !own && !keepsCase(section) && !v.removed[r] {
		o, _ = v.origin(ref{defaultSection, r.key})
	}
	return o
}

// counting are the keys of a section that count: its own, and behind them those
// that scotch knows and that [DEFAULT] sets.
func (v *Values) counting(section string) []string {
	keys := v.keys(section)
	if section == defaultSection || v.known == nil {
		return keys
	}
	for _, k := range v.keys(defaultSection) {
		r := ref{section, k}
		known, ok := v.known(r)
		// What is the server's is read from the site's files alone.
		theirs := ok && known.Set == SetInSite && v.Origin(section, k).Layer == LayerApp
		if _, set := v.raw(r); ok && set && !theirs && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// Entries returns every value that counts. Those of [DEFAULT] come first, as they
// are written there, and once more in each section whose key they set, as they
// count there.
func (v *Values) Entries() []Entry {
	var all []Entry
	for _, section := range v.sections() {
		for _, key := range v.counting(section) {
			r := ref{section, key}
			raw, _ := v.raw(r)
			e := Entry{Section: section, Key: key, Raw: raw, Origin: v.Origin(section, key)}
			value, err := v.interpolate(r, raw)
			if err != nil {
				value = raw
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
	for _, section := range v.Sections() { // those of [DEFAULT] mean something only where they are used
		for _, key := range v.counting(section) {
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
