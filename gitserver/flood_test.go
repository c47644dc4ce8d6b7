package gitserver

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// floods is how large the floods are: SCOTCH_SOAK=1 for those that were measured
// on the libraries without our limits.
func floods(short, long int) int {
	if os.Getenv("SCOTCH_SOAK") != "" {
		return long
	}
	return short
}

// underFlood starts a server, floods it, pushes to it while that lasts, and
// compares what is left in memory with what was there before. flood must return
// when stop is closed; flooded is to be called when the worst is there.
func underFlood(t *testing.T, change func(*fixture), flood func(f *fixture, flooded func(), stop <-chan struct{})) {
	f := start(t, func(f *fixture) {
		f.Commands = echo
		if change != nil {
			change(f)
		}
	})
	f.app("blog")
	push := func() {
		t.Helper()
		id := f.commit()
		f.git("bob", "push", f.url("blog"), "main").ok()
		if got := f.ref("blog", "refs/heads/main"); got != id {
			t.Errorf("main is %q, want %q", got, id)
		}
	}
	push() // what is made once is made
	f.dial("carol").Close()
	f.admits(t, 0)
	goroutines, heap := held()

	stop, flooded := make(chan struct{}), make(chan bool)
	var once sync.Once
	var over sync.WaitGroup
	over.Go(func() {
		defer once.Do(func() { close(flooded) })
		flood(f, func() { once.Do(func() { close(flooded) }) }, stop)
	})
	select {
	case <-flooded:
	case <-time.After(2 * time.Minute):
		t.Error("the flood does not get on")
	}
	push()
	close(stop)
	over.Wait()
	push()
	f.admits(t, 0)

	const most = 4 << 20 // bytes; the log of the flood is in it
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		g, h := held()
		if g <= goroutines && h <= heap+most {
			t.Logf("%d goroutines before and %d after; %d KB more of memory", goroutines, g, (int64(h)-int64(heap))>>10)
			return
		}
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before; %d bytes, %d before\n%s", g, goroutines, h, heap, buf[:runtime.Stack(buf, true)])
		}
	}
}

// held counts goroutines and bytes.
func held() (goroutines int, heap uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for one := range bytes.SplitSeq(buf, []byte("\n\n")) {
		// x/crypto's client may leave this one waiting when its connection ends.
		if !bytes.Contains(one, []byte("ssh.(*mux).openChannel")) {
			goroutines++
		}
	}
	return goroutines, m.HeapAlloc
}

// Measured on gliderlabs/ssh alone: 2,000 silent connections stay open.
func TestFloodOfIdleConnections(t *testing.T) {
	n := floods(300, 2000)
	underFlood(t, nil, func(f *fixture, flooded func(), stop <-chan struct{}) {
		var all []interface{ Close() error }
		defer func() {
			for _, nc := range all {
				nc.Close()
			}
		}()
		for i := 0; ; i++ {
			if i == n {
				flooded()
			}
			select {
			case <-stop:
				return
			default:
			}
			nc, err := f.connect(fmt.Sprintf("127.0.0.%d", 2+i%8))
			if err != nil {
				f.t.Errorf("connecting: %v", err)
				return
			}
			all = append(all, nc)
			if i%2 == 0 {
				fmt.Fprint(nc, "SSH-2.0-idle\r\n")
			}
			if len(all) > n { // as many as the flood has, and new ones all the time
				all[0].Close()
				all = all[1:]
				time.Sleep(time.Millisecond) // else the test floods itself: there are two processors
			}
		}
	})
}

// Each channel that is opened costs the server a goroutine until it is answered.
func TestFloodOfChannels(t *testing.T) {
	n := floods(1000, 10000)
	underFlood(t, nil, func(f *fixture, flooded func(), stop <-chan struct{}) {
		for opened := 0; ; opened += 2 * maxRefusals {
			if opened >= n {
				flooded()
			}
			select {
			case <-stop:
				return
			default:
			}
			c, err := f.tryDial(gossh.PublicKeys(f.signers["carol"]))
			if err != nil {
				f.t.Errorf("logging in: %v", err)
				return
			}
			for range 2 * maxRefusals {
				go c.OpenChannel("session", nil)
			}
			c.Wait()
			c.Close()
		}
	})
}

// Guessing: some of it is answered, then its address is kept out.
func TestFloodOfBadLogins(t *testing.T) {
	n := floods(100, 1000)
	underFlood(t, func(f *fixture) { f.Exempt = nil }, func(f *fixture, flooded func(), stop <-chan struct{}) {
		stranger := f.newKey("stranger")
		var g errgroup.Group
		g.SetLimit(8)
		defer g.Wait()
		for i := 0; ; i++ {
			if i == n {
				flooded()
			}
			select {
			case <-stop:
				return
			default:
			}
			g.Go(func() error {
				c, err := f.tryDialFrom(fmt.Sprintf("127.0.1.%d", 1+i%20), gossh.PublicKeys(stranger))
				if err == nil {
					c.Close()
					f.t.Error("a stranger's key is a login")
				}
				return nil
			})
			if i >= n {
				time.Sleep(5 * time.Millisecond) // see TestFloodOfIdleConnections
			}
		}
	})
}

// The server's log must not be what a flood fills the disk with.
func TestFloodIsFewLinesOfLog(t *testing.T) {
	f := start(t, func(f *fixture) { f.Exempt = nil })
	stranger := f.newKey("stranger")
	for f.penalties.left(newConnection(f.Server, fakeConn{addr: tcpAddr("127.0.0.2")}).network, time.Now()) == 0 {
		if c, err := f.tryDialFrom("127.0.0.2", gossh.PublicKeys(stranger)); err == nil {
			c.Close()
			t.Fatal("a login")
		}
	}
	before := strings.Count(f.log.String(), "\n")
	begin := time.Now()
	for range 200 {
		f.tryDialFrom("127.0.0.2", gossh.PublicKeys(stranger))
	}
	if lines := strings.Count(f.log.String(), "\n") - before; lines > 3+int(time.Since(begin)/time.Second) {
		t.Errorf("%d lines for 200 connections in %s", lines, time.Since(begin))
	}
}
