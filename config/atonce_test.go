package config

import (
	"fmt"
	"strings"
	"testing"
)

// Each plugin stopped at its own mistakes, without file and line, and what a site
// file says for all apps was found when an app was read: all of it is said when the
// site file is read, at once.
func TestSiteFileErrorsAllAtOnce(t *testing.T) {
	plugins := testPlugins()
	for i := range plugins {
		name := plugins[i].Name
		plugins[i].CheckSite = func(s *Site, fail func(section, key string, err error)) {
			if v, _ := s.Get(name, "config_path"); v == "bad" {
				fail(name, "config_path", fmt.Errorf("%q is no path\nwrite another", v))
			}
		}
	}
	open := func(text string) error {
		dir := folder(t, "scotch.cfg", text+"\n")
		s, err := Open(Options{Files: []string{dir + "/scotch.cfg"}, Plugins: plugins})
		if err == nil {
			err = s.Mistakes.err()
		}
		return err
	}
	err := open("[nginx]\nconfig_path = bad\n[uwsgi]\nconfig_path = bad\n[paths]\nfoo = 1\n[app]\nworkers = x\nroot = /x\n[env]\nA = $x\n1B = y\n[server]\nlisten = x")
	for _, want := range []string{
		":2: [nginx] config_path: \"bad\" is no path\nwrite another", ":4: [uwsgi] config_path: ", ":6: [paths] foo: there is no such key", ":8: [app] workers: ",
		":9: [app] root: ", ":11: [env] A: ", ":12: [env] 1B: ", ":14: [server] listen: ",
	} {
		if err == nil || !strings.Contains(err.Error(), "scotch.cfg"+want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if err := open("[plugins]\nuwsgi = off\nnginx = off\n[uwsgi]\nconfig_path = bad\n[nginx]\nconfig_path = bad"); err != nil {
		t.Errorf("a plugin that is off checks: %v", err)
	}
	// What each app's file may decide stops no server.
	for _, good := range []string{
		"[app]\nworkers = ${env:WORKERS}", "[app]\nworkers = ${DEFAULT:tier}\n[DEFAULT]\ntier = none", "[app]\nroot = ${sub}", "[env]\nA = ${B}",
		"[app]\nuser = ${name}\ndomains = ${name}.${site:domain}\n[site]\ndomain = x.example", "[app]\ndata_path = /disk/${name}",
	} {
		if err := open(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

// Standalone mode's defaults lie between the plugins' and the site files, and only there.
func TestStandaloneDefaults(t *testing.T) {
	standalone := []Defaults{{Name: "nginx", Text: []byte("[nginx]\nlisten = 127.0.0.1:8080\nconfig_path = /own\n")}}
	for site, want := range map[string]string{
		"": "80 /etc/nginx", "[server]\nmode = standalone\n": "127.0.0.1:8080 /own", "[server]\nmode = standalone\n[nginx]\nlisten = 81\n": "81 /own",
	} {
		dir := folder(t, "scotch.cfg", site)
		s, err := Open(Options{Files: []string{dir + "/scotch.cfg"}, Plugins: testPlugins(), Standalone: standalone})
		if err != nil {
			t.Fatal(err)
		}
		listen, _ := s.Get("nginx", "listen")
		path, _ := s.Get("nginx", "config_path")
		if got := listen + " " + path; got != want {
			t.Errorf("%q gives %q, want %q", site, got, want)
		}
	}
}
