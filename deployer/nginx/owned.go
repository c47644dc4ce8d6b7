package nginx

import "path/filepath"

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
