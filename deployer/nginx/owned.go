package nginx

import (
	"os"
	"path/filepath"
)

// Owned are the patterns of the files that Render makes: one for each domain,
// and one for each app and domain.
func (n *NGINX) Owned() []string {
	return []string{
		filepath.Join(n.sitesPath, "scotch-*.conf"),
		filepath.Join(n.domainsPath, "*", "*.conf"),
	}
}

// Logs are the files that nginx appends to for scotch. They must be there, made
// with mode 0600, before nginx is tested: it makes files that all may read, and
// no directories, without which it does not start. The paths of requests are
// for no other app's eyes.
func (n *NGINX) Logs() []string { return []string{n.failedLog} }

var (
	// upstream is the line of an app's file that says where its instances are.
	upstream = pattern(`(?m)^\s*(?:uwsgi_pass "|proxy_pass "http://)unix:(/[^":]+)/[a-z][a-z0-9_-]*/(?:current|[0-9]+)/run/[^"/:]+(?::/[^"]*)?";$`)
	// failing is the same of conf.d's file, as a regular expression.
	failing = pattern(`unix:(/\S*)/\(\?<scotch_failed_app>`)
	// included is the line of a domain's file that includes its apps'.
	included = pattern(`(?m)^\s*include "(/[^"]+/\*\.conf)";$`)
	// escaped is a character that regexp.QuoteMeta has put a backslash before.
	escaped = pattern(`\\(.)`)
)

// Instances tells whose a file is, by its content: the [paths] instances of the
// site that wrote it, "" where it names none.
func (n *NGINX) Instances(data []byte) string {
	if m := upstream().FindSubmatch(data); m != nil {
		return string(m[1])
	}
	if m := failing().FindSubmatch(data); m != nil {
		return escaped().ReplaceAllString(string(m[1]), "$1")
	}
	if m := included().FindSubmatch(data); m != nil {
		apps, _ := filepath.Glob(string(m[1])) // a checked path, with *.conf behind it
		for _, path := range apps {
			if text, err := os.ReadFile(path); err == nil && upstream().Match(text) {
				return n.Instances(text)
			}
		}
	}
	return ""
}
