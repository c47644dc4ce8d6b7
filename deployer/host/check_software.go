package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"scotch/deployer"
)

func (m *Machine) checkPackages(ctx context.Context, f *findings) {
	missing := m.missing(ctx)
	if len(missing) == 0 {
		return
	}
	mend := "apt-get install --no-install-recommends " + strings.Join(missing, " ")
	if m.Site.Mode != "standalone" {
		mend = "scotch setup, or " + mend
	}
	f.wrong(mend, "missing: %s", strings.Join(missing, ", "))
}

var gitVersion = pattern(`(\d+)\.(\d+)`)

func (m *Machine) checkGit(ctx context.Context, f *findings) {
	if !has("git") {
		return // one of the packages
	}
	out, err := m.output(ctx, "git", "--version")
	v := gitVersion().FindStringSubmatch(out)
	if err != nil || v == nil {
		f.wrong("apt-get install --reinstall git", "git does not say its version: %v", err)
		return
	}
	major, _ := strconv.Atoi(v[1])
	minor, _ := strconv.Atoi(v[2])
	switch {
	case major < 2 || major == 2 && minor < 29:
		// proc-receive: https://github.com/git/git/blob/master/Documentation/RelNotes/2.29.0.txt
		f.wrong("upgrade this system, or install git from its backports", "git is %s, and a push needs 2.29 (its hook proc-receive)", v[0])
	case major == 2 && minor < 36:
		// core.fsync: https://github.com/git/git/blob/master/Documentation/RelNotes/2.36.0.txt
		f.note("upgrade this system, or install git from its backports", "git is %s; from 2.36 on it brings refs to disk at once, which a loss of power asks for", v[0])
	}
}

// checkUWSGI compares the Python of uWSGI's plugin, which is linked to a
// libpython, with the distribution's, which apps get by default.
func (m *Machine) checkUWSGI(ctx context.Context, f *findings) {
	program, _ := m.Site.Get("uwsgi", "program")
	plugin, _ := m.Site.Get("uwsgi", "plugin")
	if !has(program) {
		return // one of the packages
	}
	const mend = "apt-get install --reinstall uwsgi-core uwsgi-plugin-python3; until then new apps get uWSGI into their virtualenv"
	out, err := m.output(ctx, find(program), "--plugin", plugin, "--python-version")
	if err != nil {
		f.wrong(mend, "%s can't load its plugin %s: %s", find(program), plugin, deployer.FirstLine(err.Error()))
		return
	}
	theirs := gitVersion().FindString(lastLine(out))
	ours, err := m.output(ctx, systemPython, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
	if err == nil && theirs != ours {
		f.wrong(mend, "uWSGI's plugin %s runs Python %s, and %s is Python %s", plugin, theirs, systemPython, ours)
	}
	if m.Site.Mode == "standalone" || !systemd() {
		return
	}
	// Debian's own service starts every ini file there, ours too.
	folder, _ := m.Site.Get("uwsgi", "config_path")
	if folder == "/etc/uwsgi/apps-enabled" && m.active(ctx, "uwsgi.service") {
		f.wrong("systemctl disable --now uwsgi (apt-get remove uwsgi; uwsgi-core is all that scotch needs)",
			"the distribution's service uwsgi runs and starts what is in %s, scotch's apps too", folder)
	}
}

func (m *Machine) checkUnit(ctx context.Context, f *findings) {
	if !systemd() {
		f.note("start scotch serve by what starts services here", "systemd does not run on this machine")
		// What a box asks for most, see deployer/direct.
		if has("bwrap") && os.Geteuid() == 0 {
			if _, err := m.output(ctx, "bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true"); err != nil {
				f.note("let the container make namespaces, or trust its apps as far as their users reach", "builds and apps are confined by their users and modes alone: %v", err)
			}
		}
		return
	}
	path := installedUnit()
	if path == "" {
		f.wrong("scotch setup", "there is no unit %s", unitName)
		return
	}
	want, err := Unit(m.Site, m.serverProgram(), nil)
	if err != nil {
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		f.wrong("scotch setup", "%v", err)
		return
	}
	// A server that was given files of its own (-c) says so in its unit alone.
	if line := execLine(have); line != "" && strings.Contains(line, " -c ") {
		want = bytes.Replace(want, []byte(execLine(want)), []byte(line), 1)
	}
	if !bytes.Equal(have, want) {
		f.wrong("scotch setup writes it anew; what you changed in it belongs into a drop-in: systemctl edit scotch", "%s is not as this scotch would write it", path)
	}
	if state, _ := m.output(ctx, "systemctl", "is-enabled", unitName); state != "enabled" {
		f.wrong("systemctl enable scotch", "the server does not start with the machine: its unit is %s", state)
	}
	if reload, _ := m.output(ctx, "systemctl", "show", "--property", "NeedDaemonReload", "--value", unitName); reload == "yes" {
		f.wrong("systemctl daemon-reload && systemctl restart scotch", "systemd has not read the unit since it changed")
	}
}

func execLine(unit []byte) string {
	for line := range strings.Lines(string(unit)) {
		if strings.HasPrefix(line, "ExecStart=") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func (m *Machine) checkNginx(ctx context.Context, f *findings) {
	if !has("nginx") {
		return // one of the packages
	}
	if _, err := m.output(ctx, "nginx", "-t", "-q"); err != nil {
		f.wrong("mend that file, then: nginx -t; until then deploys fail", "nginx refuses its configuration: %s", err)
	}
	if m.nginxMaster() == 0 {
		f.wrong("systemctl enable --now nginx", "nginx does not run (no process has the number in %s)", m.nginxPath("pid_path"))
	}
	root, sites := m.nginxPath("config_path"), m.nginxPath("sites_path")
	in, err := m.includes(root)
	if err != nil {
		f.wrong("mend [nginx] config_path", "%s", deployer.FirstLine(err.Error()))
		return
	}
	if !in.site(sites) {
		f.wrong("scotch setup; or write into the http block of nginx.conf: include "+sites+"/*;", "nginx does not read %s, where apps' sites are", sites)
	}
	if file := root + "/conf.d/00-scotch.conf"; !in.matches(file) {
		f.wrong("write into the http block of nginx.conf: include "+root+"/conf.d/*.conf;", "nginx does not read %s", file)
	}
	for _, path := range m.foreignDefaults() {
		f.note(fmt.Sprintf("rm %s && systemctl reload nginx scotch, unless that is meant", path),
			"%s is nginx's default server: apps with domains = * can't be deployed, and it answers for hosts that no app has", path)
	}
}

func (m *Machine) checkPorts(f *findings, running bool) {
	for _, d := range m.doors() {
		if d.name == "nginx" && !m.uses("nginx") {
			continue
		}
		found := listeners(d.port)
		mine := false
		for _, l := range found {
			// A test's or a packager's program has a name of its own.
			if l.name == d.name || d.name == "scotch" && running || d.name == "nginx" && l.pid == 0 {
				mine = true
				continue
			}
			f.wrong(fmt.Sprintf("end it, or set %s to another port", d.key), "port %d, for %s, is taken by %s", d.port, d.what, l)
		}
		if !mine && len(found) == 0 && d.name == "nginx" && m.nginxMaster() != 0 {
			f.note("the first deploy opens it; else look at what nginx listens at: nginx -T | grep listen", "nginx does not listen at port %d", d.port)
		}
	}
}

// checkClock finds a clock that can't be right. Releases and certificates go by it.
func (m *Machine) checkClock(ctx context.Context, f *findings) {
	const mend = "timedatectl set-ntp true (package systemd-timesyncd), or date --set"
	now := time.Now()
	// This program is not older than that.
	if now.Year() < 2025 || now.Year() > 2100 {
		f.wrong(mend, "the clock says %s", now.Format(time.DateOnly))
		return
	}
	if fi, err := os.Stat(m.Program); err == nil && fi.ModTime().After(now.Add(24*time.Hour)) {
		f.wrong(mend, "the clock says %s, and %s is from %s", now.Format(time.DateTime), m.Program, fi.ModTime().Format(time.DateTime))
		return
	}
	if !systemd() || !has("timedatectl") {
		return
	}
	if synced, err := m.output(ctx, "timedatectl", "show", "--property", "NTPSynchronized", "--value"); err == nil && synced == "no" {
		f.note(mend, "nothing keeps the clock right")
	}
}

func (m *Machine) checkLocale(ctx context.Context, f *findings) {
	out, err := m.output(ctx, "locale", "-a")
	if err != nil {
		return
	}
	for name := range strings.Lines(out) {
		if n := strings.ToLower(strings.TrimSpace(name)); n == "c.utf8" || n == "c.utf-8" {
			return
		}
	}
	f.wrong("apt-get install --reinstall libc-bin", "there is no locale C.UTF-8, which apps and installers run with")
}
