package config

import (
	"bytes"
	_ "embed"
	"strings"
)

//go:embed app.cfg.template
var appTemplate []byte

// AppTemplate is a new app's file: all of it comment but the line [app], so that
// it changes nothing until somebody edits it. The name must be a valid one.
func AppTemplate(name string) []byte {
	return bytes.ReplaceAll(appTemplate, []byte("NAME"), []byte(name))
}

// StandaloneOptions are what a standalone server's site file says.
type StandaloneOptions struct {
	Dir      string // absolute; everything is below it
	Listen   string // HOST:PORT of ssh
	HTTP     string // HOST:PORT of the web server
	BuildEnv []Var  // what builds see, such as the place that packages come from
}

// StandaloneSite is the site file that a standalone server writes once.
func StandaloneSite(o StandaloneOptions) []byte {
	f := &siteFile{}
	f.comment("A scotch server of its own in one directory. It was written with the flags that",
		"the server was first started with and is yours to edit from then on; the keys",
		"are explained in docs/CONFIGURATION.md.")
	f.section("site", "Apps without domains of their own answer at NAME.localhost.")
	f.set("domain", "localhost")
	f.section("paths", "Everything is below configuration.")
	f.set("configuration", escape(o.Dir))
	for _, dir := range []string{"apps-enabled", "instances", "repositories", "data", "logs", "run"} {
		f.set(strings.ReplaceAll(dir, "-", "_"), "${configuration}/"+dir)
	}
	f.section("server", "Standalone: nobody's rights are changed, everything runs as the caller.")
	f.set("mode", "standalone")
	f.set("listen", escape(o.Listen))
	f.set("host_key", "${paths:configuration}/host_key")
	f.set("authorized_keys", "${paths:configuration}/authorized_keys")
	f.section("nginx", "This server's own nginx.")
	f.set("listen", escape(o.HTTP))
	f.set("config_path", "${paths:run}/nginx")
	f.set("pid_path", "${config_path}/nginx.pid")
	f.set("access_log", "off")
	f.section("uwsgi", "The ini files are in the instances' run directories; name a folder to look at them.")
	f.set("config_path", "")
	f.set("config_mode", "0600")
	if len(o.BuildEnv) > 0 {
		f.section("build_env", "What builds see, and running apps do not. A dollar sign is written $$.")
		for _, v := range o.BuildEnv {
			lines := Set("build_env", v.Name, v.Value).lines()
			f.lines(written("", v.Name, lines)...)
		}
	}
	return f.out.Bytes()
}

// siteFile writes a configuration file.
type siteFile struct{ out bytes.Buffer }

func (f *siteFile) lines(lines ...string) {
	for _, l := range lines {
		f.out.WriteString(l + "\n")
	}
}

func (f *siteFile) comment(lines ...string) {
	for _, l := range lines {
		f.lines("# " + l)
	}
}

func (f *siteFile) section(name, comment string) {
	f.lines("")
	f.comment(comment)
	f.lines("[" + name + "]")
}

func (f *siteFile) set(key, raw string) { f.lines(strings.TrimRight(key+" = "+raw, " ")) }
