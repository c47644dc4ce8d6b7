package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// planService plans the server's unit: written, enabled, started, or started
// again where its file or its program changed.
func (m *Machine) planService(ctx context.Context, p *Plan, o SetupOptions) error {
	want, err := Unit(m.Site, m.serverProgram(), o.SiteFiles)
	if err != nil {
		return err
	}
	changed := false
	for _, s := range p.Steps {
		changed = changed || strings.HasPrefix(s.Title, "replace ")
	}
	if unitDiffers(want) {
		changed = true
		title := "write the server's systemd unit"
		if exists(unitFile) {
			title = "replace the server's systemd unit, which says something else"
		}
		p.add(title, []string{unitFile}, func(ctx context.Context, _ io.Writer) (string, error) {
			if err := m.makeDirectory("/etc/systemd/system", 0o755); err != nil {
				return "", err
			}
			if err := m.files().Write("setup-unit", unitFile, want, 0o644); err != nil {
				return "", err
			}
			if err := m.record(func(s *State) { s.Files = with(s.Files, unitFile) }); err != nil {
				return "", err
			}
			return "", m.daemonReload(ctx)
		})
	}
	if !has("systemctl") {
		p.note("there is no systemd here; start the server by what starts services: scotch serve")
		return nil
	}
	if state, _ := m.output(ctx, "systemctl", "is-enabled", unitName); state != "enabled" {
		p.add("start the server whenever the machine starts", nil, func(ctx context.Context, _ io.Writer) (string, error) {
			if _, err := m.output(ctx, "systemctl", "--quiet", "enable", unitName); err != nil {
				return "", err
			}
			return "", m.record(func(s *State) { s.Enabled = true })
		})
	}
	if !systemd() {
		p.note("systemd does not run here, so the server is not started; by hand: scotch serve")
		return nil
	}
	return m.planStart(ctx, p, changed)
}

func (m *Machine) daemonReload(ctx context.Context) error {
	if !systemd() {
		return nil
	}
	_, err := m.output(ctx, "systemctl", "daemon-reload")
	return err
}

func (m *Machine) planStart(ctx context.Context, p *Plan, changed bool) error {
	active := m.active(ctx, unitName)
	if err := m.portsFree(active); err != nil {
		return err
	}
	if m.uses("nginx") && m.nginxPath("config_path") == "/etc/nginx" && m.nginxMaster() == 0 {
		p.add("start nginx", nil, func(ctx context.Context, _ io.Writer) (string, error) {
			if m.nginxMaster() != 0 {
				return "the installation has started it", nil
			}
			return "", m.start(ctx, "nginx.service", "enable", "--now")
		})
	}
	switch {
	case !active:
		p.add("start the server", nil, func(ctx context.Context, _ io.Writer) (string, error) {
			return "", m.start(ctx, unitName, "start")
		})
	case changed:
		p.add("restart the server; apps are not touched", nil, func(ctx context.Context, _ io.Writer) (string, error) {
			return "", m.start(ctx, unitName, "restart")
		})
	}
	return nil
}

func (m *Machine) active(ctx context.Context, unit string) bool {
	state, _ := m.output(ctx, "systemctl", "is-active", unit)
	return state == "active"
}

// start starts a unit and waits until it is ready. The error has what it said.
func (m *Machine) start(ctx context.Context, unit string, verb ...string) error {
	// A restart waits for deploys under way, a start for what runs to be adopted.
	c := command(append(append([]string{"systemctl"}, verb...), unit)...)
	c.Timeout = m.Site.Server.StopTimeout + 11*time.Minute
	err := m.Run.Run(ctx, c)
	if err == nil {
		return nil
	}
	said, _ := m.output(ctx, "journalctl", "--unit", unit, "--lines", "15", "--no-pager", "--output", "cat")
	if said == "" {
		return fmt.Errorf("starting %s: %w\nsee: systemctl status %s", unit, err, unit)
	}
	return fmt.Errorf("starting %s: %w; its last words:\n%s\nmore: journalctl -u %s", unit, err, said, unit)
}

// portsFree tells whose the ports are that the server and nginx need, where
// somebody else has them.
func (m *Machine) portsFree(active bool) error {
	var errs []error
	for _, d := range m.doors() {
		if d.name == "nginx" && !m.uses("nginx") || d.name == "scotch" && active {
			continue
		}
		for _, l := range listeners(d.port) {
			if l.name != d.name {
				errs = append(errs, fmt.Errorf("port %d, for %s, is taken by %s\nend it (for good: systemctl disable --now), or set %s in %s to another one", d.port, d.what, l, d.key, siteFile))
			}
		}
	}
	return errors.Join(errs...)
}

// firewall hints at what a firewall that is on keeps out.
func (m *Machine) firewall(ctx context.Context, p *Plan) {
	var ports []string
	for _, d := range m.doors() {
		if d.public {
			ports = append(ports, fmt.Sprintf("%d/tcp", d.port))
		}
	}
	if has("ufw") {
		status, err := m.output(ctx, "ufw", "status")
		if err == nil && strings.Contains(status, "Status: active") {
			var closed []string
			for _, port := range ports {
				number, _, _ := strings.Cut(port, "/")
				if !ufwAllows(status, number) {
					closed = append(closed, "ufw allow "+port)
				}
			}
			if len(closed) > 0 {
				p.note("the firewall ufw is on; to let people in: %s", strings.Join(closed, " && "))
			}
			return
		}
	}
	if has("nft") {
		rules, err := m.output(ctx, "nft", "list", "ruleset")
		if err == nil && dropsInput(rules) {
			p.note("a firewall (nft list ruleset) drops what it does not know; people need %s", strings.Join(ports, " and "))
		}
	}
}

// ufwAllows reads the table of ufw status.
func ufwAllows(status, port string) bool {
	for line := range strings.Lines(status) {
		to, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if (to == port || to == port+"/tcp" || port == "80" && (to == "Nginx" || to == "WWW")) && strings.Contains(rest, "ALLOW") {
			return true
		}
	}
	return false
}

// dropsInput tells whether a chain on the way in drops by default.
func dropsInput(rules string) bool {
	for line := range strings.Lines(rules) {
		if strings.Contains(line, "hook input") && (strings.Contains(line, "policy drop") || strings.Contains(line, "policy reject")) {
			return true
		}
	}
	return false
}
