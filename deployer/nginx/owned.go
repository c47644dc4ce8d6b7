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
