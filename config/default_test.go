package config

import (
	"slices"
	"strings"
	"testing"
)

// A deploy ran what [DEFAULT] says, and a dump did not show it: each known key is
// an entry of its section, with the line of [DEFAULT].
func TestDefaultSectionCountsWhereItIsTaken(t *testing.T) {
	s := mustOpen(t, "[DEFAULT]\nmemory = 1g\n", "blog",
		"[env]\nA = b\n[static]\n/s/ = s\n[uwsgi_config]\nharakiri = 3\n[DEFAULT]\nbuild = echo FROM DEFAULT\nbase = /tmp/q\nrelease = echo REL ${name} ${base}\nworkers = 9\ninclude = /etc/x.conf\nurl = https://x.example/\n")
	a, err := s.App("blog", AppOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range a.Entries() {
		if e.Origin.Layer == LayerApp || e.Key == "memory" || e.Key == "workers" {
			got = append(got, strings.TrimSpace(e.Section+":"+e.Key+" = "+e.Value+" "+e.Origin.String()[strings.LastIndex(e.Origin.String(), "/")+1:]))
		}
	}
	slices.Sort(got)
	want := []string{
		"DEFAULT:base = /tmp/q blog.cfg:9", "DEFAULT:build = echo FROM DEFAULT blog.cfg:8", "DEFAULT:include = /etc/x.conf blog.cfg:12",
		"DEFAULT:memory = 1g scotch.cfg:2", "DEFAULT:release = echo REL ${name} ${base} blog.cfg:10", "DEFAULT:url = https://x.example/ blog.cfg:13", "DEFAULT:workers = 9 blog.cfg:11",
		"app:build = echo FROM DEFAULT blog.cfg:8", "app:release = echo REL blog /tmp/q blog.cfg:10", "env:A = b blog.cfg:2",
		"limits:memory = 1g scotch.cfg:2", "nginx:include = /etc/x.conf blog.cfg:12", "static:/s/ = s blog.cfg:4", "uwsgi_config:harakiri = 3 blog.cfg:6",
	}
	got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "app:workers = 2 ") })
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if a.Build == "" || !a.ReleaseSet || a.Limits["memory"] != "1g" {
		t.Errorf("it does not count: %+v", a)
	}
}

// A release records what it is run with, not all of [DEFAULT]; and a rollback to one
// without a value is not given today's.
func TestDefaultSectionInRecordedSettings(t *testing.T) {
	s := mustOpen(t, "", "blog", "[DEFAULT]\nhost = old.example\nbase = /x\n")
	a, err := s.App("blog", AppOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []Setting
	for _, set := range a.Settings() {
		if set.Key == "host" || set.Key == "base" {
			got = append(got, set)
		}
	}
	if want := []Setting{{"health", "host", "old.example"}}; !slices.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	without := slices.DeleteFunc(a.Settings(), func(s Setting) bool { return s.Key == "host" })
	if a, err = s.App("blog", AppOptions{Recorded: without}); err != nil || a.Health.Host != "" {
		t.Errorf("the release that had no host has %q, %v", a.Health.Host, err)
	}
}

// What [DEFAULT] gives to a key that only a plugin reads is looked at before it is
// written into a file.
func TestDefaultSectionIsChecked(t *testing.T) {
	_, err := mustOpen(t, "", "blog", "[DEFAULT]\ninclude = ${nosuch}/x\nown = ${nosuch}\n").App("blog", AppOptions{})
	if err == nil || !strings.Contains(err.Error(), "blog.cfg:2: [nginx] include") || strings.Contains(err.Error(), "blog.cfg:3") {
		t.Errorf("%v", err)
	}
}
