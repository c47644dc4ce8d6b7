package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// standaloneWorld is a server for tests that are no scripts, ended with the test.
type standaloneWorld struct {
	*world
	t       *testing.T
	project string
}

func newStandaloneWorld(t *testing.T) *standaloneWorld {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a server; run without -short")
	}
	dir, err := os.MkdirTemp("/tmp", "sd") // short, for the sake of socket paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{program: buildProgram(t), dir: filepath.Join(dir, "v"), ssh: freePort(), http: freePort(), log: &lockedBuffer{}}
	w.env = append(os.Environ(), "HOME="+dir, "GORACE="+quickRace, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	s := &standaloneWorld{world: w, t: t, project: filepath.Join(dir, "project")}
	t.Cleanup(func() {
		if w.server == nil && len(w.processes()) > 0 {
			if err := w.start(); err != nil { // to end the apps
				t.Error(err)
			}
		}
		if err := w.end(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		for _, pid := range w.processes() {
			t.Errorf("process %d is left", pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	if err := os.Mkdir(s.project, 0o755); err != nil {
		t.Fatal(err)
	}
	s.commit("app.py", echo)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	if err := w.siteOf(os.Getenv(pluginSite)); err != nil {
		t.Fatal(err)
	}
	return s
}

// pluginSite is a variable for who writes a plugin: lines for the site file of the
// worlds of tests that are no scripts, that turn it on. HTTP stands for the port that
// is asked.
const pluginSite = "SCOTCH_TEST_SITE"

// siteOf starts the server again with more lines in its site file, as an operator would.
func (w *world) siteOf(lines string) error {
	if lines == "" {
		return nil
	}
	if err := w.end(syscall.SIGINT); err != nil {
		return err
	}
	file := filepath.Join(w.dir, "scotch.cfg")
	have, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines = strings.ReplaceAll(lines, "HTTP", fmt.Sprint(w.http))
	if err := os.WriteFile(file, []byte(string(have)+lines+"\n"), 0o600); err != nil {
		return err
	}
	return w.start()
}

func (s *standaloneWorld) commit(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.project, name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"add", "-A"},
		{"-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "Change " + name},
	} {
		cmd := exec.Command("git", append([]string{"-C", s.project}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

// scotch runs a command and returns its output and exit status.
func (s *standaloneWorld) scotch(args ...string) (string, int) {
	s.t.Helper()
	cmd := exec.Command(s.program, append([]string{"-c", filepath.Join(s.dir, "scotch.cfg")}, args...)...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (s *standaloneWorld) must(args ...string) string {
	s.t.Helper()
	out, status := s.scotch(args...)
	if status != 0 {
		s.t.Fatalf("scotch %v exits with %d\n%s", args, status, out)
	}
	return out
}

// configure writes an app's file. It counts from the next restart or deploy.
func (s *standaloneWorld) configure(app, format string, args ...any) {
	s.t.Helper()
	text := fmt.Sprintf("[app]\nsrc = "+s.project+"\n"+format, args...)
	if err := os.WriteFile(filepath.Join(s.dir, "apps-enabled", app+".cfg"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}
