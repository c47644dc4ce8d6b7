package uwsgi

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scotch/deployer"
)

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve answers each request on a socket with the same bytes.
func serve(t *testing.T, answer string, then func(net.Conn)) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 4)
			io.ReadFull(c, head)
			io.CopyN(io.Discard, c, int64(binary.LittleEndian.Uint16(head[1:3])))
			io.WriteString(c, answer)
			if then != nil {
				then(c)
			}
			c.Close()
		}
	}()
	return socket
}

func TestProbeAnswers(t *testing.T) {
	u := plain(t, nil)
	ok := deployer.ProbeRequest{Path: "/", Host: "blog.example.org", Scheme: "http"}

	if _, err := u.Probe(t.Context(), serve(t, "", nil), ok); !errors.Is(err, deployer.ErrEmptyReply) {
		t.Errorf("an empty reply gives %v", err)
	}
	if _, err := u.Probe(t.Context(), serve(t, "garbage\x1b[31m", nil), ok); err == nil || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("an answer that is no HTTP gives %v", err)
	}
	for line, want := range map[string]int{"HTTP/1.1 200 OK": 200, "HTTP/1.0 302 Found": 302, "HTTP/1.1 503": 503} {
		if got, err := u.Probe(t.Context(), serve(t, line+"\r\n\r\n", nil), ok); err != nil || got != want {
			t.Errorf("%q gives %d, %v", line, got, err)
		}
	}
	if _, err := u.Probe(t.Context(), filepath.Join(shortDir(t), "none"), ok); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a socket: %v", err)
	}

	// A silent app ends with the context, and so does a body without an end.
	hang := func(c net.Conn) { io.Copy(io.Discard, c) }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := u.Probe(ctx, serve(t, "", hang), ok); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent app gives %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got, err := u.Probe(ctx, serve(t, "HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n", hang), ok); err != nil || got != 200 {
		t.Errorf("a stream gives %d, %v", got, err)
	}
}

func TestProbeRefuses(t *testing.T) {
	for _, r := range []deployer.ProbeRequest{
		{Path: "no/slash"},
		{Path: "/%zz"},
		{Path: "/%00"},
		{Path: "/x%0d%0aSET%20x%201%0d%0a"},
		{Path: "/other/", Prefix: "/shop"},
		{Path: "/" + strings.Repeat("x", 40000)},
		{Path: "/?" + strings.Repeat("x", 40000)},
	} {
		if p, err := request(r); err == nil {
			t.Errorf("%.60q makes a packet of %d bytes", r.Path, len(p))
		}
	}
}

// An app that answers with a line that never ends filled the server's memory until
// the health request was given up.
func TestProbeOfALineWithoutAnEnd(t *testing.T) {
	sent := make(chan int, 1)
	socket := serve(t, "HTTP/1.1 ", func(c net.Conn) {
		n, chunk := 0, []byte(strings.Repeat("x", 64<<10))
		for n < 256<<20 {
			m, err := c.Write(chunk)
			if n += m; err != nil {
				break
			}
		}
		sent <- n
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	plain(t, nil).Probe(ctx, socket, deployer.ProbeRequest{Path: "/", Host: "blog.example.org", Scheme: "http"})
	if n := <-sent; n > 4<<20 {
		t.Errorf("it took %d MB", n>>20)
	}
}
