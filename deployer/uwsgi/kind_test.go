package uwsgi

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"scotch/deployer"
)

func TestRequires(t *testing.T) {
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Skip("there is no /usr/bin/python3")
	}
	other := filepath.Join(t.TempDir(), "python3.11")
	if err := os.WriteFile(other, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "python3")
	if err := os.Symlink(python, link); err != nil {
		t.Fatal(err)
	}
	prog := program(t)
	fails := func(deployer.Command) error { return &deployer.ExitError{Name: "uwsgi", Status: 1} }
	tests := []struct {
		name, program string
		answer        func(deployer.Command) error
		in            deployer.Interpreter
		wheel         bool
	}{
		{"the distribution's", prog, says("3.11.9"), deployer.Interpreter{Path: python, Version: "3.11.2"}, false},
		{"by a link of ours", prog, says("3.11.2"), deployer.Interpreter{Path: link, Version: "3.11.2"}, false},
		// libpython and the standard library would not be of one build.
		{"another of the same version", prog, says("3.11.2"), deployer.Interpreter{Path: other, Version: "3.11.2"}, true},
		{"another version", prog, says("3.9.2"), deployer.Interpreter{Path: python, Version: "3.11.2"}, true},
		{"no plugin", prog, fails, deployer.Interpreter{Path: python, Version: "3.11.2"}, true},
		{"no uwsgi", "/nowhere/uwsgi", fails, deployer.Interpreter{Path: python, Version: "3.11.2"}, true},
		{"3.1 is not 3.11", prog, says("3.1.4"), deployer.Interpreter{Path: python, Version: "3.11.2"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := plain(t, &runner{answer: tt.answer})
			u.settings.program = tt.program
			got, err := u.Requires(t.Context(), tt.in)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			if tt.wheel {
				want = []string{wheel}
			}
			if !slices.Equal(got, want) {
				t.Errorf("it requires %q, want %q", got, want)
			}
		})
	}
}

func TestAsksOncePerProgram(t *testing.T) {
	r := &runner{answer: says("3.11.2")}
	u := plain(t, r)
	u.settings.program = program(t)
	ask := func() {
		t.Helper()
		if _, err := u.Requires(t.Context(), deployer.Interpreter{Path: "/usr/bin/python3", Version: "3.11.2"}); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	once := r.calls
	ask()
	if r.calls != once {
		t.Errorf("it was asked again: %d questions, then %d", once, r.calls)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(u.settings.program, later, later); err != nil {
		t.Fatal(err)
	}
	ask()
	if r.calls != 2*once {
		t.Errorf("after an upgrade there were %d questions in all, want %d", r.calls, 2*once)
	}

	// A deadline is no answer, and must not be remembered as one.
	r.answer = func(deployer.Command) error { return context.DeadlineExceeded }
	if err := os.Chtimes(u.settings.program, later, later.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Requires(t.Context(), deployer.Interpreter{Path: "/usr/bin/python3", Version: "3.11.2"}); err == nil {
		t.Error("a command that was cut off passed for an answer")
	}
	r.answer = says("3.11.2")
	ask()
}

// The two Pythons 3.11 of a machine with pyenv: only one is the plugin's.
func TestRealPlugin(t *testing.T) {
	if _, err := exec.LookPath("uwsgi"); err != nil {
		t.Skip("there is no uwsgi")
	}
	u := plain(t, &runner{})
	k, err := u.kind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if k.python == "" {
		t.Skip("uwsgi has no plugin python3")
	}
	if in := (deployer.Interpreter{Path: "/usr/bin/python3", Version: k.python}); !k.runs(in) {
		t.Errorf("%+v does not run the distribution's Python", k)
	}
	u.plugin = "nosuchplugin"
	if k, err = u.kind(t.Context()); err != nil || k.python != "" {
		t.Errorf("without the plugin: %+v, %v", k, err)
	}
}

// The build of a package left a pipe, or a link to what has no end, in the place of
// pyvenv.cfg, and the server read on.
func TestVirtualenvOfAHostileBuild(t *testing.T) {
	for name, plant := range map[string]func(string) error{
		"a pipe":             func(p string) error { return syscall.Mkfifo(p, 0o666) },
		"a link to no end":   func(p string) error { return os.Symlink("/dev/zero", p) },
		"a link to a secret": func(p string) error { return os.Symlink("/etc/shadow", p) },
		"a file without end": func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o644), os.Truncate(p, 1<<40))
		},
	} {
		venv := t.TempDir()
		if err := plant(filepath.Join(venv, "pyvenv.cfg")); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := venvHome(venv)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s is taken", name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it waits", name)
		}
	}
}
