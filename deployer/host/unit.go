package host

import (
	"bytes"
	_ "embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"scotch/config"
)

//go:embed scotch.service
var unitTemplate string

// unitData fills the unit's template.
type unitData struct {
	Exec     string
	Writable []string
	Runtime  string // RuntimeDirectory, below /run; "" where [paths] run is elsewhere
	Stop     int    // seconds
}

// Unit renders the server's systemd unit for a site. program is an absolute
// path. files are the site files to start it with, none for the standard ones.
func Unit(site *config.Site, program string, files []string) ([]byte, error) {
	t, err := template.New(unitName).Parse(unitTemplate)
	if err != nil {
		return nil, err
	}
	args := []string{unitWord(program)}
	for _, f := range files {
		args = append(args, "-c", unitWord(f))
	}
	d := unitData{
		Exec: strings.Join(append(args, "serve"), " "),
		// A push that is finished and the server's own end come on top.
		Stop: int((site.Server.StopTimeout + 30*time.Second).Seconds()),
	}
	if rel, ok := strings.CutPrefix(site.Paths.Run, "/run/"); ok {
		d.Runtime = unitWord(rel)
	}
	for _, p := range writable(site) {
		d.Writable = append(d.Writable, unitWord("-"+p))
	}
	var b bytes.Buffer
	err = t.Execute(&b, d)
	return b.Bytes(), err
}

// unitWord writes a word so that systemd reads it as it is (systemd.syntax(7),
// QUOTING; % begins a specifier, systemd.unit(5), and $ a variable).
func unitWord(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(s)
	if strings.ContainsAny(s, " \t'") {
		return `"` + s + `"`
	}
	return s
}

// writable lists the directories that the server must be able to write, without
// those below another one.
func writable(site *config.Site) []string {
	dirs := []string{
		// /etc itself: useradd replaces /etc/passwd and its like, and the files
		// of nginx and uWSGI lie there.
		"/etc",
		// nginx -t opens its pid file and its logs for writing.
		"/run", "/var/log/nginx", "/var/lib/nginx",
		// ssh, as the user that git runs as.
		gitHome,
		// Where people put what the machine serves (Filesystem Hierarchy Standard).
		"/srv",
		site.Paths.Configuration, site.Paths.AppsEnabled, site.Paths.Instances, site.Paths.Repositories,
		site.Paths.Data, site.Paths.Logs, site.Paths.Run,
		filepath.Dir(site.Server.HostKey), filepath.Dir(site.Server.AuthorizedKeys),
	}
	for section, keys := range map[string][]string{"nginx": {"config_path", "sites_path", "domains_path"}, "uwsgi": {"config_path"}} {
		for _, key := range keys {
			if v, err := site.Get(section, key); err == nil && filepath.IsAbs(v) {
				dirs = append(dirs, v)
			}
		}
	}
	dirs = append(dirs, elsewhere(site)...)
	slices.Sort(dirs)
	var out []string
	for _, d := range slices.Compact(dirs) {
		d = filepath.Clean(d)
		if d != "/" && !slices.ContainsFunc(out, func(o string) bool { return within(d, o) }) {
			out = append(out, d)
		}
	}
	return out
}

// within tells whether path is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// elsewhere lists the directories that [app] of the site's files and the apps'
// own files put instances, virtualenvs and data into, besides [paths].
func elsewhere(site *config.Site) []string {
	var dirs []string
	for _, e := range site.Entries() {
		if e.Section != "app" || !slices.Contains([]string{"instance_path", "venv_path", "src_path", "run_path", "data_path"}, e.Key) {
			continue
		}
		// What stands before the part that varies with the app.
		fixed, _, varies := strings.Cut(e.Raw, "$")
		if !varies || !strings.HasPrefix(fixed, "/") {
			continue
		}
		if dir := filepath.Clean(fixed[:strings.LastIndexByte(fixed, '/')+1]); dir != "/" {
			dirs = append(dirs, dir)
		}
	}
	names, _ := site.Apps()
	for _, name := range names {
		a, err := site.App(name, config.AppOptions{InstanceID: "000001"})
		if err != nil {
			continue // doctor and deploys tell of it
		}
		for _, p := range []string{a.InstancePath, a.VenvPath, a.SourcePath, a.RunPath, a.DataPath} {
			if dir := firstExisting(filepath.Dir(p)); dir != "/" {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// installedUnit is the unit file that systemd reads, "" where there is none.
func installedUnit() string {
	for _, path := range append([]string{unitFile}, packagedUnits()...) {
		if exists(path) {
			return path
		}
	}
	return ""
}

// unitDiffers tells whether the unit on disk is not the wanted one.
func unitDiffers(want []byte) bool {
	path := installedUnit()
	if path == "" {
		return true
	}
	have, err := os.ReadFile(path)
	return err != nil || !bytes.Equal(have, want)
}
