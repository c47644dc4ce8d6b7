package gitserver

import (
	"context"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
	"scotch/gitserver/audit"
)

// recorded is an Auditor that hands on what it is told, as long as there is room.
type recorded chan audit.Entry

func (r recorded) Record(e audit.Entry) {
	select {
	case r <- e:
	default:
	}
}

// Somebody with one key that may only read could keep the server busy up to what
// it does for all together.
func TestOneKeyHasItsShare(t *testing.T) {
	t.Parallel()
	began, finish := make(chan string, 10), make(chan bool)
	records := make(recorded, 10)
	f := start(t, func(f *fixture) {
		f.MaxPerKey, f.Audit = 2, records
		f.Commands = func(ctx context.Context, who access.Identity, c Command) int {
			if c.Args[0] == "list" {
				return 0
			}
			began <- who.Name
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return 0
		}
	})
	f.app("blog")
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	<-records
	// One fetch and one command, on connections of their own.
	busy := func(who, command string) (end func()) {
		t.Helper()
		sess, err := f.dial(who).NewSession()
		if err != nil {
			t.Fatal(err)
		}
		in, err := sess.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := sess.Start(command); err != nil {
			t.Fatal(err)
		}
		return func() { in.Close(); sess.Close() }
	}
	endFetch := busy("carol", "git-upload-pack blog")
	busy("carol", "logs")
	wait(t, "carol's command", began)
	f.underWay("carol", 2)

	f.ssh("carol", "list").exits(1).says("your key has 2 commands, pushes and fetches under way").says("[server] max_per_key")
	f.git("carol", "ls-remote", f.url("blog")).exits(128).says("as many as one may have here")
	for range 2 {
		if e := wait(t, "the record", records); e.Kind != audit.Refused || e.By != "carol" || e.Verb != RefusedByLimit {
			t.Errorf("recorded %+v", e)
		}
	}
	// Others have their own share, and what ends makes room.
	f.git("bob", "ls-remote", f.url("blog")).ok()
	f.ssh("bob", "list").ok()
	endFetch()
	f.underWay("carol", 1)
	f.git("carol", "ls-remote", f.url("blog")).ok()

	// An admin can always cancel and remove keys, whatever that key follows; its
	// pushes and fetches have their share as everybody's.
	for range 4 {
		busy("alice", "logs")
		wait(t, "an admin's command", began)
	}
	f.ssh("alice", "list").ok()
	for range 2 {
		busy("alice", "git-upload-pack blog")
	}
	f.underWay("alice", 2)
	f.git("alice", "ls-remote", f.url("blog")).exits(128).says("[server] max_per_key")
	f.ssh("alice", "list").ok()
	close(finish)
}

// underWay waits until so much counts for a key.
func (f *fixture) underWay(who string, n int) {
	f.t.Helper()
	key := gossh.FingerprintSHA256(f.signers[who].PublicKey())
	eventually(f.t, "what is under way", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.perKey[key] == n
	})
}

// One key could hold all connections that there may be, doing nothing: those of it
// that are more than its share make room, and no other's.
func TestIdleConnectionsOfOneKeyMakeRoom(t *testing.T) {
	t.Parallel()
	began := make(chan bool, 1)
	f := start(t, func(f *fixture) {
		f.MaxPerKey, f.MaxConnections = 2, 6
		f.Commands = func(ctx context.Context, _ access.Identity, _ Command) int {
			began <- true
			<-ctx.Done()
			return 0
		}
	})
	ended := make(chan string, 10)
	watch := func(who string) *gossh.Client {
		c := f.dial(who)
		go func() { c.Wait(); ended <- who }()
		return c
	}
	watch("bob")
	busy, err := watch("carol").NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := busy.Start("work"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the command", began)
	for range 4 {
		watch("carol")
	}
	for range 3 {
		watch("alice")
		if who := wait(t, "room", ended); who != "carol" {
			t.Fatalf("%s's connection made room", who)
		}
	}
	// Nobody has more than a share now, but alice, whose next one is at her own cost.
	watch("bob")
	if who := wait(t, "room", ended); who != "alice" {
		t.Errorf("%s's connection made room", who)
	}
	if _, err := f.tryDial(gossh.PublicKeys(f.signers["bob"])); err == nil {
		t.Error("there was room for a seventh")
	}
	if _, err := busy.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Errorf("the connection with a command was closed: %v", err)
	}
}

// A push that git itself did not take was a push that went well in the audit log:
// no ref came to the hooks, and git's own exit status was 0.
func TestPushThatGitRefusesIsRecordedSo(t *testing.T) {
	t.Parallel()
	records := make(recorded, 10)
	f := start(t, func(f *fixture) { f.Server.Git.MaxObjects, f.Audit = 50, records })
	f.app("blog")
	for want, pack := range map[string]string{
		"the push brings 51 objects, more than the 50": packHead(51).String(),
		"git did not take the pack in":                 packHead(1).String() + "no object",
	} {
		f.raw("blog", "", strings.NewReader("0000"+pack))
		if e := wait(t, "the record", records); e.Result != audit.Denied || e.Status != 1 || !strings.HasPrefix(e.Reason, want) || len(e.Refs) != 0 {
			t.Errorf("%s: %+v", want, e)
		}
	}
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	if e := wait(t, "the record", records); e.Result != audit.OK || e.Reason != "" {
		t.Errorf("%+v", e)
	}
}

func TestLimitsAreWordedAsTheirKeys(t *testing.T) {
	for n, want := range map[int64]string{
		700: "700 bytes", 1 << 10: "1 kB", 200 << 10: "200 kB", 3 << 19: "1536 kB", 1 << 20: "1 MB", 100<<20 + 7: "100 MB", 1 << 30: "1 GB", 5 << 28: "1280 MB",
	} {
		if got := inBytes(n); got != want {
			t.Errorf("%d: %q, not %q", n, got, want)
		}
	}
}
