package hooks_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"scotch/deployer"
	"scotch/hooks"
)

// git strikes refs that receive.hideRefs hides out before proc-receive, which
// then saw one ref of two and let it go live.
func TestAtomicWithARefThatGitRefuses(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	const alone = `! [remote rejected] main -> main ("main" goes live and can't be part of an atomic push)`
	for _, other := range []string{"refs/bad/x", "refs/releases/v1", "refs/scotch/x"} {
		s.push(1, []string{alone}, "--atomic", "main", "main:"+other)
		s.push(1, []string{"main -> dev (atomic push: another ref was refused)"}, "--atomic", "main:dev", "main:"+other)
	}
	s.deploys(0)
	s.wantRef("refs/heads/main", "")
	s.wantRef("refs/heads/dev", "")
	// Each has its own answer without --atomic.
	s.push(1, []string{"[new branch]      main -> main"}, "main", "main:refs/releases/v7")
	s.wantRef("refs/heads/main", one)
	s.wantRef("refs/releases/v7", "")
}

// refs/heads/refs/heads/main made "git push scotch main" ambiguous for everybody.
func TestNamesThatBeginWithRefs(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	const why = `(bad name: it begins with "refs/" and would be taken for the whole name of a ref)`
	s.push(1, []string{why}, "main:refs/heads/refs/heads/main")
	s.push(1, []string{why}, "main:refs/tags/refs/heads/main")
	s.push(1, []string{"(bad name: "}, "main:refs/heads/HEAD")
	s.push(1, []string{"(bad name: "}, "main:refs/tags/HEAD")
	s.push(0, []string{"stored feature/refs/x"}, "main:refs/heads/feature/refs/x")
	// One that is there from before can be deleted.
	s.run(s.work, "push", "-q", s.git.Path("blog"), "main:refs/heads/refs/heads/main")
	s.push(0, []string{`deleted "refs/heads/main"`}, ":refs/heads/refs/heads/main")
	s.push(0, []string{"live at"}, "main")
	s.wantRef("refs/heads/main", one)
}

// A flood of output took the last lines with it: the ones that say how it ended.
func TestLastLinesAfterAFlood(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	const many = 100_000
	var b strings.Builder
	for i := range many {
		fmt.Fprintf(&b, "%d and some more\n", i)
	}
	// The pusher's side stands still meanwhile: a quick one would read it all.
	push := func(status int, last string, result error) string {
		pid := make(chan int, 1)
		s.deployer.run = func(_ context.Context, _ deployer.Request, out io.Writer) error {
			p := <-pid
			if err := syscall.Kill(-p, syscall.SIGSTOP); err != nil {
				return err
			}
			defer syscall.Kill(-p, syscall.SIGCONT)
			io.WriteString(out, b.String())
			fmt.Fprintln(out, "app.py: no such thing")
			return result
		}
		var out bytes.Buffer
		cmd, wait := s.startGroup(&out, "scotch", "main")
		pid <- cmd.Process.Pid
		if got := wait(); got != status || !strings.Contains(out.String(), last) {
			t.Errorf("exit status %d, and %q should be in what is said", got, last)
		}
		return out.String()
	}
	said := push(1, "remote: app.py: no such thing", &deployer.StageError{Stage: "register", Err: fmt.Errorf("no answer")})
	a, b10 := strings.LastIndex(said, "lines left out here"), strings.Index(said, fmt.Sprintf("remote: %d ", many-10))
	if a < 0 || a > b10 || !strings.Contains(said, fmt.Sprintf("remote: %d ", many-1)) {
		t.Errorf("what was left out is told of at %d, the tenth last line is at %d", a, b10)
	}
	if said := push(0, "remote: -----> live at http://", nil); !strings.Contains(said, "lines left out here") {
		t.Error("nothing was left out")
	}
}

// between is Limits that lets something happen between git's advertisement of
// the refs and the push's judgement.
type between func()

func (f between) Allow(context.Context, string, string, []hooks.Update) error { f(); return nil }

// Two pushes of one commit: the second was told to fetch first.
func TestPushOfWhatIsLiveAlready(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, nil, "main", "main:dev")
	two := s.commit("two")
	s.push(0, nil, "main:objects") // out of the quarantine, as the first push's were
	s.denied = []string{"force"}
	move := func(ref, to, from string) {
		// Not with run: Fatal would end the handler's goroutine.
		if out, err := s.command(s.git.Path("blog"), "update-ref", ref, to, from).CombinedOutput(); err != nil {
			t.Errorf("update-ref: %v\n%s", err, out)
		}
	}
	for _, branch := range []string{"main", "dev"} {
		s.handler.Limits = between(func() { move("refs/heads/"+branch, two, one) })
		said := s.push(0, []string{fmt.Sprintf("%.7s is ", two), "already"}, "main:"+branch)
		if strings.Contains(said, "pull") || strings.Contains(said, "stored") {
			t.Errorf("said:\n%s", said)
		}
		s.wantRef("refs/heads/"+branch, two)
	}
	s.deploys(1)
	// Another commit is still not overwritten.
	three := s.commit("three")
	s.handler.Limits = between(func() { move("refs/heads/main", one, two) })
	var out bytes.Buffer
	_, wait := s.start(s.work, &out, "scotch", "main")
	if status := wait(); status != 1 || !strings.Contains(out.String(), `fetch first: "main" has moved meanwhile`) {
		t.Errorf("exit status %d:\n%s", status, &out)
	}
	if s.ref("refs/heads/main") == three {
		t.Error("it was overwritten")
	}
}

// A push that names the branch twice had two deploys, and was answered that both
// were refused where the first was live.
func TestRefThatIsNamedTwice(t *testing.T) {
	s := newServer(t)
	one, two := s.commit("one"), s.commit("two")
	const none = "0000000000000000000000000000000000000000 "
	said := s.raw([]string{none + one + " refs/heads/main", none + two + " refs/heads/main", none + one + " refs/heads/dev"}, two)
	if want := `ng refs/heads/main the push names "main" twice`; !strings.Contains(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
	s.deploys(0)
	s.wantRef("refs/heads/main", "")
	s.wantRef("refs/heads/dev", one)
	// Nor does one of two that would be refused ride on the other's answer.
	tree := s.run(s.work, "rev-parse", two+"^{tree}")
	said = s.raw([]string{none + tree + " refs/heads/x", none + two + " refs/heads/x"}, two)
	if strings.Contains(said, "ok refs/heads/x") {
		t.Errorf("%q", said)
	}
	s.wantRef("refs/heads/x", "")
}
