package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

func TestPenalties(t *testing.T) {
	home, other := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	now := time.Now()
	const longest = 10 * time.Minute
	var p penalties
	for i := range 2 {
		if p.add(home, costOfKeys, longest, now) || p.left(home, now) != 0 {
			t.Errorf("kept out after %d mistakes", i+1)
		}
	}
	if !p.add(home, costOfKeys, longest, now) || p.left(home, now) != 15*time.Second || p.left(other, now) != 0 {
		t.Errorf("%s left after three mistakes, %s for another", p.left(home, now), p.left(other, now))
	}
	if p.add(home, costOfKeys, longest, now) {
		t.Error("told twice")
	}
	// What has been paid is paid, and to the end.
	if now = now.Add(19 * time.Second); p.left(home, now) != time.Second {
		t.Errorf("%s left", p.left(home, now))
	}
	if now = now.Add(time.Second); p.left(home, now) != 0 {
		t.Errorf("%s left", p.left(home, now))
	}
	if p.add(home, costOfKeys, longest, now) || p.left(home, now) != 0 {
		t.Error("the old ones count again")
	}
	// Nobody is locked out for ever.
	for range 10000 {
		p.add(home, costOfAttack, longest, now)
	}
	if left := p.left(home, now); left != longest {
		t.Errorf("%s left after ten thousand attacks", left)
	}
	p.forgive(home)
	if left := p.left(home, now); left != 0 {
		t.Errorf("%s left after a login", left)
	}
	// A bound that is less than what counts is one all the same.
	if !p.add(other, time.Minute, time.Second, now) || p.left(other, now) != time.Second {
		t.Errorf("%s left of one second", p.left(other, now))
	}
	// The table does not grow without bound, and has room again later.
	for i := range 2 * penaltyTable {
		p.add(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), time.Minute, longest, now)
	}
	if len(p.until) > penaltyTable {
		t.Errorf("%d networks are remembered", len(p.until))
	}
	now = now.Add(2 * time.Minute)
	if p.add(home, time.Minute, longest, now); p.left(home, now) == 0 || len(p.until) != 1 {
		t.Errorf("%d networks are remembered, %s left", len(p.until), p.left(home, now))
	}
}

// Whoever has one IPv6 address has 2^64 of them.
func TestNetworkOfAnAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:22":            "192.0.2.1/32",
		"[::ffff:192.0.2.1]:22":   "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:22":  "2001:db8:1:2::/64",
		"[fe80::1%lo]:22":         "fe80::/64",
		"[2001:db8:1:2:ff::1]:22": "2001:db8:1:2::/64",
	} {
		ap := netip.MustParseAddrPort(addr)
		if got := newConnection(&Server{}, fakeConn{addr: net.TCPAddrFromAddrPort(ap)}).network; got.String() != want {
			t.Errorf("%s counts for %s, want %s", addr, got, want)
		}
	}
}

type fakeConn struct {
	net.Conn
	addr net.Addr
}

func tcpAddr(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }

func (f fakeConn) RemoteAddr() net.Addr { return f.addr }

// Guessing keys, holding connections and the like keep an address out, for a
// while, and none but it.
func TestAddressThatMisbehavesIsKeptOut(t *testing.T) {
	t.Parallel()
	const relay = "127.0.0.9"
	f := start(t, func(f *fixture) {
		f.Commands = echo
		f.LongestPenalty = time.Second
		f.Exempt = []netip.Prefix{netip.MustParsePrefix(relay + "/32")}
	})
	stranger := f.newKey("stranger")
	bad := func(from string) error {
		c, err := f.tryDialFrom(from, gossh.PublicKeys(stranger))
		if err == nil {
			c.Close()
			t.Fatal("a stranger's key is a login")
		}
		return err
	}
	good := func(from string) error {
		c, err := f.tryDialFrom(from, gossh.PublicKeys(f.signers["bob"]))
		if err == nil {
			c.Close()
		}
		return err
	}
	begin := time.Now()
	bad("127.0.0.2") // longer than all that may be: it counts at once
	f.log.has(t, "127.0.0.2/32 is kept out for a while, 1s at most: keys that are not let in", 1)
	if err := good("127.0.0.2"); err == nil && time.Since(begin) < time.Second {
		t.Error("let in from an address that is kept out")
	}
	nc, err := f.connect("127.0.0.2")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	if line, _ := io.ReadAll(nc); !strings.HasPrefix(string(line), "scotch: 127.0.0.2/32 is kept out for ") && time.Since(begin) < time.Second {
		t.Errorf("told %q", line)
	}
	if err := good("127.0.0.1"); err != nil {
		t.Errorf("another address: %v", err)
	}
	for range 20 {
		bad(relay)
	}
	if err := good(relay); err != nil {
		t.Errorf("an address that is exempt: %v", err)
	}
	// It ends by itself, and being refused meanwhile did not prolong it.
	for err := good("127.0.0.2"); err != nil; err = good("127.0.0.2") {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("still kept out: %v", err)
		}
		time.Sleep(50 * time.Millisecond) // the clock is what is waited for
	}
}

// In an office behind one address, somebody's script with an old key would lock
// out all its people.
func TestLoginTakesBackWhatItsAddressHasToPay(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Exempt = nil })
	stranger := f.newKey("stranger")
	for i := range 10 {
		if i%3 < 2 {
			if _, err := f.tryDial(gossh.PublicKeys(stranger)); err == nil {
				t.Fatal("a login")
			}
			f.log.has(t, "no login", i-i/3+1)
			continue
		}
		c, err := f.tryDial(gossh.PublicKeys(f.signers["bob"]))
		if err != nil {
			t.Fatalf("locked out: %v", err)
		}
		c.Close()
	}
}

// MaxStartups' trap: whoever holds all the places of those who have not logged
// in keeps everybody out. Here the flood makes room.
func TestSilentConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*fixture){
		"for a login":  func(f *fixture) { f.MaxLogins = 10 },
		"in all":       func(f *fixture) { f.MaxConnections = 10 },
		"of a network": func(f *fixture) { f.MaxPerAddress = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, change)
			from := "127.0.0.2"
			if name == "of a network" {
				from = "127.0.0.1"
			}
			idle := f.flood(40, from)
			f.admits(t, 10)
			c := f.dial("bob") // from 127.0.0.1
			if _, _, err := c.SendRequest("x", true, nil); err != nil {
				t.Error(err)
			}
			open := 0
			for _, nc := range idle {
				nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				if _, err := io.Copy(io.Discard, nc); isTimeout(err) {
					open++
				}
			}
			if open > 10 {
				t.Errorf("%d silent connections are open", open)
			}
		})
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// flood opens connections that stay silent. They are closed with the test.
func (f *fixture) flood(n int, from ...string) []net.Conn {
	f.t.Helper()
	var all []net.Conn
	f.t.Cleanup(func() {
		for _, nc := range all {
			nc.Close()
		}
	})
	for i := range n {
		nc, err := f.connect(from[i%len(from)])
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, nc)
	}
	return all
}

// admits waits until at most n connections are counted.
func (f *fixture) admits(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		f.Server.mu.Lock()
		got := len(f.Server.admission.conns)
		f.Server.mu.Unlock()
		if got <= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are counted, want %d", got, n)
		}
	}
}

// It begins before the places are all taken, as in sshd's "start:rate:full".
func TestDropsBeginEarlyAndHitTheCrowd(t *testing.T) {
	f := start(t, func(f *fixture) { f.MaxLogins, f.MaxPerAddress = 100, 1000 })
	few := f.flood(5, "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7")
	f.flood(300, "127.0.0.2")
	// All 305 have been looked at when a later one is served.
	f.dial("bob").Close()
	f.Server.mu.Lock()
	counted := len(f.Server.admission.logins)
	perNetwork := fmt.Sprint(f.Server.admission.perNetwork)
	f.Server.mu.Unlock()
	if counted > 100 || counted < 30 {
		t.Errorf("%d are left", counted)
	}
	for i, nc := range few {
		nc.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := io.Copy(io.Discard, nc); !isTimeout(err) {
			t.Errorf("the single connection of 127.0.0.%d was dropped (%v): %s", i+3, err, perNetwork)
		}
	}
}

// gliderlabs begins a goroutine for each channel that a client opens, and they
// all wait when it reads no answers.
func TestFloodOfChannelsEndsItsConnection(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Commands = echo; f.MaxSessions = 2 })
	c := f.dial("carol")
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	var refused atomic.Int32
	for range 10 * maxRefusals {
		// Not waited for: x/crypto's client may leave one waiting when its connection ends.
		go func() {
			_, reqs, err := c.OpenChannel("session", nil)
			var answer *gossh.OpenChannelError
			if errors.As(err, &answer) {
				refused.Add(1)
			} else if err == nil {
				go gossh.DiscardRequests(reqs)
			}
		}()
	}
	wait(t, "the end of the connection", ended)
	if n := refused.Load(); n > maxRefusals {
		t.Errorf("%d channels were refused", n)
	}
	f.log.has(t, "closed: a flood of channels", 1)
	f.ssh("carol", "list").exits(1).says("carol read")
}

// Commands come one after the other on a connection that ssh keeps (ControlMaster).
func TestManyCommandsOnOneConnectionAreNoFlood(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Commands = func(context.Context, access.Identity, Command) int { return 0 } })
	c := f.dial("carol")
	for range 2 * maxRefusals {
		sess, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := sess.Run("list"); err != nil {
			t.Fatal(err)
		}
	}
}
