package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/host"
	"scotch/gitserver"
	"scotch/gitserver/access"
)

// setupOptions are the flags of setup.
type setupOptions struct {
	domain, key                             string
	yes, dryRun, uninstall, packages, print bool
}

func (s *session) addSetup(root *cobra.Command) {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "make this machine a scotch server",
		Long: `Makes a Debian or Ubuntu machine a server, as root: installs what is missing, makes
the user that git runs as, the directories, the host key, /etc/scotch.cfg, the
systemd unit, and lets the first admin in, by the keys of ~/.ssh/authorized_keys (of
who called sudo, else root's) or of --key. It says what it will do and asks first.

What is there already is left as it is, so it can be run again at any time. After a
failure it goes on from there.

  sudo scotch setup --domain apps.example.org

--uninstall takes back what setup did. Configuration, repositories and data stay.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.setup(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.domain, "domain", "", "apps answer at NAME.`DOMAIN`")
	f.StringVar(&o.key, "key", "", "the first admin's public key, a `FILE`")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and do nothing")
	f.BoolVar(&o.uninstall, "uninstall", false, "take back what setup did")
	f.BoolVar(&o.packages, "packages", false, "with --uninstall: remove the packages that setup installed, too")
	f.BoolVar(&o.print, "print-unit", false, "print the systemd unit and do nothing")
	f.Lookup("print-unit").Hidden = true // for who makes a package
	s.add(root, cmd, rights{here: true})
}

func (s *session) setup(ctx context.Context, o setupOptions) error {
	if o.packages && !o.uninstall {
		return usageError{errors.New("--packages goes with --uninstall")}
	}
	if o.print {
		return s.printUnit()
	}
	if os.Geteuid() != 0 && !o.dryRun {
		return errors.New("setup changes this machine: run it as root (sudo scotch setup)\nscotch setup --dry-run says what it would do")
	}
	if os.Geteuid() == 0 {
		unlock, err := lockSetup()
		if err != nil {
			return err
		}
		defer unlock()
	}
	site, err := openSite(s.files)
	if err != nil {
		return err
	}
	if site.Mode == "standalone" {
		return usageError{fmt.Errorf("%s is a standalone server's site file, which needs no setup\nstart it: %s", strings.Join(site.Files, ", "), howToStart(site))}
	}
	m, err := machine(site)
	if err != nil {
		return err
	}
	var p *host.Plan
	if o.uninstall {
		p, err = s.uninstallPlan(ctx, m, o)
	} else {
		p, err = s.setupPlan(ctx, m, o)
	}
	if err != nil {
		return err
	}
	if p.Empty() {
		p.PrintNotes(s.stdout)
		fmt.Fprintln(s.stdout, "nothing to do")
		return nil
	}
	fmt.Fprintln(s.stdout, "what will be done:")
	p.Print(s.stdout)
	p.PrintNotes(s.stdout)
	if o.dryRun {
		fmt.Fprintln(s.stdout, "nothing was done: --dry-run")
		return nil
	}
	if err := s.goOn(o.yes); err != nil {
		return err
	}
	if err := p.Do(ctx, s.stdout); err != nil {
		return err
	}
	if o.uninstall {
		fmt.Fprintln(s.stdout, "done")
		return nil
	}
	return s.afterSetup()
}

// lockSetup keeps two setups from doing the same at once.
func lockSetup() (unlock func(), err error) {
	f, err := os.OpenFile("/run/scotch-setup.lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errors.New("another setup is under way on this machine\nwait for its end")
	}
	return func() { f.Close() }, nil
}

// machine is this computer, for setup and doctor.
func machine(site *config.Site) (*host.Machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Not the site's own mark: what a package starts is not the server's to end.
	return &host.Machine{
		Site: site, Run: direct.New("/run/scotch-setup", direct.Options{}), Program: self,
		Keys: adminKeys{access.OpenKeyring(site.Server.AuthorizedKeys, ownKeys(site)...)},
		HostKey: func(path string) (string, error) {
			_, fingerprint, err := gitserver.LoadOrCreateHostKey(path)
			return fingerprint, err
		},
	}, nil
}

// adminKeys is the keyring as setup sees it.
type adminKeys struct{ ring *access.Keyring }

func (k adminKeys) Admins() (n int, err error) {
	list, err := k.ring.List()
	for _, e := range list {
		if e.Role == access.Admin {
			n++
		}
	}
	return n, err
}

func (k adminKeys) AddAdmin(name, line string) error {
	return k.ring.Add(name, access.Admin, nil, line)
}

func (s *session) setupPlan(ctx context.Context, m *host.Machine, o setupOptions) (*host.Plan, error) {
	so := host.SetupOptions{Domain: o.domain, SiteFiles: s.absolute(), BuildEnv: installerVars()}
	for _, v := range so.BuildEnv {
		so.InstallerEnv = append(so.InstallerEnv, v.Name+"="+v.Value)
	}
	if o.domain == "" && len(m.Site.Files) == 0 && !o.yes && !o.dryRun {
		var err error
		if so.Domain, err = s.askDomain(); err != nil {
			return nil, err
		}
	}
	if err := checkDomain(so.Domain); err != nil {
		return nil, err
	}
	var skipped []string
	var err error
	if o.key != "" {
		so.Admins, skipped, err = host.ReadAdminKeys(o.key, "admin")
		if err == nil && len(so.Admins) == 0 {
			err = fmt.Errorf("%q holds no public key that can be an admin's\ngive a file as ssh-keygen makes it, ending in .pub", o.key)
		}
	} else {
		so.Admins, skipped, err = host.CallerKeys(os.Getenv("SUDO_USER"))
	}
	if err != nil {
		return nil, err
	}
	p, err := m.Setup(ctx, so)
	if err != nil {
		return nil, err
	}
	for _, line := range skipped {
		if admins, err := m.Keys.Admins(); err == nil && admins == 0 {
			p.Notes = append(p.Notes, "not taken: "+line)
		}
	}
	return p, nil
}

// absolute is -c for a server that starts elsewhere.
func (s *session) absolute() []string {
	var files []string
	for _, f := range s.files {
		if abs, err := filepath.Abs(f); err == nil {
			files = append(files, abs)
		}
	}
	return files
}

// checkDomain judges a domain as the site file's reader will.
func checkDomain(domain string) error {
	if domain == "" {
		return nil
	}
	text, err := host.SiteFile(domain, nil)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "scotch-*.cfg")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if _, err := openSite([]string{f.Name()}); err != nil {
		var all config.Errors
		if errors.As(err, &all) && len(all) > 0 {
			return usageError{fmt.Errorf("--domain %q: %s", domain, all[0].Problem)}
		}
		return usageError{fmt.Errorf("--domain %q: %w", domain, err)}
	}
	return nil
}

func (s *session) uninstallPlan(ctx context.Context, m *host.Machine, o setupOptions) (*host.Plan, error) {
	u := host.UninstallOptions{Packages: o.packages, EndApps: func(ctx context.Context) error {
		_, err := direct.New(m.Site.Paths.Run, direct.Options{}).Strays(ctx, nil)
		return err
	}}
	plugins, err := newPlugins(m.Site, logrus.New())
	if err != nil {
		return nil, err
	}
	if w, ok := plugins.web.(deployer.Owner); ok {
		u.WebFiles = w.Owned()
	}
	base, err := plugins.web.Base()
	if err != nil {
		return nil, err
	}
	for _, f := range base {
		u.WebFiles = append(u.WebFiles, f.Path)
	}
	return m.Uninstall(ctx, u)
}

// terminal is the session's input where a person sits at it.
func (s *session) terminal() (*os.File, bool) {
	f, ok := s.stdin.(*os.File)
	if !ok {
		return nil, false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return f, err == nil
}

func (s *session) ask(question string) (string, error) {
	in, ok := s.terminal()
	if !ok {
		return "", nil
	}
	fmt.Fprint(s.stdout, question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

func (s *session) askDomain() (string, error) {
	return s.ask("The domain that apps answer below, as NAME.DOMAIN (apps.example.org; empty for none): ")
}

// goOn asks whether to do what was said.
func (s *session) goOn(yes bool) error {
	if yes {
		return nil
	}
	if _, ok := s.terminal(); !ok {
		return usageError{errors.New("there is no terminal to ask at, so nothing was done\nif that is what you want: --yes")}
	}
	answer, err := s.ask("go on? [y/N] ")
	if err != nil {
		return err
	}
	if a := strings.ToLower(answer); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// afterSetup says how to go on.
func (s *session) afterSetup() error {
	site, err := openSite(s.files)
	if err != nil {
		return err
	}
	srv := &server{site: site}
	fmt.Fprintf(s.stdout, "\nthis machine is a scotch server; in a project: git remote add scotch %s\n", srv.remote("NAME"))
	fmt.Fprintln(s.stdout, "scotch doctor tells when something is wrong with it; its log: journalctl -u scotch")
	return nil
}

func (s *session) printUnit() error {
	site, err := openSite([]string{os.DevNull})
	if err != nil {
		return err
	}
	unit, err := host.Unit(site, "/usr/bin/scotch", nil)
	if err != nil {
		return err
	}
	_, err = s.stdout.Write(unit)
	return err
}
