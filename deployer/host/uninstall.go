package host

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// UninstallOptions say what is taken back besides what is always.
type UninstallOptions struct {
	// Packages removes the packages that setup installed, too.
	Packages bool
	// WebFiles are patterns of the files that scotch wrote for nginx.
	WebFiles []string
	// EndApps ends the apps' processes that no service manager knows.
	EndApps func(ctx context.Context) error
}

// Uninstall plans to take back what setup did. Configuration, repositories, data
// and logs stay, and so do the users that they belong to.
func (m *Machine) Uninstall(ctx context.Context, o UninstallOptions) (*Plan, error) {
	s, err := readState()
	if err != nil {
		return nil, err
	}
	p := &Plan{again: "scotch setup --uninstall"}
	if systemd() && (m.active(ctx, unitName) || m.active(ctx, sliceName)) {
		p.add("stop the server and the apps", nil, func(ctx context.Context, out io.Writer) (string, error) {
			c := command("systemctl", "stop", unitName, sliceName)
			c.Timeout = m.Site.Server.StopTimeout + 2*time.Minute
			if err := m.shown(ctx, out, c); err != nil {
				return "", err
			}
			return "", o.EndApps(ctx)
		})
	}
	if state, _ := m.output(ctx, "systemctl", "is-enabled", unitName); state == "enabled" {
		p.add("start the server no more when the machine starts", nil, func(ctx context.Context, _ io.Writer) (string, error) {
			if _, err := m.output(ctx, "systemctl", "--quiet", "disable", unitName); err != nil {
				return "", err
			}
			return "", m.record(func(s *State) { s.Enabled = false })
		})
	}
	m.planWebFiles(p, s, o)
	m.planFiles(p, s)
	m.planEmpty(p, s)
	if len(s.Packages) > 0 {
		if o.Packages {
			p.add("remove the packages that setup installed: "+strings.Join(s.Packages, ", "), []string{"by apt-get, their configuration stays"}, func(ctx context.Context, out io.Writer) (string, error) {
				c := command(append([]string{"apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0", "remove", "-y", "--autoremove"}, s.Packages...)...)
				c.Env, c.Timeout = append(c.Env, "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"), 30*time.Minute
				if err := m.shown(ctx, out, c); err != nil {
					return "", err
				}
				return "", m.record(func(s *State) { s.Packages = nil })
			})
		} else {
			p.note("packages stay, others may need them by now; setup installed: %s\nto remove them too: scotch setup --uninstall --packages", strings.Join(s.Packages, ", "))
		}
	}
	m.noteKept(p, s)
	return p, nil
}

// planWebFiles takes nginx's files away, and puts back the site that was there.
func (m *Machine) planWebFiles(p *Plan, s *State, o UninstallOptions) {
	var ours []string
	for _, pattern := range append(o.WebFiles, filepath.Join(m.nginxPath("config_path"), includeFile)) {
		found, _ := filepath.Glob(pattern)
		ours = append(ours, found...)
	}
	back := false
	for link := range s.Unlinked {
		back = back || !exists(link)
	}
	if len(ours) == 0 && !back {
		return
	}
	title := "remove scotch's files from nginx's configuration"
	if back {
		title += ", and bring its default site back"
	}
	p.add(title, []string{"setup brings them back, as long as the apps are there"}, func(ctx context.Context, out io.Writer) (string, error) {
		for _, path := range ours {
			if err := m.files().Remove("uninstall-web", path); err != nil {
				return "", err
			}
		}
		for _, link := range slices.Sorted(maps.Keys(s.Unlinked)) {
			if exists(link) {
				continue
			}
			if err := m.files().Symlink("uninstall-default-site", s.Unlinked[link], link); err != nil {
				return "", err
			}
		}
		if has("nginx") {
			if err := m.reloadNginx(ctx, out); err != nil {
				return "", err
			}
		}
		return "", m.record(func(s *State) { s.Unlinked = nil })
	})
}

// planFiles removes the files that setup wrote, but for the site file, which is
// a person's from the day that it was written.
func (m *Machine) planFiles(p *Plan, s *State) {
	var files []string
	for _, f := range s.Files {
		if f != siteFile && exists(f) {
			files = append(files, f)
		}
	}
	if slices.Contains(s.Directories, uvDir) && exists(uvDir) {
		files = append(files, uvDir)
	}
	if len(files) == 0 {
		return
	}
	p.add("remove what setup put there", files, func(ctx context.Context, _ io.Writer) (string, error) {
		for _, f := range files {
			var err error
			if f == uvDir {
				err = m.files().RemoveAll("uninstall-uv", f)
			} else {
				err = m.files().Remove("uninstall-file", f)
			}
			if err != nil {
				return "", err
			}
		}
		err := m.record(func(s *State) {
			s.Files = slices.DeleteFunc(s.Files, func(f string) bool { return slices.Contains(files, f) })
			s.Directories = slices.DeleteFunc(s.Directories, func(d string) bool { return d == uvDir })
		})
		return "", errors.Join(err, m.daemonReload(ctx))
	})
}

// planEmpty removes the directories that setup made and nobody has put anything into.
func (m *Machine) planEmpty(p *Plan, s *State) {
	var empty []string
	for _, dir := range slices.Backward(s.Directories) {
		entries, err := os.ReadDir(dir)
		left := slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return slices.Contains(empty, filepath.Join(dir, e.Name())) })
		if err == nil && len(left) == 0 && dir != uvDir {
			empty = append(empty, dir)
		}
	}
	if len(empty) == 0 {
		return
	}
	p.add("remove directories that are empty", empty, func(context.Context, io.Writer) (string, error) {
		for _, dir := range empty {
			err := os.Remove(dir) // refuses one that is not empty
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
				return "", err
			}
		}
		return "", m.record(func(s *State) {
			s.Directories = slices.DeleteFunc(s.Directories, func(d string) bool { return !exists(d) })
		})
	})
}

func (m *Machine) noteKept(p *Plan, s *State) {
	var kept []string
	for _, path := range append(slices.Clone(m.Site.Files), m.Site.Paths.Configuration, m.Site.Paths.Repositories, m.Site.Paths.Data, m.Site.Paths.Instances, m.Site.Paths.Logs) {
		if exists(path) {
			kept = append(kept, path)
		}
	}
	if len(kept) > 0 {
		p.note("kept, yours to remove: %s", strings.Join(kept, " "))
	}
	for _, u := range s.Users {
		p.note("the user %s stays, and so do the apps' users: their files do", u)
	}
	if m.serverProgram() == m.Program && !slices.Contains(s.Files, m.Program) {
		p.note("this program stays: %s", m.Program)
	}
	if exists("/var/lib/dpkg/info/scotch.list") {
		p.note("the package stays: apt-get remove scotch")
	}
	if len(p.Steps) > 0 {
		p.note("what is left to take back stands in %s", stateFile)
	}
}
