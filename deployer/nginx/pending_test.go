package nginx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Drain is over when nobody is served and nobody waits: a connection in the
// backlog is a request that a client has sent.
func TestPending(t *testing.T) {
	w := newWorld(t)
	run := filepath.Join(w.dir, "one", "000001", "run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "uwsgi.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.current("one", "000001")
	w.publish(w.route("one", "/", "shop.example.org"))
	pending := func() int {
		t.Helper()
		n, err := w.n.Pending(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := pending(); n != 0 {
		t.Errorf("with no request %d are pending", n)
	}
	send := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.example.org\r\nConnection: close\r\n\r\n")
		return c
	}
	first := send()
	defer first.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	// What is left unread when the app closes would reset the connection.
	size := make([]byte, 4)
	if _, err := io.ReadFull(served, size); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, served, int64(binary.LittleEndian.Uint16(size[1:]))); err != nil {
		t.Fatal(err)
	}
	if n := pending(); n != 1 {
		t.Errorf("with one request under way %d are pending", n)
	}
	second := send()
	defer second.Close()
	w.wait("a request in the backlog", func() bool { return pending() == 2 })

	fmt.Fprint(served, "HTTP/1.1 200 OK\r\n\r\nhello")
	served.Close()
	if text, _ := io.ReadAll(first); !bytes.Contains(text, []byte("hello")) {
		t.Errorf("the answer is %q", text)
	}
	w.wait("the first request's end", func() bool { return pending() == 1 })
	served, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
	w.wait("the second one's end", func() bool { return pending() == 0 })
}

func TestCount(t *testing.T) {
	table := `Num       RefCount Protocol Flags    Type St Inode Path
00000000a51bba0d: 00000002 00000000 00010000 0001 01 15235 /srv/run/uwsgi.sock
00000000034e96cf: 00000003 00000000 00000000 0001 02     0 /srv/run/uwsgi.sock
0000000053400450: 00000003 00000000 00000000 0001 03 15962 /srv/run/uwsgi.sock
0000000079f9d094: 00000003 00000000 00000000 0001 03 15964 /srv/run/uwsgi.sock.old
0000000079f9d095: 00000003 00000000 00000000 0001 03 15965
0000000000000000: 00000003 00000000 00000000 0001 03 15966 /srv/run/uwsgi.sock
`
	seen := map[string]bool{}
	if n, err := count(strings.NewReader(table), "/srv/run/uwsgi.sock", seen); err != nil || n != 3 {
		t.Errorf("it counts %d, %v; want 3", n, err)
	}
	if n, err := count(strings.NewReader(table), "/srv/run/uwsgi.sock", seen); err != nil || n != 1 {
		t.Errorf("the same table again counts %d, %v; want the one without a number", n, err)
	}
}
