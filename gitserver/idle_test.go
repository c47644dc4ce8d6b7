package gitserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scotch/gitserver/audit"
)

// A client that begins a push and says nothing more, before its pack or within it,
// held a process of git for as long as it liked.
func TestSilentPushEnds(t *testing.T) {
	t.Parallel()
	records := make(recorded, 10)
	f := start(t, func(f *fixture) { f.IdleTimeout, f.Audit = 300*time.Millisecond, records })
	f.app("blog")
	able := " report-status side-band-64k"
	line := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/main\x00" + able
	commands := fmt.Sprintf("%04x%s0000", len(line)+4, line)
	for name, test := range map[string]struct{ app, sends string }{
		"nothing":         {"blog", ""},
		"half a line":     {"blog", commands[:20]},
		"no pack":         {"blog", commands},
		"half a pack":     {"blog", commands + packHead(3).String() + "x"},
		"to an app to be": {"shop", ""},
		"half of that":    {"wiki", commands[:20]},
	} {
		sess, err := f.dial("alice").NewSession()
		if err != nil {
			t.Fatal(err)
		}
		in, err := sess.StdinPipe() // which stays open
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan string, 1)
		go func() {
			out, _ := sess.CombinedOutput("git-receive-pack " + test.app)
			ended <- string(out)
		}()
		io.WriteString(in, test.sends)
		said := wait(t, name, ended)
		if !strings.Contains(said, "scotch: nothing came from your git for too long") || !strings.Contains(said, "git push --no-verify") {
			t.Errorf("%s: it ended with %q", name, said)
		}
		if e := wait(t, "the record", records); e.Verb != "push" || e.Result != audit.Denied || !strings.Contains(e.Reason, "nothing came") {
			t.Errorf("%s: recorded %+v", name, e)
		}
	}
	eventually(t, "the end of the sessions", func() bool { open, _ := f.Sessions(); return open == 0 })
	f.nothingStays()
}

// One that does not read ends as well, though not a byte can be told it.
func TestDeafPushEnds(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.IdleTimeout = 300 * time.Millisecond })
	f.app("blog")
	id := f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	var refs strings.Builder
	for i := range 50_000 { // more than a channel takes that nobody reads
		fmt.Fprintf(&refs, "%s refs/tags/t%08d\n", id, i)
	}
	if err := os.WriteFile(filepath.Join(f.repos.Path("blog"), "packed-refs"), []byte(refs.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	sess, err := f.dial("alice").NewSession()
	if err != nil {
		t.Fatal(err)
	}
	for _, pipe := range []func() (io.Reader, error){sess.StdoutPipe, func() (io.Reader, error) { _, err := sess.StdinPipe(); return nil, err }} {
		if _, err := pipe(); err != nil {
			t.Fatal(err)
		}
	}
	if err := sess.Start("git-receive-pack blog"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session", func() bool { open, _ := f.Sessions(); return open == 1 })
	eventually(t, "its end", func() bool { open, _ := f.Sessions(); return open == 0 })
}

// What is no silence: an upload that is slow and moves, and after it a deploy, or
// a wait for one, that says nothing for longer than a client may.
func TestSlowPushAndSilentDeployLive(t *testing.T) {
	t.Parallel()
	const idle = 500 * time.Millisecond
	f := start(t, func(f *fixture) { f.IdleTimeout = idle })
	f.app("blog")
	f.pushes.answer = func(ctx context.Context, _ *received, _ string) string {
		select {
		case <-time.After(2 * idle):
		case <-ctx.Done():
		}
		return "say at last\nstore"
	}
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok().says("remote: at last")

	pack := packHead(1)
	packObject(pack, 3, 5, nil, []byte("hello"))
	all := sealed(pack)
	begin := time.Now()
	said := f.raw("blog", "side-band-64k", io.MultiReader(strings.NewReader("0000"), &slow{all, idle / 10}))
	if took := time.Since(begin); took < 2*idle {
		t.Fatalf("it took %s only", took)
	}
	if strings.Contains(said, "nothing came") || !strings.Contains(said, "ng refs/heads/main") {
		t.Errorf("the slow push ended with %q", said)
	}
}

// slow reads as a text, a byte at a time with a pause before it.
type slow struct {
	text  string
	pause time.Duration
}

func (s *slow) Read(b []byte) (int, error) {
	if s.text == "" {
		return 0, io.EOF
	}
	time.Sleep(s.pause)
	b[0], s.text = s.text[0], s.text[1:]
	return 1, nil
}
