package uwsgi

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"scotch/config"
	"scotch/deployer"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), run the test with -update if it should:\n%s", path, diff)
	}
}

// runner runs commands plainly. answer takes the place of that where it is set.
type runner struct {
	deployer.Runner
	answer func(deployer.Command) error
	calls  int
}

func (r *runner) Run(ctx context.Context, c deployer.Command) error {
	r.calls++
	if r.answer != nil {
		return r.answer(c)
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.Env, c.Dir, c.Stdout, c.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &deployer.ExitError{Name: filepath.Base(c.Args[0]), Status: exit.ExitCode()}
	}
	return err
}

// says answers as the distribution's uWSGI with that Python does.
func says(version string) func(deployer.Command) error {
	return func(c deployer.Command) error {
		_, err := c.Stdout.Write([]byte(version + "\n"))
		return err
	}
}

// read reads a site file and the plugin's defaults.
func read(t *testing.T, text string, plugin config.Defaults) (*config.Site, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scotch.cfg")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Open(config.Options{Files: []string{path}, Plugins: []config.Defaults{plugin}})
}

func open(t *testing.T, text string) *config.Site {
	t.Helper()
	site, err := read(t, text, Defaults())
	if err != nil {
		t.Fatal(err)
	}
	return site
}

// plain is a UWSGI with the defaults but for config_path.
func plain(t *testing.T, r deployer.Runner) *UWSGI {
	t.Helper()
	u, err := New(open(t, "[uwsgi]\nconfig_path =\nconfig_mode = 0600\n"), r)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func instance(dir string) *deployer.Instance {
	return &deployer.Instance{
		App: &config.App{Name: "blog", Workers: 2, Threads: 4, Timeout: time.Minute, User: "scotch-blog", Group: "scotch-blog"},
		ID:  "000042", Dir: dir, Source: dir + "/src", Venv: dir + "/venv", Run: dir + "/run",
		Interpreter: deployer.Interpreter{Path: "/usr/bin/python3", Version: "3.11.2"},
		EntryPoint:  deployer.EntryPoint{Module: "blog.wsgi", Callable: "application"},
		Env:         []string{"PATH=/usr/bin:/bin", "SCOTCH_APP=blog"},
	}
}
