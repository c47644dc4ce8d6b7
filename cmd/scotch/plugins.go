package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/git"
	"scotch/deployer/nginx"
	"scotch/deployer/python"
	"scotch/deployer/systemd"
	"scotch/deployer/uwsgi"
)

// appServers and webServers are the plugins to choose from, by [plugins]: the
// one place where they are registered. Another one is another line.
func appServers() []plugin[deployer.AppServer] {
	return []plugin[deployer.AppServer]{
		{uwsgi.Defaults(), uwsgi.StandaloneDefaults(), func(site *config.Site, run deployer.Runner) (deployer.AppServer, error) { return uwsgi.New(site, run) }},
	}
}

func webServers() []plugin[deployer.WebServer] {
	return []plugin[deployer.WebServer]{
		{nginx.Defaults(), nginx.StandaloneDefaults(), func(site *config.Site, _ deployer.Runner) (deployer.WebServer, error) { return nginx.New(site) }},
	}
}

// plugin is one way to fill a part of a server.
type plugin[S any] struct {
	defaults   config.Defaults // its Name is the key in [plugins]
	standalone config.Defaults // what differs in standalone mode; no Text for nothing
	open       func(*config.Site, deployer.Runner) (S, error)
}

// choose opens the one plugin that is on; off stands in for none.
func choose[S any](site *config.Site, run deployer.Runner, part string, from []plugin[S], off S) (S, error) {
	chosen, name := off, ""
	for _, p := range from {
		if !isOn(site, p.defaults.Name) {
			continue
		}
		if name != "" {
			return off, switchError(site, p.defaults.Name, fmt.Sprintf("both %s and %s are on, and there is one %s", name, p.defaults.Name, part), fmt.Sprintf("turn one of them off: %s = off", name))
		}
		var err error
		if chosen, err = p.open(site, run); err != nil {
			return off, err
		}
		name = p.defaults.Name
	}
	return chosen, nil
}

// switchError is what is wrong with a line of [plugins].
func switchError(site *config.Site, name, problem, hint string) error {
	at := site.Origin("plugins", name)
	return &config.Error{File: at.File, Line: at.Line, Section: "plugins", Key: name, Problem: problem, Hint: hint}
}

// namesOf are the plugins to choose from, as [plugins] has them.
func namesOf[S any](from []plugin[S]) (names []string) {
	for _, p := range from {
		names = append(names, p.defaults.Name)
	}
	return names
}

// plugins are the parts that a server is made of.
type plugins struct {
	runner    runner
	git       *git.Git
	toolchain deployer.Toolchain
	app       deployer.AppServer
	web       deployer.WebServer
}

// pluginDefaults are the defaults that plugins bring to the configuration, and
// those of standalone mode.
func pluginDefaults() (plugins, standalone []config.Defaults) {
	apps, webs := defaultsOf(appServers()), defaultsOf(webServers())
	for i := range apps[0] {
		apps[0][i].Recorded = true // how an app runs belongs to its release
	}
	return append(apps[0], webs[0]...), append(apps[1], webs[1]...)
}

// defaultsOf are the plugins' own defaults, and those of standalone mode.
func defaultsOf[S any](from []plugin[S]) (layers [2][]config.Defaults) {
	for _, p := range from {
		layers[0] = append(layers[0], p.defaults)
		if len(p.standalone.Text) > 0 {
			layers[1] = append(layers[1], p.standalone)
		}
	}
	return layers
}

func newPlugins(site *config.Site, log logrus.FieldLogger) (*plugins, error) {
	if !isOn(site, "git") {
		return nil, switchError(site, "git", "is off, and there is no other source yet", "turn it on: git = on")
	}
	p := &plugins{}
	var err error
	if p.runner, err = newRunner(site); err != nil {
		return nil, err
	}
	p.git = git.New(site.Paths.Repositories, p.runner, git.Options{
		Limits: git.Limits{Push: site.Server.MaxPush, Objects: site.Server.MaxObjects, Refs: site.Server.MaxRefs, Object: site.Server.MaxObject, Files: site.Server.MaxFiles, Source: site.Server.MaxSource,
			Memory: site.Server.PushMemory, CPU: site.Server.PushCPU},
		User: gitUser(site), FetchEnv: fetchEnv(site),
		Keys: filepath.Join(site.Paths.Configuration, "keys"), Run: loans(site),
	})
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p.toolchain = python.New(p.runner, python.Options{
		Reader: []string{self, python.Arg},
		Path:   os.Getenv("PATH"),
		Home:   os.Getenv("HOME"),
		Cache:  func(a *config.App) string { return installerCache(site, a) },
		Pyenvs: []string{os.Getenv("PYENV_ROOT")}, UVPythons: []string{os.Getenv("UV_PYTHON_INSTALL_DIR")},
		Downloads: filepath.Join(site.Paths.Instances, ".pythons"), DownloadEnv: downloadEnv(), Files: failpoints(),
	})
	if p.app, err = choose[deployer.AppServer](site, p.runner, "application server", appServers(), deployer.NoAppServer{Plugins: namesOf(appServers())}); err != nil {
		return nil, err
	}
	off := deployer.NoWebServer{Plugins: namesOf(webServers()), Socket: func(app string) string {
		return p.app.Socket(filepath.Join(site.Paths.Instances, app, "current", "run"))
	}}
	if site.Mode != "standalone" {
		// Whatever stands in for nginx connects as its group does.
		if off.SocketGroup, err = site.Get("nginx", "group"); err != nil {
			return nil, err
		}
	}
	p.web, err = choose[deployer.WebServer](site, p.runner, "web server", webServers(), off)
	return p, err
}

// runner starts processes; its Mark makes one that is started elsewhere (git, by
// the server of git) one of this site's.
type runner struct {
	deployer.Runner
	Mark func() []string
	box  *direct.Box // nil where something else confines apps, or nothing is to
}

// newRunner is systemd's in system mode where it can be had; elsewhere bubblewrap
// confines apps, where that can be had. The server's own commands, short and many,
// are started directly in any case.
func newRunner(site *config.Site) (runner, error) {
	if site.Mode == "standalone" || os.Geteuid() != 0 {
		own := direct.New(site.Paths.Run, direct.Options{})
		return runner{own, own.Mark, nil}, nil
	}
	if systemd.Here() {
		own := direct.New(site.Paths.Run, direct.Options{})
		units, err := systemd.New(site.Paths.Run, systemd.Options{Own: own, Hidden: hidden(site)})
		return runner{units, own.Mark, nil}, err
	}
	self, err := os.Executable()
	if err != nil {
		return runner{}, fmt.Errorf("find this program: %w", err)
	}
	box := &direct.Box{
		Hidden: hidden(site), Scratch: filepath.Join(site.Paths.Instances, ".private"), Program: self, Path: os.Getenv("PATH"),
	}
	// The users that are made for apps run nothing else.
	made := func(user string) bool { return strings.HasPrefix(user, "scotch-") && user != site.Server.GitUser }
	own := direct.New(site.Paths.Run, direct.Options{Box: box, Own: made})
	return runner{own, own.Mark, box}, nil
}

// hidden is what no app has any business with: keys, other apps' files of
// configuration, repositories, logs (which are open when it starts), and the
// socket that takes commands.
func hidden(site *config.Site) []string {
	return append([]string{
		site.Paths.Configuration, site.Paths.AppsEnabled, site.Paths.Repositories, site.Paths.Logs,
		site.Server.HostKey, site.Server.AuthorizedKeys, filepath.Join(site.Paths.Run, socketName),
	}, site.Files...)
}

// isOn tells whether [plugins] has a part on, as it is where nothing is said.
func isOn(site *config.Site, name string) bool {
	on, said := site.Plugins[name]
	return on || !said
}

func (p *plugins) options(site *config.Site, log logrus.FieldLogger) deployer.Options {
	return deployer.Options{
		Site: site, Source: p.git, Repositories: p.git, Toolchain: p.toolchain,
		AppServer: p.app, WebServer: p.web, Runner: p.runner, Files: failpoints(), Log: log, SSH: sshCommand(site),
	}
}

// installerCache is the directory that an app's installers cache packages in:
// one for all where all is one user's, else one for each app, because whoever
// may write it decides what others install. Empty where it cannot be made.
func installerCache(site *config.Site, a *config.App) string {
	dir := filepath.Join(site.Paths.Instances, ".cache")
	if a.User != "" {
		dir = filepath.Join(site.Paths.Instances, a.Name, ".cache")
		if deployer.OwnedByAnother(a, dir) && deployer.RemoveTree(dir) != nil {
			return "" // [app] user has changed, and can't write what the old one left
		}
	}
	if os.MkdirAll(dir, 0o700) != nil {
		return ""
	}
	if a.User != "" && deployer.GiveTo(a, dir) != nil {
		return ""
	}
	return dir
}

// loans is where the agents of deploy keys are while a build runs. The app's user
// writes there: in system mode it is not below /run, which is memory that all of
// the machine needs some of.
func loans(site *config.Site) string {
	if site.Mode == "standalone" {
		return filepath.Join(site.Paths.Run, "keys")
	}
	return filepath.Join(site.Paths.Instances, ".keys")
}

// downloadEnv is what uv finds in its environment when it downloads an
// interpreter: the server's proxies, and its own switches, of which
// UV_PYTHON_DOWNLOADS=never turns downloads off.
func downloadEnv() []string {
	var env []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "UV_PYTHON_DOWNLOADS", "UV_PYTHON_INSTALL_MIRROR", "UV_PYTHON_DOWNLOADS_JSON_URL", "UV_OFFLINE", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// fetchEnv is what a fetch of [app] src finds in its environment: the server's
// proxies and trust store, and in standalone mode the keys of the owner's shell.
func fetchEnv(site *config.Site) func(app string) []string {
	names := []string{"http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"}
	if site.Mode == "standalone" {
		names = append(names, "HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND")
	}
	var env []string
	for _, name := range names {
		if v := os.Getenv(name); v != "" { // an empty GIT_SSL_CAINFO would trust nobody
			env = append(env, name+"="+v)
		}
	}
	// git with GnuTLS does not know the variable that others know.
	if v, ok := os.LookupEnv("SSL_CERT_FILE"); ok && os.Getenv("GIT_SSL_CAINFO") == "" {
		env = append(env, "SSL_CERT_FILE="+v, "GIT_SSL_CAINFO="+v)
	}
	return func(string) []string { return env }
}

// gitUser is who git and its hooks run as: in system mode a user of their own.
func gitUser(site *config.Site) string {
	if site.Mode == "standalone" || os.Geteuid() != 0 {
		return ""
	}
	return site.Server.GitUser
}

// gitCredential is gitUser for the kernel; nil where git runs as the server.
func (p *plugins) gitCredential(site *config.Site) (*syscall.Credential, error) {
	name := gitUser(site)
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("[server] git_user is %q: %w\nmake it: useradd --system --user-group --shell /usr/sbin/nologin %s", name, err, name)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
