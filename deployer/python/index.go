package python

import (
	"slices"
	"strings"

	"scotch/deployer"
)

// indexVariables say by which indexes an installer goes.
var indexVariables = [...]string{"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"}

// asked are the indexes that an installer was told to ask, without credentials.
func (d *declaration) asked(env []string, r deployer.InstallRequest) []string {
	var out []string
	secret := secrets(r.App)
	add := func(text string) {
		for word := range strings.FieldsSeq(text) {
			if _, at, named := strings.Cut(word, "="); named && !strings.Contains(at, "=") && strings.Contains(at, "://") {
				word = at // uv's NAME=ADDRESS
			}
			a, ok := parseAddress(word)
			if !ok {
				continue
			}
			if s := shown(a, secret); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		tool, _, _ := strings.Cut(k, "_")
		if slices.Contains(indexVariables[:], k) && strings.HasPrefix(r.Deps.Installer, strings.ToLower(tool)) {
			add(v)
		}
	}
	d.requirementLines(func(_, option, value, _ string) {
		switch option {
		case "-i", "--index-url", "--pypi-url", "--extra-index-url":
			add(value)
		}
	})
	if d.lock != nil {
		for _, x := range d.lock.indexes {
			add(x.url)
		}
	}
	if len(out) == 0 {
		return []string{"https://pypi.org/simple"}
	}
	return out
}
