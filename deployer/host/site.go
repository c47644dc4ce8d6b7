package host

import (
	_ "embed"
	"fmt"

	"scotch/config"
)

//go:embed site.cfg
var siteTemplate []byte

// SiteFile is the site file that setup writes, once: comment but for the domain,
// "" for none, and what builds are to see.
func SiteFile(domain string, buildEnv []config.Var) ([]byte, error) {
	var changes []config.Change
	if domain != "" {
		changes = append(changes, config.Set("site", "domain", domain))
	}
	for _, v := range buildEnv {
		changes = append(changes, config.Set("build_env", v.Name, v.Value))
	}
	text, err := config.Edit("site.cfg", siteTemplate, changes)
	if err != nil {
		return nil, fmt.Errorf("writing the site file: %w", err)
	}
	return text, nil
}
