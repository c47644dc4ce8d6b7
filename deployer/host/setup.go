package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// SetupOptions are what a person says to setup.
type SetupOptions struct {
	Domain   string       // for a new site file, "" for none
	BuildEnv []config.Var // likewise
	// SiteFiles are given where the server is to read other files than the
	// standard ones; then none is written.
	SiteFiles []string
	// Admins are the keys to let in where no admin is yet.
	Admins []AdminKey
	// InstallerEnv is added to the environment of apt-get and pip, for proxies
	// and mirrors: KEY=value.
	InstallerEnv []string
}

// Setup looks at the machine and plans what is missing. It changes nothing.
func (m *Machine) Setup(ctx context.Context, o SetupOptions) (*Plan, error) {
	r, err := readRelease()
	if err != nil {
		return nil, err
	}
	if !r.debian() {
		return nil, fmt.Errorf("setup knows Debian and Ubuntu, and this is %s\ninstall nginx, git, python3 with venv, uWSGI with its python3 plugin by hand, then: scotch serve", r.name)
	}
	p := &Plan{again: "scotch setup"}
	// A state that can't be read would be found only after the first step.
	if _, err := readState(); err != nil {
		return nil, err
	}
	m.planProgram(p)
	if err := m.planPackages(ctx, p, o); err != nil {
		return nil, err
	}
	m.planUser(p)
	m.planDirectories(p)
	if err := m.planSite(p, o); err != nil {
		return nil, err
	}
	m.planKeys(p, o)
	m.planUV(p, o)
	if err := m.planNginx(ctx, p); err != nil {
		return nil, err
	}
	if err := m.planService(ctx, p, o); err != nil {
		return nil, err
	}
	m.firewall(ctx, p)
	return p, nil
}

// serverProgram is where the server's program is to lie: as it is where only
// root writes, else a copy, since nobody else's file may be started by root.
func (m *Machine) serverProgram() string {
	dir := filepath.Dir(m.Program)
	if slices.Contains([]string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"}, dir) || within(dir, "/opt") {
		return m.Program
	}
	return ownProgram
}

func (m *Machine) planProgram(p *Plan) {
	to := m.serverProgram()
	if to == m.Program || sameContent(m.Program, to) {
		return
	}
	title := fmt.Sprintf("copy this program to %s", to)
	if exists(to) {
		title = fmt.Sprintf("replace %s by this program", to)
	}
	p.add(title, nil, func(context.Context, io.Writer) (string, error) {
		data, err := os.ReadFile(m.Program)
		if err != nil {
			return "", err
		}
		before := exists(to)
		if err := m.files().Write("setup-program", to, data, 0o755); err != nil {
			return "", err
		}
		if before {
			return "", nil
		}
		return "", m.record(func(s *State) { s.Files = with(s.Files, to) })
	})
}

// wanted is a package of the distribution and what shows that it is there,
// whoever installed it.
type wanted struct {
	name  string
	there func(ctx context.Context) bool
}

func (m *Machine) wanted() []wanted {
	program := func(name string) func(context.Context) bool {
		return func(context.Context) bool { return has(name) }
	}
	list := []wanted{
		{"git", program("git")},
		{"openssh-client", program("ssh")},
		{"ca-certificates", func(context.Context) bool { return exists("/etc/ssl/certs/ca-certificates.crt") }},
		{"python3", program(systemPython)},
		{"python3-venv", func(ctx context.Context) bool {
			_, err := m.output(ctx, systemPython, "-c", "import ensurepip, venv")
			return err == nil
		}},
	}
	if m.uses("nginx") {
		list = append(list, wanted{"nginx", program("nginx")})
	}
	if m.Site.Mode != "standalone" && !systemd() {
		// It keeps what apps run to their own where no units do.
		list = append(list, wanted{"bubblewrap", program("bwrap")})
	}
	if m.uses("uwsgi") {
		// Never the package uwsgi: it brings a service that starts every ini file
		// in /etc/uwsgi/apps-enabled.
		list = append(list, wanted{"uwsgi-core", program("uwsgi")}, wanted{"uwsgi-plugin-python3", func(context.Context) bool {
			return exists("/usr/lib/uwsgi/plugins/python3_plugin.so")
		}})
	}
	return list
}

// uses tells whether [plugins] has a part on.
func (m *Machine) uses(plugin string) bool {
	on, said := m.Site.Plugins[plugin]
	return on || !said
}

func (m *Machine) missing(ctx context.Context) (names []string) {
	for _, w := range m.wanted() {
		if !w.there(ctx) {
			names = append(names, w.name)
		}
	}
	return names
}

func (m *Machine) planPackages(ctx context.Context, p *Plan, o SetupOptions) error {
	missing := m.missing(ctx)
	if len(missing) == 0 {
		return nil
	}
	if !has("apt-get") {
		return fmt.Errorf("%s is missing, and so is apt-get\ninstall it by hand, then run setup again", strings.Join(missing, ", "))
	}
	p.add("install "+strings.Join(missing, ", "), []string{"by apt-get, without what it recommends"}, func(ctx context.Context, out io.Writer) (string, error) {
		apt := func(args ...string) deployer.Command {
			// unattended-upgrades has the lock for minutes on a new machine.
			c := command(append([]string{"apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"}, args...)...)
			c.Env = append(append(c.Env, o.InstallerEnv...), "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1")
			c.Timeout = 30 * time.Minute
			return c
		}
		if err := m.shown(ctx, out, apt("update")); err != nil {
			return "", fmt.Errorf("%w\nthe lines above say why; is the network up, and are the addresses in /etc/apt right?", err)
		}
		// Written down first: an install that is cut off is ours all the same.
		if err := m.record(func(s *State) { s.Packages = with(s.Packages, missing...) }); err != nil {
			return "", err
		}
		if err := m.shown(ctx, out, apt(append([]string{"install", "-y", "--no-install-recommends"}, missing...)...)); err != nil {
			return "", fmt.Errorf("%w\nthe lines above say why; on Ubuntu uwsgi-core is in the component universe (add-apt-repository universe)", err)
		}
		if still := m.missing(ctx); len(still) > 0 {
			return "", fmt.Errorf("%s is installed and can't be used\nlook at what dpkg -V says of it", strings.Join(still, ", "))
		}
		return "", nil
	})
	return nil
}

func (m *Machine) planUser(p *Plan) {
	name := m.Site.Server.GitUser
	if _, err := user.Lookup(name); err == nil {
		return
	}
	p.add(fmt.Sprintf("make the system user %s, who git runs as", name), []string{"home " + gitHome + ", no login"}, func(ctx context.Context, _ io.Writer) (string, error) {
		if err := m.makeDirectory(filepath.Dir(gitHome), 0o755); err != nil {
			return "", err
		}
		args := []string{"useradd", "--system", "--home-dir", gitHome, "--create-home", "--shell", "/usr/sbin/nologin", "--comment", "git of scotch"}
		if _, err := user.LookupGroup(name); err == nil {
			args = append(args, "--gid", name)
		} else {
			args = append(args, "--user-group")
		}
		if _, err := m.output(ctx, append(args, name)...); err != nil {
			return "", err
		}
		if err := os.Chmod(gitHome, 0o700); err != nil {
			return "", err
		}
		return "", m.record(func(s *State) { s.Users = with(s.Users, name) })
	})
}

// directory is one that must be there, root's and writable by nobody else.
type directory struct {
	path string
	mode fs.FileMode
}

func (m *Machine) directories() []directory {
	s := m.Site
	dirs := []directory{
		{s.Paths.Configuration, 0o755}, {s.Paths.AppsEnabled, 0o755},
		{s.Paths.Instances, s.DirMode}, {s.Paths.Repositories, s.DirMode}, {s.Paths.Data, s.DirMode}, {s.Paths.Logs, s.DirMode},
		{filepath.Dir(s.Server.HostKey), 0o755}, {filepath.Dir(s.Server.AuthorizedKeys), 0o755},
	}
	if !within(s.Paths.Run, "/run") {
		dirs = append(dirs, directory{s.Paths.Run, s.DirMode})
	}
	for _, path := range elsewhere(s) {
		dirs = append(dirs, directory{path, 0o755})
	}
	var out []directory
	for _, d := range dirs {
		if !slices.ContainsFunc(out, func(o directory) bool { return o.path == d.path }) {
			out = append(out, d)
		}
	}
	return out
}

func (m *Machine) planDirectories(p *Plan) {
	var missing []directory
	var names []string
	for _, d := range m.directories() {
		if _, err := os.Stat(d.path); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, d)
			names = append(names, fmt.Sprintf("%s %04o", d.path, d.mode))
		}
	}
	if len(missing) == 0 {
		return
	}
	p.add("make directories", names, func(context.Context, io.Writer) (string, error) {
		for _, d := range missing {
			if err := m.makeDirectory(d.path, d.mode); err != nil {
				return "", err
			}
		}
		return "", nil
	})
}

// makeDirectory makes a directory and those above it, and writes down which.
func (m *Machine) makeDirectory(path string, mode fs.FileMode) error {
	var made []string
	for dir := path; !exists(dir); dir = filepath.Dir(dir) {
		made = append(made, dir)
	}
	if len(made) == 0 {
		return nil
	}
	slices.Reverse(made)
	if err := m.files().MkdirAll("setup-directory", path, mode); err != nil {
		return err
	}
	return m.record(func(s *State) { s.Directories = with(s.Directories, made...) })
}

func (m *Machine) planSite(p *Plan, o SetupOptions) error {
	if len(o.SiteFiles) > 0 {
		return nil
	}
	if exists(siteFile) {
		if o.Domain != "" && o.Domain != m.Site.Domain {
			return fmt.Errorf("--domain is %q, but %s is there and says [site] domain = %s\nchange it there, then: systemctl restart scotch", o.Domain, siteFile, m.Site.Domain)
		}
		return nil
	}
	text, err := SiteFile(o.Domain, o.BuildEnv)
	if err != nil {
		return err
	}
	details := []string{"no [site] domain: an app without domains of its own answers for every host"}
	if o.Domain != "" {
		details = []string{fmt.Sprintf("[site] domain = %s: apps answer at NAME.%s, which DNS must lead here", o.Domain, o.Domain)}
	}
	for _, v := range o.BuildEnv {
		details = append(details, "[build_env] "+v.Name+", from your environment")
	}
	p.add("write "+siteFile, details, func(context.Context, io.Writer) (string, error) {
		// It may hold the password of a package index.
		if err := m.files().Write("setup-site", siteFile, text, 0o600); err != nil {
			return "", err
		}
		return "", m.record(func(s *State) { s.Files = with(s.Files, siteFile) })
	})
	return nil
}

// planUV plans uv, which no release of Debian has. pip does without it, slower.
func (m *Machine) planUV(p *Plan, o SetupOptions) {
	if has("uv") {
		return
	}
	p.add("install uv, which installs apps' packages faster than pip", []string{"by pip, into " + uvDir + ", linked as " + uvLink + "; pip does where that fails"}, func(ctx context.Context, out io.Writer) (string, error) {
		if err := m.record(func(s *State) { s.Directories = with(s.Directories, uvDir) }); err != nil {
			return "", err
		}
		for _, args := range [][]string{
			{systemPython, "-m", "venv", "--clear", uvDir},
			{uvDir + "/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--retries", "1", "uv"},
		} {
			c := command(args...)
			c.Env, c.Timeout = append(c.Env, o.InstallerEnv...), 10*time.Minute
			if err := m.shown(ctx, out, c); err != nil {
				if ctx.Err() != nil {
					return "", err
				}
				return "not installed: " + deployer.FirstLine(err.Error()) + "; pip will do\nsetup tries again when it is run again", nil
			}
		}
		if err := m.files().Symlink("setup-uv", uvDir+"/bin/uv", uvLink); err != nil {
			return "", err
		}
		return "", m.record(func(s *State) { s.Files = with(s.Files, uvLink) })
	})
}

func sameContent(a, b string) bool {
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}
