package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// echo is a CommandFunc that says who asks for what.
func echo(_ context.Context, who access.Identity, c Command) int {
	in, _ := io.ReadAll(c.Stdin)
	fmt.Fprintf(c.Stdout, "%s %s %q %q\n", who.Name, who.Role, c.Args, in)
	fmt.Fprintln(c.Stderr, "to stderr")
	return len(c.Args)
}

func TestCommands(t *testing.T) {
	f := start(t, func(f *fixture) { f.Commands = echo })
	f.ssh("alice", "list", "--json").exits(2).says(`alice admin ["list" "--json"] ""`).says("to stderr")
	f.ssh("bob", `env blog set 'A=it'\''s' "B=\$x y"`, "C=").exits(6).says(`bob push ["env" "blog" "set" "A=it's" "B=$x y" "C="] ""`)
	f.ssh("carol").exits(0).says(`carol read [] ""`)
	f.ssh("alice", "'unbalanced").exits(2).says("no second one")
	cmd := f.gitCommand("alice", "--version")
	cmd.Path, cmd.Args = mustLook(t, "ssh"), append([]string{"ssh"}, append(f.sshArgs("alice"), "x@127.0.0.1", "keys", "add", "bob")...)
	cmd.Dir = f.dir
	cmd.Stdin = strings.NewReader("a key\n")
	f.run(cmd).exits(3).says(`["keys" "add" "bob"] "a key\n"`)
}

func mustLook(t *testing.T, program string) string {
	t.Helper()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return filepath.Join(dir, program)
		}
	}
	t.Fatalf("no %s", program)
	return ""
}

func TestServeNeedsKeys(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Server{}).Serve(t.Context(), l); err == nil {
		t.Error("a server without keys serves")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is open")
	}
}

// A context of gliderlabs/ssh ends with the connection; with ssh's
// ControlMaster a `logs -f` that was interrupted would run on.
func TestContextEndsWithTheChannel(t *testing.T) {
	began, ended := make(chan bool), make(chan bool)
	f := start(t, func(f *fixture) {
		f.Commands = func(ctx context.Context, _ access.Identity, c Command) int {
			if c.Args[0] == "follow" {
				began <- true
				<-ctx.Done()
				ended <- true
			}
			return 0
		}
	})
	c := f.dial("alice")
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.Start("follow"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the command", began)
	sess.Close()
	wait(t, "the end of its context", ended)
	other, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Run("list"); err != nil {
		t.Errorf("the connection is gone too: %v", err)
	}
	// `ssh HOST logs -f | head`: the client can't write any more and says so.
	sess, err = c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.Start("follow"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the command", began)
	if _, err := sess.SendRequest("eow@openssh.com", false, nil); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of its context", ended)
}

// A panic in a handler of gliderlabs/ssh ends the whole program.
func TestPanicEndsOneSessionOnly(t *testing.T) {
	f := start(t, func(f *fixture) {
		f.Commands = func(_ context.Context, _ access.Identity, c Command) int {
			if c.Args[0] == "boom" {
				panic("a bug")
			}
			return 0
		}
	})
	f.ssh("alice", "boom").exits(1).says("an error inside the server")
	f.ssh("alice", "list").exits(0)
	if log := f.log.String(); !strings.Contains(log, "panic: a bug") || !strings.Contains(log, "server_test.go") {
		t.Errorf("log:\n%s", log)
	}
}

// gliderlabs/ssh has no login timeout.
func TestSilentConnectionsAreClosed(t *testing.T) {
	f := start(t, func(f *fixture) { f.LoginTimeout = 100 * time.Millisecond })
	for _, talk := range []func(net.Conn){
		func(net.Conn) {},
		func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-silent\r\n") },
	} {
		c, err := net.Dial("tcp", "127.0.0.1:"+f.port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		talk(c)
		expectEnd(t, c)
	}
	// Logged in, and silent then.
	c := f.dial("alice")
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	wait(t, "the end of a connection without a command", ended)
}

func expectEnd(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection stays open")
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	f := start(t, func(f *fixture) {
		f.IdleTimeout = 50 * time.Millisecond
		f.Commands = func(context.Context, access.Identity, Command) int { return 0 }
	})
	c := f.dial("alice")
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.Run("list"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	wait(t, "the end of an idle connection", ended)
}

// A laptop that was closed leaves a connection that never ends by itself.
func TestDeadClientIsGivenUp(t *testing.T) {
	began, ended := make(chan bool), make(chan bool)
	f := start(t, func(f *fixture) {
		f.KeepAlive = 50 * time.Millisecond
		f.Commands = func(ctx context.Context, _ access.Identity, c Command) int {
			began <- true
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
				if c.Args[0] == "dead" {
					t.Error("a dead client is waited for")
				}
			}
			ended <- true
			return 0
		}
	})
	// The real client answers, so a silent command is left alone.
	go f.ssh("alice", "silent")
	wait(t, "the command", began)
	wait(t, "its end", ended)

	nc, err := net.Dial("tcp", "127.0.0.1:"+f.port)
	if err != nil {
		t.Fatal(err)
	}
	dead := &deafConn{Conn: nc, deaf: make(chan struct{})}
	conn, chans, reqs, err := gossh.NewClientConn(dead, "", &gossh.ClientConfig{
		Auth: []gossh.AuthMethod{gossh.PublicKeys(f.signers["alice"])}, HostKeyCallback: gossh.FixedHostKey(f.HostKey.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := gossh.NewClient(conn, chans, reqs)
	defer c.Close()
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.Start("dead"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the command", began)
	close(dead.deaf)
	wait(t, "its end", ended)
}

// A command that says nothing for minutes outlives the idle limit, and what lies
// between it and its client (NAT, a gateway that ends ssh itself) sees signs of
// life on the command's own channel.
func TestSilentCommandLives(t *testing.T) {
	finish := make(chan bool)
	f := start(t, func(f *fixture) {
		f.KeepAlive, f.IdleTimeout = 250*time.Millisecond, 20*time.Millisecond
		f.Commands = func(ctx context.Context, _ access.Identity, _ Command) int {
			select {
			case <-finish:
				return 7
			case <-ctx.Done():
				return 1
			}
		}
	})
	ch, reqs, err := f.dial("alice").OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.SendRequest("exec", true, gossh.Marshal(struct{ S string }{"silent"})); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		if r := wait(t, "a sign of life on the channel", reqs); r == nil || r.Type != "keepalive@openssh.com" {
			t.Fatalf("%d: %+v", n, r)
		}
	}
	close(finish)
	for r := range reqs {
		if r.Type == "exit-status" && gossh.Unmarshal(r.Payload, &struct{ N uint32 }{}) == nil && r.Payload[3] == 7 {
			return
		}
	}
	t.Error("the command did not end by itself")
}

// deafConn stops sending.
type deafConn struct {
	net.Conn
	deaf chan struct{}
}

func (d *deafConn) Write(p []byte) (int, error) {
	select {
	case <-d.deaf:
		return len(p), nil
	default:
		return d.Conn.Write(p)
	}
}

func TestCaps(t *testing.T) {
	block := make(chan bool)
	f := start(t, func(f *fixture) {
		f.MaxPerAddress, f.MaxSessions = 2, 2
		f.Commands = func(ctx context.Context, _ access.Identity, _ Command) int {
			select {
			case <-block:
			case <-ctx.Done():
			}
			return 0
		}
	})
	c := f.dial("alice")
	var sessions []*gossh.Session
	for range 2 {
		sess, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := sess.Start("wait"); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, sess)
	}
	if _, err := c.NewSession(); err == nil || !strings.Contains(err.Error(), "too many sessions") {
		t.Errorf("a third session: %v", err)
	}
	f.dial("bob")
	if _, err := f.tryDial(gossh.PublicKeys(f.signers["bob"])); err == nil {
		t.Error("a third connection")
	}
	close(block)
	for _, sess := range sessions {
		if err := sess.Wait(); err != nil {
			t.Error(err)
		}
	}
	c.Close()
	// There is room again as soon as the server has seen the end of c.
	for deadline := time.Now().Add(10 * time.Second); ; {
		again, err := f.tryDial(gossh.PublicKeys(f.signers["bob"]))
		if err == nil {
			again.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room again: %v", err)
		}
	}
}

func TestShutdownWaitsForCommands(t *testing.T) {
	began, finish := make(chan bool), make(chan bool)
	f := start(t, func(f *fixture) {
		f.Commands = func(_ context.Context, _ access.Identity, c Command) int {
			began <- true
			<-finish
			fmt.Fprintln(c.Stdout, "done in peace")
			return 7
		}
	})
	idle := f.dial("alice")
	result := make(chan result, 1)
	go func() { result <- f.ssh("alice", "work") }()
	wait(t, "the command", began)
	down := make(chan error, 1)
	go func() { down <- f.Shutdown(t.Context()) }()
	idle.Wait()
	finish <- true
	r := wait(t, "the client", result)
	r.exits(7).says("done in peace")
	if err := wait(t, "Shutdown", down); err != nil {
		t.Error(err)
	}
	if _, err := f.tryDial(gossh.PublicKeys(f.signers["alice"])); err == nil {
		t.Error("accepts after Shutdown")
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("server", func(t *testing.T) {
		f := start(t, func(f *fixture) { f.Commands = echo })
		f.app("blog")
		f.commit()
		f.git("alice", "push", f.url("blog"), "main").ok()
		f.ssh("alice", "list").exits(1)
		c := f.dial("alice")
		for range 10 {
			sess, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			defer sess.Close()
		}
	})
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// A client that owes the next word does not hold up the server's stop, and is told.
func TestShutdownEndsWhoIsIdle(t *testing.T) {
	f := start(t, func(f *fixture) {
		f.StopGrace = 50 * time.Millisecond
		f.Commands = func(_ context.Context, _ access.Identity, c Command) int {
			fmt.Fprintln(c.Stdout, "up")
			if _, err := io.ReadAll(c.Stdin); err == nil {
				t.Error("an input that was cut off ends as if it were whole")
			}
			return 0
		}
	})
	f.app("blog")
	c := f.dial("alice")
	var said []*syncBuffer
	for _, command := range []string{"git-upload-pack blog", "git-receive-pack blog", "env blog set"} {
		sess, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		in, err := sess.StdinPipe() // which nobody writes to
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out := &syncBuffer{}
		sess.Stdout, sess.Stderr = out, out
		if err := sess.Start(command); err != nil {
			t.Fatal(err)
		}
		if command == "env blog set" {
			out.has(t, "up", 1)
		} else {
			out.has(t, "0000", 1)
		}
		said = append(said, out)
	}
	down := make(chan error, 1)
	go func() { down <- f.Shutdown(t.Context()) }()
	if err := wait(t, "Shutdown", down); err != nil {
		t.Error(err)
	}
	for _, out := range said {
		out.has(t, "the server is stopping", 1)
	}
}

// A push whose pack is in is waited for.
func TestShutdownWaitsForPushes(t *testing.T) {
	began, finish := make(chan bool), make(chan bool)
	f := start(t, func(f *fixture) { f.StopGrace = time.Millisecond })
	f.app("blog")
	id := f.commit()
	f.pushes.answer = func(context.Context, *received, string) string {
		began <- true
		<-finish
		return "say done in peace\nstore"
	}
	result := make(chan result, 1)
	go func() { result <- f.run(f.gitCommand("alice", "push", f.url("blog"), "main")) }()
	wait(t, "the push", began)
	down := make(chan error, 1)
	go func() { down <- f.Shutdown(t.Context()) }()
	<-f.stopGraceOver()
	finish <- true
	r := wait(t, "the client", result)
	r.ok().says("done in peace")
	if err := wait(t, "Shutdown", down); err != nil {
		t.Error(err)
	}
	if got := f.ref("blog", "refs/heads/main"); got != id {
		t.Errorf("main is %q, want %q", got, id)
	}
}

func (f *fixture) stopGraceOver() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastCall()
}

// A key that may read could hold a process of git for each session, for good.
func TestSilentFetchEnds(t *testing.T) {
	f := start(t, func(f *fixture) { f.IdleTimeout = 200 * time.Millisecond })
	f.app("blog")
	sess, err := f.dial("carol").NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, err := sess.StdinPipe() // which nobody writes to
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	ended := make(chan string, 1)
	go func() {
		out, _ := sess.CombinedOutput("git-upload-pack blog")
		ended <- string(out)
	}()
	if said := wait(t, "the fetch", ended); !strings.Contains(said, errSilentFetch.Error()) {
		t.Errorf("it ended with %q", said)
	}
}
