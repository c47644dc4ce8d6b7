package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// modelApp is what should be true of one app, by the simplest account of it.
type modelApp struct {
	name            string
	p               *project
	there           bool            // it has a file and a repository
	releases        []*modelRelease // v1 first
	live            *modelRelease   // nil: nothing was ever live
	stopped, locked bool

	// The watch after the last switch. warm is what it keeps and would go back
	// to; vague says that a kill may have ended it.
	until time.Time
	warm  *modelRelease
	vague bool
}

type modelRelease struct {
	number       int
	commit, text string
	watch        int // seconds
	// reports: a release command ran, so the watch does not take it back.
	reports bool
	undone  bool
}

func (r *modelRelease) String() string {
	if r == nil {
		return "nothing"
	}
	return fmt.Sprintf("v%d", r.number)
}

func (a *modelApp) String() string {
	s := fmt.Sprintf("%s: %s of %d live", a.name, a.live, len(a.releases))
	for name, is := range map[string]bool{"stopped": a.stopped, "locked": a.locked, "not there": !a.there} {
		if is {
			s += ", " + name
		}
	}
	if left := time.Until(a.until); left > 0 {
		s += fmt.Sprintf(", watched for %.1fs with %s warm", left.Seconds(), a.warm)
	}
	return s
}

// model is a server under random operations, and what should be true of it.
type model struct {
	*pushWorld
	random *rand.Rand
	apps   []*modelApp
	n      int // commits made
	watch  int // of the next ones, 0 for a random one
}

// went notes that a deploy of a new release has gone live.
func (a *modelApp) went(r *modelRelease) {
	r.number = len(a.releases) + 1
	a.releases = append(a.releases, r)
	warm := a.live
	if a.stopped {
		warm = nil
	}
	a.serves(r)
	if r.watch > 0 {
		a.until, a.warm = time.Now().Add(time.Duration(r.watch)*time.Second), warm
	}
}

// serves notes that a release is live and runs, with no watch over it.
func (a *modelApp) serves(r *modelRelease) {
	a.live, a.stopped = r, false
	r.undone = false
	a.unwatched()
}

func (a *modelApp) unwatched() { a.until, a.warm, a.vague = time.Time{}, nil, false }

// takenBack tells whether the end of the live process leads back to what is
// warm; surely is false about the moment where the watch ends.
func (a *modelApp) takenBack() (yes, surely bool) {
	if a.warm == nil || a.live.reports {
		return false, true
	}
	left := time.Until(a.until)
	return left > 0, !a.vague && (left > 2*time.Second || left < -time.Second)
}

// keep is [app] keep.
const keep = 5

// kept are the releases that retention must keep: the newest ones of so many
// commits, and what is live. Others may be there for a while still.
func (a *modelApp) kept(r *modelRelease) bool {
	commits := map[string]bool{}
	for _, r2 := range slices.Backward(a.releases) {
		commits[r2.commit] = true
		if len(commits) > keep {
			break
		}
		if r2 == r {
			return true
		}
	}
	return r == a.live
}

// answer is how an app should answer.
func (a *modelApp) answer() (status int, body string) {
	switch {
	case a.live == nil:
		return 404, ""
	case a.stopped:
		return 503, ""
	}
	return 200, a.live.text + "\n"
}

// check compares everything with the model.
func (m *model) check() {
	m.t.Helper()
	for _, a := range m.apps {
		m.checkAnswer(a, 0)
		m.checkReleases(a)
		m.checkRefs(a)
	}
	m.checkList()
}

// checkAnswer asks through nginx. With patience it asks again for so long.
func (m *model) checkAnswer(a *modelApp, patience time.Duration) {
	m.t.Helper()
	wantStatus, want := a.answer()
	for deadline := time.Now().Add(patience); ; {
		status, body, _, err := m.request(a.name+".localhost", "/")
		if err == nil && status == wantStatus && (status != 200 || body == want) {
			return
		}
		if time.Now().After(deadline) {
			m.t.Errorf("%s\nanswers %d %.100q %v, want %d %q", a, status, body, err, wantStatus, want)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (m *model) checkReleases(a *modelApp) {
	m.t.Helper()
	if !a.there {
		return
	}
	list := m.releases(a.name)
	if len(list) != len(a.releases) {
		m.t.Errorf("%s\nhas %d releases: %+v", a, len(list), list)
		return
	}
	for i, got := range list {
		want := a.releases[len(list)-1-i]
		ok := got.Release == want.number && got.Commit == want.commit && (got.State == "live") == (want == a.live) &&
			(got.Undone != nil) == want.undone && (got.State != "removed" || !a.kept(want))
		if !ok {
			m.t.Errorf("%s\nlists %+v, want %+v, kept %v", a, got, *want, a.kept(want))
		}
	}
}

// checkRefs reads the refs from the disk; the branch of the app that was worked
// on is asked for over ssh as well.
func (m *model) checkRefs(a *modelApp) {
	m.t.Helper()
	repo := filepath.Join(m.dir, "repositories", a.name+".git")
	out, status := m.run(m.home, "git", "--git-dir", repo, "for-each-ref", "--format=%(objectname) %(refname)")
	if !a.there {
		if status == 0 {
			m.t.Errorf("%s\nits repository is there", a)
		}
		return
	}
	if got, want := sortedLines(out), a.refs(); status != 0 || got != want {
		m.t.Errorf("%s\nhas the refs\n%s\nwant\n%s", a, got, want)
	}
}

func (a *modelApp) refs() string {
	var refs strings.Builder
	for _, r := range a.releases {
		fmt.Fprintf(&refs, "%s refs/releases/v%d\n", r.commit, r.number)
	}
	if a.live != nil {
		fmt.Fprintf(&refs, "%s refs/heads/main\n", a.live.commit)
	}
	return sortedLines(refs.String())
}

func sortedLines(text string) string {
	return strings.Join(slices.Sorted(strings.Lines(text)), "")
}

func (m *model) checkRemote(a *modelApp) {
	m.t.Helper()
	out, status := m.run(a.p.dir, "git", "ls-remote", "scotch", "refs/heads/main", "refs/releases/*")
	want := ""
	if a.live != nil {
		want = a.live.commit + "\trefs/heads/main\n"
	}
	if (status == 0) != a.there || a.there && !strings.HasPrefix(out, want) || want == "" && a.there && out != "" {
		m.t.Errorf("%s\ngit ls-remote exits with %d and prints %q, want %q", a, status, out, want)
	}
}

func (m *model) checkList() {
	m.t.Helper()
	var list []struct {
		App, State string
		Release    int
		Lock       *struct{}
	}
	if err := json.Unmarshal([]byte(m.must("list", "--json")), &list); err != nil {
		m.t.Fatal(err)
	}
	for _, a := range m.apps {
		i := -1
		for j, s := range list {
			if s.App == a.name {
				i = j
			}
		}
		if !a.there {
			if i >= 0 {
				m.t.Errorf("%s\nis listed: %+v", a, list[i])
			}
			continue
		}
		if i < 0 {
			m.t.Errorf("%s\nis not listed", a)
			continue
		}
		s, release, states := list[i], 0, []string{"never deployed", "first deploy failed"}
		if a.live != nil {
			release, states = a.live.number, []string{"running"}
			if a.stopped {
				states = []string{"stopped"}
			}
		}
		if !slices.Contains(states, s.State) || s.Release != release || (s.Lock != nil) != a.locked {
			m.t.Errorf("%s\nis listed as %+v, want %q", a, s, states)
		}
	}
}

// checkEnd is what holds once all is quiet: repositories are whole, nothing
// half-made lies about, and nothing runs that should not.
func (m *model) checkEnd() {
	m.t.Helper()
	for _, a := range m.apps {
		if !a.there {
			continue
		}
		repo := filepath.Join(m.dir, "repositories", a.name+".git")
		if out, status := m.run(m.home, "git", "--git-dir", repo, "fsck", "--strict", "--no-dangling", "--full"); status != 0 {
			m.t.Errorf("%s\ngit fsck: %s", a, out)
		}
		for _, pattern := range []string{"*.lock", "refs/heads/*.lock", "refs/releases/*.lock", "objects/tmp_objdir-*", "objects/incoming-*"} {
			if left, _ := filepath.Glob(filepath.Join(repo, pattern)); len(left) > 0 {
				m.t.Errorf("%s\nhas left %q", a, left)
			}
		}
		want := 0
		if a.live != nil && !a.stopped {
			want = 1
		}
		var states []string
		for deadline := time.Now().Add(20 * time.Second); ; {
			var list []struct{ State string }
			if err := json.Unmarshal([]byte(m.must("ps", "--json", a.name)), &list); err != nil {
				m.t.Fatal(err)
			}
			states = nil
			for _, p := range list {
				if p.State != "warm" {
					states = append(states, p.State)
				}
			}
			if len(states) == want || time.Now().After(deadline) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if len(states) != want || want == 1 && states[0] != "live" {
			m.t.Errorf("%s\nhas the processes %q", a, states)
		}
	}
}
