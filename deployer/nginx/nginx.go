package nginx

import (
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// Defaults returns the plugin's defaults.cfg.
func Defaults() config.Defaults {
	return config.Defaults{Name: "nginx", Text: []byte(defaults), Check: checkApp}
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
// a line each.
func New(site *config.Site) (*NGINX, error) {
	s, err := readSettings(func(key string) (string, error) { return site.Get("nginx", key) })
	if err != nil {
		return nil, located(site, err)
	}
	s.named = make(map[string]config.Origin)
	for _, key := range site.Keys("nginx") {
		if at := site.Origin("nginx", key); at.Layer == config.LayerSite {
			s.named[key] = at
		}
	}
	n := &NGINX{standalone: site.Mode == "standalone", settings: s, instances: site.Paths.Instances, logs: site.Paths.Logs}
	if err := checkPath("[paths] instances", n.instances); err != nil {
		return nil, err
	}
	// A kernel without IPv6 refuses to listen on [::] (EAFNOSUPPORT), and nginx
	// then does not start.
	_, err = os.Stat("/proc/net/if_inet6")
	n.ipv6 = err == nil
	if !n.standalone {
		return n, nil
	}
	if s.configPath == "/etc/nginx" {
		return nil, fmt.Errorf("[nginx] config_path is %q, which belongs to the distribution's nginx: a standalone server has its own\nset it below [paths] run, such as ${paths:run}/nginx", s.configPath)
	}
	if err := checkPath("[paths] logs", n.logs); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		if n.owner, err = caller(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// located says of each error that begins with a key of [nginx] which line of a
// site file it is about.
func located(site *config.Site, err error) error {
	several, ok := err.(interface{ Unwrap() []error })
	if !ok {
		several = problems{err}
	}
	var all problems
	for _, one := range several.Unwrap() {
		rest, ours := strings.CutPrefix(one.Error(), "[nginx] ")
		key, _, _ := strings.Cut(rest, " ")
		at := site.Origin("nginx", strings.TrimSuffix(key, ":"))
		if ours && at.Layer == config.LayerSite {
			one = fmt.Errorf("%s: %w", at, one)
		}
		all.add(one)
	}
	return all.err()
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

func readSettings(get func(key string) (string, error)) (settings, error) {
	var (
		s    settings
		errs problems
	)
	text := func(key string) string {
		v, err := get(key)
		errs.add(err)
		return strings.TrimSpace(v)
	}
	path := func(key string) string {
		v := text(key)
		if !errs.any() {
			errs.add(checkPath("[nginx] "+key, v))
		}
		return filepath.Clean(v)
	}
	s.configPath = path("config_path")
	s.sitesPath = path("sites_path")
	s.domainsPath = path("domains_path")
	s.pidPath = path("pid_path")
	s.acme = path("acme_path")
	s.failedLog = path("failed_log")
	s.group = text("group")
	s.program = text("program")
	s.test = strings.Fields(text("test_command"))
	s.reload = strings.Fields(text("reload_command"))
	s.accessLog = text("access_log")
	listen := text("listen")
	mode := text("config_mode")
	if errs.any() {
		return s, errs.err()
	}

	if s.accessLog != "" && s.accessLog != "off" {
		errs.add(checkPath("[nginx] access_log", s.accessLog))
		s.accessLog = quote(s.accessLog)
	}
	for key, v := range map[string][]string{"test_command": s.test, "reload_command": s.reload, "program": {s.program}} {
		if len(v) == 0 || v[0] == "" {
			errs.add(fmt.Errorf("[nginx] %s is empty\nname a command, or remove the line for the default", key))
		}
	}
	if s.group != "" && !userName().MatchString(s.group) {
		errs.add(fmt.Errorf("[nginx] group %q is no name of a group", s.group))
	}
	if m, err := strconv.ParseUint(mode, 8, 32); err != nil || m > 0o777 {
		errs.add(fmt.Errorf("[nginx] config_mode %q is no mode\nwrite it in octal, such as 0600", mode))
	} else {
		s.mode = fs.FileMode(m)
	}
	for _, f := range strings.FieldsFunc(listen, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' }) {
		a, err := parseAddress(f)
		errs.add(err)
		s.listen = append(s.listen, a)
	}
	if len(s.listen) == 0 {
		errs.add(fmt.Errorf("[nginx] listen is empty\nname an address, such as 80 or 127.0.0.1:8080"))
	}
	return s, errs.err()
}

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

// Test returns the command that checks all of nginx's configuration.
func (n *NGINX) Test() deployer.Command {
	args := n.test
	if n.standalone {
		args = n.own("-t", "-q")
	}
	return deployer.Command{Args: args, Dir: "/", Env: environment(), Umask: -1}
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
