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
	return config.Defaults{Name: "uwsgi", Text: []byte(defaults), Check: checkOptions}
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
	s, err := readSettings(func(key string) (string, error) { return site.Get("uwsgi", key) })
	if err != nil {
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

func readSettings(get func(key string) (string, error)) (settings, error) {
	var (
		s    settings
		errs []error
	)
	text := func(key string) string {
		v, err := get(key)
		errs = append(errs, err)
		return strings.TrimSpace(v)
	}
	s.configPath = text("config_path")
	s.program = text("program")
	s.plugin = text("plugin")
	mode, listen := text("config_mode"), text("listen")
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	if s.configPath != "" {
		errs = append(errs, checkPath("[uwsgi] config_path", s.configPath))
		s.configPath = filepath.Clean(s.configPath)
	}
	if s.program == "" {
		errs = append(errs, errors.New("[uwsgi] program is empty\nname uWSGI's program, or remove the line for the default"))
	}
	if !pluginName().MatchString(s.plugin) {
		errs = append(errs, fmt.Errorf("[uwsgi] plugin %q is no name of a plugin", s.plugin))
	}
	m, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || m > 0o777 || m&0o400 == 0 {
		errs = append(errs, fmt.Errorf("[uwsgi] config_mode %q is no mode of a file that can be read\nwrite it in octal, such as 0640", mode))
	}
	s.mode = fs.FileMode(m)
	s.listen, err = strconv.Atoi(listen)
	if err != nil || s.listen < 1 || s.listen > 65535 {
		errs = append(errs, fmt.Errorf("[uwsgi] listen %q is no number of connections from 1 to 65535", listen))
	}
	return s, errors.Join(errs...)
}

// Name is what people call it.
func (u *UWSGI) Name() string { return "uwsgi" }

// Socket is the path, below an instance's run directory, that it answers at.
func (u *UWSGI) Socket(runDir string) string { return filepath.Join(runDir, "uwsgi.sock") }

func statsSocket(runDir string) string { return filepath.Join(runDir, "stats.sock") }
