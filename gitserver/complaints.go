package gitserver

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// heard is a connection that remembers whether anything came from it.
type heard struct {
	net.Conn
	anything atomic.Bool
	first    func() // called at the first of it
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if n > 0 && !h.anything.Swap(true) && h.first != nil {
		h.first()
	}
	return n, err
}

// complaints looks in what git writes for the ways in which a program words that
// it met a limit, as long as it unpacks: before its first hook has spoken. What
// comes later are an app's own words.
type complaints struct {
	before *atomic.Bool

	mu   sync.Mutex // git has two streams
	tail []byte     // a word may come in two pieces
	// What was found.
	memory, cpu bool
	notTaken    bool // git says to the client that the pack could not be unpacked
}

func (c *complaints) Write(b []byte) (int, error) {
	if c.before.Load() {
		return len(b), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, b...)
	text := bytes.ToLower(c.tail)
	// die() of git's wrapper.c, its child's end by SIGXCPU or SIGKILL (run-command.c).
	c.memory = c.memory || bytes.Contains(text, []byte("out of memory")) || bytes.Contains(text, []byte("unable to create thread"))
	c.cpu = c.cpu || bytes.Contains(text, []byte("died of signal 9")) || bytes.Contains(text, []byte("died of signal 24"))
	// "unpack ok", or why not: gitprotocol-pack(5), "Report Status".
	if _, report, ok := bytes.Cut(text, []byte("unpack ")); ok && bytes.Contains(report, []byte("\n")) {
		c.notTaken = c.notTaken || !bytes.HasPrefix(report, []byte("ok\n"))
	}
	if n := len(c.tail) - 64; n > 0 {
		c.tail = append(c.tail[:0], c.tail[n:]...)
	}
	return len(b), nil
}

// exceeded is which limit git met while it unpacked, with a hint on further
// lines; "" if none.
func (l Limits) exceeded(c *complaints) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.memory:
		return fmt.Sprintf("git needs more memory to unpack the push than the %s that it gets here\nan object of it, or the chain of changes that one is made of, is too large: keep large files out of the repository, or have an admin raise [server] push_memory", inBytes(int64(l.memory())))
	case c.cpu:
		return fmt.Sprintf("git was ended while it unpacked the push: it may use the processor for %s\npush a part of the history first, or have an admin raise [server] push_cpu", time.Duration(l.cpu())*time.Second)
	}
	return ""
}

// refusedPack tells whether git has not taken a pack in, for whatever reason.
func (c *complaints) refusedPack() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notTaken
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
