package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"scotch/deployer"
)

// debianSite is the site that Debian's nginx comes with: it is the default
// server of port 80.
const debianSite = "/etc/nginx/sites-enabled/default"

// includeFile is ours, for an nginx.conf that does not include the folder of sites.
const includeFile = "conf.d/01-scotch-sites.conf"

func (m *Machine) nginxPath(key string) string {
	v, err := m.Site.Get("nginx", key)
	if err != nil {
		return ""
	}
	return filepath.Clean(v)
}

// isDebianSite tells whether the default site is Debian's, that nobody changed.
func (m *Machine) isDebianSite(ctx context.Context) bool {
	target, err := filepath.EvalSymlinks(debianSite)
	if err != nil || target != "/etc/nginx/sites-available/default" {
		return false
	}
	out, err := m.output(ctx, "dpkg-query", "-W", "-f", "${Conffiles}\n", "nginx-common")
	sum, _ := m.output(ctx, "md5sum", target)
	sum, _, _ = strings.Cut(sum, " ")
	return err == nil && sum != "" && strings.Contains(out, target+" "+sum)
}

func (m *Machine) planNginx(ctx context.Context, p *Plan) error {
	if !m.uses("nginx") {
		return nil
	}
	root := m.nginxPath("config_path")
	if !has("nginx") {
		// It comes with the packages: the default site with it, and an nginx.conf
		// that includes conf.d and sites-enabled.
		m.disableDefault(p, "once nginx is installed")
		m.includeSites(p, root)
		return nil
	}
	switch {
	case !exists(debianSite):
	case m.isDebianSite(ctx):
		m.disableDefault(p, "")
	default:
		p.note("%s is not as Debian has it, so it stays; while it is the default server, apps with domains = * don't answer\nto give scotch its place: rm %s && systemctl reload nginx", debianSite, debianSite)
	}
	if in, err := m.includes(root); err != nil {
		return err
	} else if !in.site(m.nginxPath("sites_path")) {
		m.includeSites(p, root)
	}
	return nil
}

func (m *Machine) disableDefault(p *Plan, when string) {
	var details []string
	if when != "" {
		details = []string{when}
	}
	p.add("disable nginx's default site, which answers for all hosts that it does not know", append(details, "it stays in /etc/nginx/sites-available"), func(ctx context.Context, out io.Writer) (string, error) {
		if !m.isDebianSite(ctx) {
			return "it is not there, or not as Debian has it: left alone", nil
		}
		target, err := os.Readlink(debianSite)
		if err != nil {
			return "", err
		}
		// First, so that a setup that is cut off here can still take it back.
		err = m.record(func(s *State) {
			if s.Unlinked == nil {
				s.Unlinked = map[string]string{}
			}
			s.Unlinked[debianSite] = target
		})
		if err != nil {
			return "", err
		}
		if err := m.files().Remove("setup-default-site", debianSite); err != nil {
			return "", err
		}
		if err := m.reloadNginx(ctx, out); err != nil {
			return "", errors.Join(err, m.files().Symlink("setup-default-site", target, debianSite))
		}
		return "", nil
	})
}

// includeSites makes nginx read the folder of sites, where it does not yet.
func (m *Machine) includeSites(p *Plan, root string) {
	sites, file := m.nginxPath("sites_path"), filepath.Join(root, includeFile)
	if sites == "/etc/nginx/sites-enabled" && !has("nginx") {
		return // Debian's own nginx.conf does
	}
	p.add(fmt.Sprintf("make nginx read %s", sites), []string{"by " + file}, func(ctx context.Context, out io.Writer) (string, error) {
		in, err := m.includes(root)
		if err != nil || in.site(sites) {
			return "", err
		}
		if err := m.makeDirectory(sites, 0o755); err != nil {
			return "", err
		}
		if !in.matches(file) {
			return "", fmt.Errorf("%s includes neither %s nor %s\nwrite into its http block: include %s/*;", filepath.Join(root, "nginx.conf"), sites, filepath.Dir(file), sites)
		}
		text := fmt.Sprintf("# Written by scotch setup.\ninclude %q;\n", sites+"/*")
		if err := m.files().Write("setup-include", file, []byte(text), 0o644); err != nil {
			return "", err
		}
		if err := m.reloadNginx(ctx, out); err != nil {
			return "", errors.Join(err, m.files().Remove("setup-include", file))
		}
		return "", m.record(func(s *State) { s.Files = with(s.Files, file) })
	})
}

// reloadNginx tests nginx's configuration and makes a running nginx read it.
func (m *Machine) reloadNginx(ctx context.Context, out io.Writer) error {
	if err := m.shown(ctx, out, command("nginx", "-t", "-q")); err != nil {
		return fmt.Errorf("nginx refuses its configuration: %w", err)
	}
	if m.nginxMaster() == 0 {
		return nil
	}
	return m.shown(ctx, out, command("nginx", "-s", "reload"))
}

// nginxMaster is the number of nginx's master process, 0 where none runs.
func (m *Machine) nginxMaster() int {
	text, err := os.ReadFile(m.nginxPath("pid_path"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !exists(fmt.Sprintf("/proc/%d", pid)) {
		return 0
	}
	return pid
}

// includes are the patterns of files that nginx reads, made absolute.
type includes []string

var includeLine = pattern(`(?m)^[^#\n]*?\binclude\s+("[^"\n]*"|'[^'\n]*'|[^\s;]+)\s*;`)

// includes reads nginx.conf and what it includes. It does not ask nginx, which
// tells nothing of a configuration with a mistake.
func (m *Machine) includes(root string) (includes, error) {
	var found includes
	seen := map[string]bool{}
	files := []string{filepath.Join(root, "nginx.conf")}
	for len(files) > 0 && len(seen) < 10000 {
		path := files[0]
		files = files[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		text, err := os.ReadFile(path)
		if err != nil {
			if len(seen) == 1 {
				return nil, fmt.Errorf("reading nginx's configuration: %w\n[nginx] config_path says where it is", err)
			}
			continue // nginx -t tells of it
		}
		for _, match := range includeLine().FindAllSubmatch(text, -1) {
			pattern := strings.Trim(string(match[1]), `"'`)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(root, pattern)
			}
			found = append(found, pattern)
			more, _ := filepath.Glob(pattern)
			files = append(files, more...)
		}
	}
	return found, nil
}

func (in includes) matches(path string) bool {
	for _, pattern := range in {
		if ok, _ := filepath.Match(pattern, path); ok {
			return true
		}
	}
	return false
}

// site tells whether nginx reads what scotch writes into the folder of sites.
func (in includes) site(dir string) bool { return in.matches(filepath.Join(dir, "scotch-_.conf")) }

// foreignDefault is a file that is not scotch's with the default server of a
// port 80, "" where none is.
var defaultServer = pattern(`(?m)^[^#\n]*\blisten\s+[^;#\n]*\bdefault_server\b`)

func (m *Machine) foreignDefaults() (files []string) {
	for _, pattern := range []string{filepath.Join(m.nginxPath("config_path"), "conf.d/*.conf"), filepath.Join(m.nginxPath("sites_path"), "*")} {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err == nil && !strings.HasPrefix(filepath.Base(path), "scotch-") && defaultServer().Match(text) {
				files = append(files, deployer.Neutral(path))
			}
		}
	}
	return files
}
