package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestLayout holds the direct imports between the packages against the picture
// in docs/ARCHITECTURE.md: the way of a push, cmd → gitserver → hooks →
// deployer → its plugins' interfaces, with config below them all.
func TestLayout(t *testing.T) {
	const module = "scotch"
	// What each package may import of this module. A package that is not
	// listed here has no place in the house yet.
	allowed := map[string][]string{
		"cmd/scotch":          {"*"},
		"config":              {},
		"gitserver/access":    {"config"},
		"gitserver/audit":     {},
		"gitserver":           {"config", "gitserver/access", "gitserver/audit", "hooks"},
		"hooks":               {"config", "deployer"},
		"deployer":            {"config"},
		"deployer/control":    {"config"},
		"deployer/direct":     {"config", "deployer", "deployer/process"},
		"deployer/process":    {"deployer"},
		"deployer/systemd":    {"deployer", "deployer/process"},
		"deployer/git":        {"config", "deployer", "hooks"},
		"deployer/host":       {"config", "deployer"},
		"deployer/nginx":      {"config", "deployer"},
		"deployer/uwsgi":      {"config", "deployer"},
		"deployer/python":     {"config", "deployer"},
		"deployer/notify":     {"config", "deployer"},
		"deployer/metrics":    {"config", "deployer"},
		"deployer/plugintest": {"config", "deployer"},
		"system":              {},
		// Measuring is no part of the product: it sees scotch from outside.
		"bench":         {"bench/traffic"},
		"bench/traffic": {},
	}
	// Outside packages that only some may know.
	only := map[string][]string{
		"github.com/gliderlabs/ssh": {"gitserver"},
		"os/exec":                   {"deployer/direct", "gitserver", "deployer/plugintest", "bench"},
		"github.com/spf13/cobra":    {"cmd/scotch"},
		"github.com/prometheus/client_golang/prometheus": {"deployer/metrics"},
		"gopkg.in/ini.v1":                       {"config"},
		"github.com/go-git/go-git/v5":           {"deployer/git"},
		"github.com/google/renameio/v2":         {"deployer", "deployer/direct", "gitserver", "gitserver/access", "deployer/uwsgi", "deployer/systemd"},
		"github.com/coreos/go-systemd/v22/dbus": {"deployer/systemd"},
		"github.com/godbus/dbus/v5":             {"deployer/systemd"},
	}
	for name, imports := range packages(t, module) {
		may, known := allowed[name]
		if !known {
			t.Errorf("package %s has no place in the layout: add it here and to docs/ARCHITECTURE.md", name)
			continue
		}
		for _, imp := range imports {
			if inner, ok := strings.CutPrefix(imp, module+"/"); ok {
				if !slices.Contains(may, inner) && !slices.Contains(may, "*") {
					t.Errorf("%s imports %s: the arrow is not in the picture", name, inner)
				}
			}
			if who, guarded := only[imp]; guarded && !slices.Contains(who, name) {
				t.Errorf("%s imports %s, which is for %v alone", name, imp, who)
			}
		}
	}
}

// packages lists the module's packages with their direct imports, without
// those of their tests.
func packages(t *testing.T, module string) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	list := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list[strings.TrimPrefix(p.ImportPath, module+"/")] = p.Imports
	}
}
