package config

import (
	"fmt"
	"slices"
)

// Setting is the value of one key.
type Setting struct {
	Section string `json:"section"`
	Key     string `json:"key"`
	Value   string `json:"value"`
}

// String is the setting as a file has it: "[app] workers = 2".
func (s Setting) String() string { return fmt.Sprintf("[%s] %s = %s", s.Section, s.Key, s.Value) }

// recordedSections and recordedKeys say, with the sections of the application server,
// how an app's processes run and are judged: what a release records, so that a
// rollback runs it as it was. Where an app is found, who it runs as and what it finds
// in its environment is not among them: that goes by today's files.
var (
	recordedSections = []string{"health", "static"}
	recordedKeys     = []string{"workers", "threads", "timeout", "max_body"}
)

// isRecorded tells whether a release records a key, and whether it is one of an
// application server, the one that is on. What site files alone say is the
// server's, not the app's.
func (s *Site) isRecorded(r ref) (yes, server bool) {
	switch {
	case r.section == "app":
		return slices.Contains(recordedKeys, r.key), false
	case slices.Contains(recordedSections, r.section):
		return true, false
	}
	plugin, ok := s.schema.recordedOf[r.section]
	if !ok || !s.Plugins[plugin] {
		return false, false
	}
	k, known := s.schema.find(r)
	return known && k.Set < SetInSite, true
}

// Settings are those that a release records.
func (a *App) Settings() []Setting {
	if a.Values == nil || a.recorded == nil {
		return nil
	}
	var all []Setting
	for _, section := range a.sections() {
		for _, key := range a.counting(section) {
			if yes, _ := a.recorded(ref{section, key}); !yes {
				continue
			}
			if value, err := a.Get(section, key); err == nil {
				all = append(all, Setting{section, key, value})
			}
		}
	}
	return all
}

// setRecorded makes the recorded settings win over all files. What was not set then
// is not set; what has a default by now and was not known then stays as it is, and
// so does with other what is the application server's.
func (s *Site) setRecorded(v *Values, settings []Setting, other bool) {
	for _, section := range v.sections() {
		for _, key := range v.counting(section) {
			r := ref{section, key}
			k, known := s.schema.find(r)
			yes, server := v.recorded(r)
			if !yes || server && other || known && !k.Unset {
				continue
			}
			if !slices.ContainsFunc(settings, func(s Setting) bool { return s.Section == section && s.Key == key }) {
				v.remove(r)
			}
		}
	}
	for _, x := range settings {
		r := ref{x.Section, x.Key}
		if yes, server := v.recorded(r); yes && !(server && other) {
			v.set(r, escape(x.Value), Origin{Layer: LayerScotch})
		}
	}
}
