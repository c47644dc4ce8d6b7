package nginx

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"scotch/config"
)

// What only nginx refuses is said when an app's files are read, with its line.
func TestCheckApp(t *testing.T) {
	dir := t.TempDir()
	site, app := filepath.Join(dir, "scotch.cfg"), filepath.Join(dir, "apps-enabled", "blog.cfg")
	if err := os.Mkdir(filepath.Dir(app), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		site: "[paths]\nconfiguration = " + dir + "\n",
		app:  "[app]\nurl_prefix = /.well-known/acme-challenge\n[static]\n/.well-known/acme-challenge/ = x\n[nginx]\ninclude = relative\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := config.Open(config.Options{Files: []string{site}, Plugins: []config.Defaults{Defaults()}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.App("blog", config.AppOptions{})
	all, _ := err.(config.Errors)
	var lines []int
	for _, e := range all {
		if e.File != app {
			t.Errorf("%v", e)
		}
		lines = append(lines, e.Line)
	}
	if !slices.Equal(lines, []int{2, 4, 6}) {
		t.Errorf("got %v", err)
	}
}
