package uwsgi

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// Defaults returns the plugin's defaults.cfg.
func Defaults() config.Defaults {
	return config.Defaults{Name: "uwsgi", Text: []byte(defaults), Check: checkOptions, CheckSite: checkSite}
}

// StandaloneDefaults returns what differs in standalone mode: a layer above Defaults.
func StandaloneDefaults() config.Defaults {
	return config.Defaults{Name: "uwsgi", Text: []byte(standalone)}
}

//go:embed defaults.cfg
var defaults string

//go:embed standalone.cfg
var standalone string

// UWSGI plans how uWSGI runs apps. Any number of goroutines may use it.
type UWSGI struct {
	settings
	umask int
	run   deployer.Runner
	kinds *kinds
}

var (
	_ deployer.AppServer = (*UWSGI)(nil)
	_ deployer.Requirer  = (*UWSGI)(nil)
	_ deployer.SelfCheck = (*UWSGI)(nil)
)

// settings is [uwsgi], checked.
type settings struct {
	configPath string // empty: none
	mode       fs.FileMode
	program    string
	plugin     string
	listen     int
	// named are the lines of site files that name the program and the plugin:
	// what a person names has to be there. Where the default is not, uWSGI is
	// installed into the virtualenvs.
	named map[string]config.Origin
}

// New reads and checks [uwsgi] of the site. It asks run for nothing but which
// Python the distribution's uWSGI has.
func New(site *config.Site, run deployer.Runner) (*UWSGI, error) {
	var s settings
	if err := site.Collect(func(fail func(section, key string, err error)) { s = readSettings(site, fail) }); err != nil {
		return nil, err
	}
	s.named = make(map[string]config.Origin)
	for _, key := range []string{"program", "plugin"} {
		if at := site.Origin("uwsgi", key); at.Layer == config.LayerSite {
			s.named[key] = at
		}
	}
	return &UWSGI{settings: s, umask: site.Umask, run: run, kinds: new(kinds)}, nil
}

// SelfCheck tells of a program or a plugin that a site file names and that is
// not there.
func (u *UWSGI) SelfCheck(ctx context.Context) error {
	if len(u.named) == 0 {
		return nil
	}
	k, err := u.kind(ctx)
	if err != nil {
		return err
	}
	wrong := func(key, problem, hint string) error {
		at := u.named[key]
		return &config.Error{File: at.File, Line: at.Line, Section: "uwsgi", Key: key, Problem: problem, Hint: hint}
	}
	_, program := u.named["program"]
	_, plugin := u.named["plugin"]
	switch {
	case k.path == "" && program:
		return wrong("program", fmt.Sprintf("there is no program %q", u.settings.program),
			"install it (Debian, Ubuntu: apt-get install uwsgi-core), or remove the line: without the distribution's uWSGI the apps' virtualenvs get one")
	case k.path == "":
		return wrong("plugin", fmt.Sprintf("there is no %q to load it", u.settings.program),
			"install it (Debian, Ubuntu: apt-get install uwsgi-core), or remove the line: without the distribution's uWSGI the apps' virtualenvs get one")
	case k.python == "" && plugin:
		return wrong("plugin", fmt.Sprintf("%s has no plugin %q for Python", k.path, u.plugin),
			"install it (Debian, Ubuntu: apt-get install uwsgi-plugin-python3), or remove the line for python3")
	case k.python == "" && program:
		return wrong("program", fmt.Sprintf("%s is no uWSGI with the plugin %q", k.path, u.plugin),
			"install the plugin (Debian, Ubuntu: apt-get install uwsgi-plugin-python3), or remove the line: the apps' virtualenvs get a uWSGI then")
	}
	return nil
}

func checkSite(site *config.Site, fail func(section, key string, err error)) {
	readSettings(site, fail)
}

// readSettings reads [uwsgi], and tells fail what is wrong with it.
func readSettings(site *config.Site, fail func(section, key string, err error)) settings {
	var s settings
	read := func(key string, parse func(text string) error) {
		v, err := site.Get("uwsgi", key)
		if err == nil {
			err = parse(strings.TrimSpace(v))
		}
		if err != nil {
			fail("uwsgi", key, err)
		}
	}
	read("config_path", func(v string) error {
		if v == "" {
			return nil
		}
		s.configPath = filepath.Clean(v)
		return checkPath(v)
	})
	read("program", func(v string) error {
		if s.program = v; v == "" {
			return errors.New("is empty\nname uWSGI's program, or remove the line for the default")
		}
		return nil
	})
	read("plugin", func(v string) error {
		if s.plugin = v; !pluginName().MatchString(v) {
			return fmt.Errorf("%q is no name of a plugin", v)
		}
		return nil
	})
	read("config_mode", func(v string) error {
		m, err := strconv.ParseUint(v, 8, 32)
		if err != nil || m > 0o777 || m&0o400 == 0 {
			return fmt.Errorf("%q is no mode of a file that can be read\nwrite it in octal, such as 0640", v)
		}
		s.mode = fs.FileMode(m)
		return nil
	})
	read("listen", func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q is no number of connections from 1 to 65535", v)
		}
		s.listen = n
		return nil
	})
	return s
}

// Name is what people call it.
func (u *UWSGI) Name() string { return "uwsgi" }

// Socket is the path, below an instance's run directory, that it answers at.
func (u *UWSGI) Socket(runDir string) string { return filepath.Join(runDir, "uwsgi.sock") }

func statsSocket(runDir string) string { return filepath.Join(runDir, "stats.sock") }
