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

// recordedSections and recordedKeys say how an app's processes run and are
// judged: what a release records, so that a rollback runs it as it was. Where an
// app is found, who it runs as and what it finds in its environment is not among
// them: that goes by today's files.
var (
	recordedSections = []string{"uwsgi_config", "health", "static"}
	recordedKeys     = []string{"workers", "threads", "timeout", "max_body"}
)

// Settings are those that a release records.
func (a *App) Settings() []Setting {
	if a.Values == nil {
		return nil
	}
	var all []Setting
	add := func(section, key string) {
		if value, err := a.Get(section, key); err == nil {
			all = append(all, Setting{section, key, value})
		}
	}
	for _, key := range recordedKeys {
		add("app", key)
	}
	for _, section := range recordedSections {
		for _, key := range a.counting(section) {
			add(section, key)
		}
	}
	return all
}

// setRecorded makes the recorded settings win over all files.
func (v *Values) setRecorded(settings []Setting) {
	for _, section := range recordedSections {
		for _, key := range v.counting(section) {
			if !slices.ContainsFunc(settings, func(s Setting) bool { return s.Section == section && s.Key == key }) {
				v.remove(ref{section, key})
			}
		}
	}
	for _, s := range settings {
		if slices.Contains(recordedSections, s.Section) || s.Section == "app" && slices.Contains(recordedKeys, s.Key) {
			v.set(ref{s.Section, s.Key}, escape(s.Value), Origin{Layer: LayerScotch})
		}
	}
}
