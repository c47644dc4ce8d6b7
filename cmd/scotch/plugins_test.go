package main

import (
	"go/format"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"scotch/config"
	"scotch/deployer"
)

// A second application server is one more line of the table: off by its own
// defaults, chosen by [plugins], with a section of its own in site files. One
// of each kind is on, or none.
func TestSecondPlugin(t *testing.T) {
	const text = `[plugins]
# Runs apps with gunicorn in place of uWSGI.
gunicorn = off
# How scotch runs apps with gunicorn.
[gunicorn]
# Seconds that a worker may take.
patience = 30
`
	type server struct {
		deployer.NoAppServer
		name string
	}
	opens := func(name string) func(*config.Site, deployer.Runner) (deployer.AppServer, error) {
		return func(*config.Site, deployer.Runner) (deployer.AppServer, error) { return server{name: name}, nil }
	}
	table := []plugin[deployer.AppServer]{
		{defaults: config.Defaults{Name: "uwsgi", Text: []byte("[uwsgi]\n")}, open: opens("uwsgi")},
		{defaults: config.Defaults{Name: "gunicorn", Text: []byte(text)}, open: opens("gunicorn")},
	}
	for _, c := range []struct{ site, want, problem string }{
		{"", "uwsgi", ""},
		{"[plugins]\nuwsgi = off\ngunicorn = on\n[gunicorn]\npatience = 10\n", "gunicorn", ""},
		{"[plugins]\nuwsgi = off\n", "", ""},
		{"[plugins]\ngunicorn = on\n", "", "scotch.cfg:2: [plugins] gunicorn: both uwsgi and gunicorn are on"},
	} {
		file := filepath.Join(t.TempDir(), "scotch.cfg")
		if err := os.WriteFile(file, []byte(c.site), 0o600); err != nil {
			t.Fatal(err)
		}
		site, err := config.Open(config.Options{Files: []string{file}, Plugins: defaultsOf(table)[0]})
		if err != nil {
			t.Fatal(err)
		}
		got, err := choose[deployer.AppServer](site, nil, "application server", table, server{})
		if c.problem != "" {
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("%q: %v", c.site, err)
			}
			continue
		}
		if err != nil || got.(server).name != c.want {
			t.Errorf("%q: chose %+v, %v", c.site, got, err)
		}
	}
}

// The lines of docs/PLUGINS.md that register a plugin can be copied as they are.
func TestRegistrationInTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/PLUGINS.md")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for block := range strings.SplitSeq(string(text), "```go\n") {
		code, _, ended := strings.Cut(block, "```")
		if !ended || !strings.HasPrefix(code, "func appServers()") {
			continue
		}
		found = true
		if want, err := format.Source([]byte(code)); err != nil || string(want) != code {
			t.Errorf("docs/PLUGINS.md has, %v\n%s\nand gofmt\n%s", err, code, want)
		}
	}
	if !found {
		t.Error("docs/PLUGINS.md shows no registration")
	}
}
