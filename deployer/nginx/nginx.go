package nginx

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// Defaults returns the plugin's defaults.cfg.
func Defaults() config.Defaults {
	return config.Defaults{Name: "nginx", Text: []byte(defaults), Check: checkApp, CheckSite: checkSite}
}

// StandaloneDefaults returns what differs in standalone mode: a layer above
// Defaults. Without it New refuses a standalone site, for its nginx would be
// the distribution's.
func StandaloneDefaults() config.Defaults {
	return config.Defaults{Name: "nginx", Text: []byte(standalone)}
}

//go:embed defaults.cfg
var defaults string

//go:embed standalone.cfg
var standalone string

// searchPath is where nginx is looked for: it is an administrator's program.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// NGINX renders nginx's configuration. It does not change after New, so any
// number of goroutines may use it.
type NGINX struct {
	standalone bool
	settings
	instances string // [paths] instances
	logs      string // [paths] logs
	ipv6      bool   // the kernel has IPv6
	owner     string // "USER GROUP" of nginx's workers where it runs as root by scotch's hand
}

var (
	_ deployer.WebServer = (*NGINX)(nil)
	_ deployer.Hosted    = (*NGINX)(nil)
)

// settings is [nginx], checked.
type settings struct {
	configPath, sitesPath, domainsPath string
	listen                             []address
	test, reload                       []string
	program                            string
	pidPath                            string
	mode                               fs.FileMode
	accessLog, failedLog               string
	acme                               string
	group                              string
	named                              map[string]config.Origin // keys that a site file sets
}

// New reads and checks [nginx] of the site. All that is wrong is in the error,
// a config.Errors.
func New(site *config.Site) (*NGINX, error) {
	var s settings
	if err := site.Collect(func(fail func(section, key string, err error)) {
		s = readSettings(site, fail)
	}); err != nil {
		return nil, err
	}
	s.named = make(map[string]config.Origin)
	for _, key := range site.Keys("nginx") {
		if at := site.Origin("nginx", key); at.Layer == config.LayerSite {
			s.named[key] = at
		}
	}
	n := &NGINX{standalone: site.Mode == "standalone", settings: s, instances: site.Paths.Instances, logs: site.Paths.Logs}
	// A kernel without IPv6 refuses to listen on [::] (EAFNOSUPPORT), and nginx
	// then does not start.
	_, err := os.Stat("/proc/net/if_inet6")
	n.ipv6 = err == nil
	if !n.standalone {
		return n, nil
	}
	if os.Geteuid() == 0 {
		if n.owner, err = caller(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// caller names the user and group that this process runs as. nginx gives its
// workers to nobody or www-data when root starts it, who can't connect to the
// sockets of the caller's apps.
func caller() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("finding out who nginx is to run as: %w", err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return "", fmt.Errorf("finding out which group nginx is to run as: %w", err)
	}
	for _, name := range []string{u.Username, g.Name} {
		if !userName().MatchString(name) {
			return "", fmt.Errorf("nginx can't run as %q: the name has characters that its configuration does not take", name)
		}
	}
	return u.Username + " " + g.Name, nil
}

func checkSite(site *config.Site, fail func(section, key string, err error)) {
	readSettings(site, fail)
}

// readSettings reads [nginx], and tells fail what is wrong with it and with the
// paths of the site that are written into nginx's files.
func readSettings(site *config.Site, fail func(section, key string, err error)) settings {
	var s settings
	read := func(key string, parse func(text string) error) {
		v, err := site.Get("nginx", key)
		if err == nil {
			err = parse(strings.TrimSpace(v))
		}
		if err != nil {
			fail("nginx", key, err)
		}
	}
	path := func(key string, to *string) {
		read(key, func(v string) error {
			*to = filepath.Clean(v)
			return checkPath(v)
		})
	}
	command := func(key string, to *[]string) {
		read(key, func(v string) error {
			if *to = strings.Fields(v); len(*to) == 0 {
				return errNoCommand
			}
			return nil
		})
	}
	path("config_path", &s.configPath)
	path("sites_path", &s.sitesPath)
	path("domains_path", &s.domainsPath)
	path("pid_path", &s.pidPath)
	path("acme_path", &s.acme)
	path("failed_log", &s.failedLog)
	command("test_command", &s.test)
	command("reload_command", &s.reload)
	read("program", func(v string) error {
		if s.program = v; v == "" {
			return errNoCommand
		}
		return nil
	})
	read("access_log", func(v string) error {
		if s.accessLog = v; v == "" || v == "off" {
			return nil
		}
		s.accessLog = quote(v)
		return checkPath(v)
	})
	read("group", func(v string) error {
		if s.group = v; v != "" && !userName().MatchString(v) {
			return fmt.Errorf("%q is no name of a group", v)
		}
		return nil
	})
	read("config_mode", func(v string) error {
		m, err := strconv.ParseUint(v, 8, 32)
		if err != nil || m > 0o777 {
			return fmt.Errorf("%q is no mode\nwrite it in octal, such as 0600", v)
		}
		s.mode = fs.FileMode(m)
		return nil
	})
	read("listen", func(v string) error {
		var errs problems
		for _, f := range strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' }) {
			a, err := parseAddress(f)
			errs.add(err)
			s.listen = append(s.listen, a)
		}
		if len(s.listen) == 0 {
			errs.add(errors.New("is empty\nname an address, such as 80 or 127.0.0.1:8080"))
		}
		return errs.err()
	})
	if site.Mode == "standalone" && s.configPath == "/etc/nginx" {
		fail("nginx", "config_path", errors.New("\"/etc/nginx\" belongs to the distribution's nginx: a standalone server has its own\nset it below [paths] run, such as ${paths:run}/nginx"))
	}
	written := map[string]string{"instances": site.Paths.Instances}
	if site.Mode == "standalone" {
		written["logs"] = site.Paths.Logs
	}
	for key, p := range written {
		if err := checkPath(p); p != "" && err != nil { // an empty one is reported
			fail("paths", key, err)
		}
	}
	return s
}

var errNoCommand = errors.New("is empty\nname a command, or remove the line for the default")

// Name is what people call it.
func (n *NGINX) Name() string { return "nginx" }

// Group is the group of nginx's workers, which must be able to connect to the
// apps' sockets; empty in standalone mode, where all runs as one user.
func (n *NGINX) Group() string {
	if n.standalone {
		return ""
	}
	return n.group
}

// testPatience is how long nginx may take to check its configuration, which is
// seconds with thousands of servers. It looks up names and opens files meanwhile that
// may not answer, and every app's deploy stands behind it.
const testPatience = time.Minute

// Test returns the command that checks all of nginx's configuration.
func (n *NGINX) Test() deployer.Command {
	args := n.test
	if n.standalone {
		args = n.own("-t", "-q")
	}
	return deployer.Command{Args: args, Dir: "/", Env: environment(), Umask: -1, Timeout: testPatience}
}

// own is a call of the nginx that scotch runs itself.
func (n *NGINX) own(args ...string) []string {
	return append([]string{n.program, "-p", n.configPath, "-c", n.file("nginx.conf")}, args...)
}

func (n *NGINX) file(name string) string { return filepath.Join(n.configPath, name) }

func environment() []string { return []string{searchPath, "LANG=C.UTF-8"} }

// URL is where an app is reached from outside: under its first domain without
// a star, else under a name that its wildcard matches, else under localhost.
func (n *NGINX) URL(a *config.App) string {
	host, wild := "", ""
	for _, d := range a.Domains {
		switch {
		case !strings.Contains(d, "*"):
			if host == "" {
				host = d
			}
		case wild == "" && strings.HasPrefix(d, "*."):
			wild = a.Name + d[1:]
		}
	}
	if host == "" {
		host = wild
	}
	if host == "" {
		host = "localhost"
	}
	if port := n.listen[0].port; port != 80 {
		host += ":" + strconv.Itoa(port)
	}
	return "http://" + host + a.URLPrefix
}
