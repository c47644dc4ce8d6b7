package gitserver

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"scotch/deployer/git"
)

// A git that is killed in the middle of a push can't remove its quarantine: it
// lay there until the server was restarted.
func TestKilledGitLeavesNoQuarantine(t *testing.T) {
	var kill atomic.Bool
	recovered := make(chan string, 10)
	f := start(t, func(f *fixture) {
		f.Server.Git.Mark = func() []string {
			if kill.Load() {
				return []string{"TEST_KILL_GIT=1"}
			}
			return nil
		}
		f.Server.Recover = func(app string) error {
			recovered <- app
			return git.New(string(f.repos), nil, git.Options{}).RemoveQuarantines(app)
		}
	})
	f.app("blog")
	left := func() []string {
		dirs, _ := filepath.Glob(f.repos.Path("blog") + "/objects/tmp_objdir*")
		return dirs
	}
	f.commit()
	kill.Store(true)
	f.git("bob", "push", f.url("blog"), "main").exits(128)
	if app := wait(t, "the quarantine is removed", recovered); app != "blog" {
		t.Errorf("recovered %q", app)
	}

	// While another push to the app is under way nothing is removed: it could be its own.
	kill.Store(false)
	begun, finish := make(chan bool), make(chan bool)
	f.pushes.answer = func(context.Context, *received, string) string {
		begun <- true
		<-finish
		return "store"
	}
	other := make(chan result, 1)
	go func() { other <- f.git("alice", "push", f.url("blog"), "main:other") }()
	wait(t, "the other push", begun)
	f.commit()
	kill.Store(true)
	f.git("bob", "push", f.url("blog"), "main").exits(128)
	if len(recovered) > 0 || len(left()) == 0 {
		t.Errorf("%d times recovered, left behind: %q", len(recovered), left())
	}
	finish <- true
	wait(t, "the other push ends", other).ok()
	wait(t, "the quarantine is removed", recovered)
	if err := f.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(left()) > 0 {
		t.Errorf("left behind: %q", left())
	}
}
