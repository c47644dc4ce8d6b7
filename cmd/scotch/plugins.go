package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/sirupsen/logrus"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/git"
	"scotch/deployer/nginx"
	"scotch/deployer/python"
	"scotch/deployer/uwsgi"
)

// plugins are the parts that a server is made of. This is the one place where
// they are registered: another web or application server is a case here.
type plugins struct {
	runner    *direct.Runner
	git       *git.Git
	toolchain deployer.Toolchain
	app       deployer.AppServer
	web       deployer.WebServer
}

// pluginDefaults are the defaults that plugins bring to the configuration.
func pluginDefaults() []config.Defaults {
	return []config.Defaults{uwsgi.Defaults(), nginx.Defaults()}
}

func newPlugins(site *config.Site, log logrus.FieldLogger) (*plugins, error) {
	if !isOn(site, "git") {
		return nil, errors.New("[plugins] turns git off, and there is no other source yet\nturn it on: git = on")
	}
	p := &plugins{}
	p.runner = direct.New(site.Paths.Run, direct.Options{})
	p.git = git.New(site.Paths.Repositories, p.runner, git.Options{User: gitUser(site), FetchEnv: fetchEnv(site)})
	p.toolchain = python.New(p.runner, python.Options{
		Path:  os.Getenv("PATH"),
		Home:  os.Getenv("HOME"),
		Cache: func(a *config.App) string { return installerCache(site, a) },
	})
	var err error
	p.app = deployer.NoAppServer{}
	if isOn(site, "uwsgi") {
		if p.app, err = uwsgi.New(site, p.runner); err != nil {
			return nil, err
		}
	}
	p.web = deployer.NoWebServer{Socket: func(app string) string {
		return p.app.Socket(filepath.Join(site.Paths.Instances, app, "current", "run"))
	}}
	if isOn(site, "nginx") {
		if p.web, err = nginx.New(site); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// isOn tells whether [plugins] has a part on, as it is where nothing is said.
func isOn(site *config.Site, name string) bool {
	on, said := site.Plugins[name]
	return on || !said
}

func (p *plugins) options(site *config.Site, log logrus.FieldLogger) deployer.Options {
	return deployer.Options{
		Site: site, Source: p.git, Repositories: p.git, Toolchain: p.toolchain,
		AppServer: p.app, WebServer: p.web, Runner: p.runner, Log: log, SSH: sshCommand(site),
	}
}

// installerCache is the directory that an app's installers cache packages in:
// one for all where all is one user's, else one for each app, because whoever
// may write it decides what others install. Empty where it cannot be made.
func installerCache(site *config.Site, a *config.App) string {
	dir := filepath.Join(site.Paths.Instances, ".cache")
	if a.User != "" {
		dir = filepath.Join(site.Paths.Instances, a.Name, ".cache")
	}
	if os.MkdirAll(dir, 0o700) != nil {
		return ""
	}
	if a.User != "" && deployer.GiveTo(a, dir) != nil {
		return ""
	}
	return dir
}

// fetchEnv is what a fetch of [app] src finds in its environment. A standalone
// server's owner fetches with the keys and the proxy that their shell has.
func fetchEnv(site *config.Site) func(app string) []string {
	if site.Mode != "standalone" {
		return nil
	}
	var env []string
	for _, name := range []string{"HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
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
