package systemd

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
)

// home is the run directory of the site whose units are called scotch.
const home = "/run/scotch"

// sitePrefix begins the names of a site's units.
func sitePrefix(site string) string {
	if filepath.Clean(site) == home {
		return "scotch"
	}
	sum := sha256.Sum256([]byte(filepath.Clean(site)))
	return "scotch_" + hex.EncodeToString(sum[:4])
}

// escape makes a name part of a unit's: no two names become the same, and none
// has a dash. systemd.unit(5) says which characters may be.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
			b.WriteByte(c)
		case c == '-':
			b.WriteByte('.')
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// instanceUnit is the unit of a process by its name, "blog/000042".
func (r *Runner) instanceUnit(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = escape(parts[i])
	}
	return r.prefix + "-app-" + strings.Join(parts, "-") + ".service"
}

// commandUnit is the unit of a command of an app.
func (r *Runner) commandUnit(app string) string {
	name := r.prefix + "-run-"
	if app != "" {
		name += escape(app) + "-"
	}
	return fmt.Sprintf("%s%s.%d.service", name, r.id, r.last.Add(1))
}

// slice is where an app's units are.
func (r *Runner) slice(app string) string {
	if app == "" {
		return r.prefix + ".slice"
	}
	return r.prefix + "-" + escape(app) + ".slice"
}

// patterns match all units of the site.
func (r *Runner) patterns() []string {
	return []string{r.prefix + "-app-*.service", r.prefix + "-run-*.service"}
}

// appOf is the app of a process, by its name.
func appOf(name string) string {
	app, _, found := strings.Cut(name, "/")
	if !found {
		return ""
	}
	return app
}
