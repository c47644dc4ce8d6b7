package nginx

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// Pending counts the connections to a unix socket that an app has still to
// answer: those it works on and those that wait to be accepted. socket is the
// path that the app bound, not one through the link current.
//
// The kernel lists a connection in the network namespace of the one who
// connected, so nginx's own is read, and this process's where it differs. The
// end of a connection that belongs to the app has the path of its listener.
func (n *NGINX) Pending(ctx context.Context, socket string) (int, error) {
	tables := []string{"/proc/self/net/unix"}
	if pid := n.master(); pid != 0 {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		ours, err2 := os.Readlink("/proc/self/ns/net")
		if err != nil || err2 != nil || ours != theirs {
			tables = append(tables, fmt.Sprintf("/proc/%d/net/unix", pid))
		}
	}
	pending := 0
	seen := make(map[string]bool)
	for i, path := range tables {
		if err := ctx.Err(); err != nil {
			return 0, context.Cause(ctx)
		}
		f, err := os.Open(path)
		if err != nil {
			if i > 0 {
				continue // nginx has gone, and what it had with it
			}
			return 0, fmt.Errorf("counting the requests under way: %w", err)
		}
		c, err := count(f, socket, seen)
		f.Close()
		if err != nil {
			return 0, fmt.Errorf("counting the requests under way: reading %q: %w", path, err)
		}
		pending += c
	}
	return pending, nil
}

// States of a socket in /proc/net/unix (socket_state in linux/net.h).
const (
	connecting = "02" // in the backlog: nobody has accepted it
	connected  = "03"
)

// count reads a table of /proc/net/unix:
//
//	Num RefCount Protocol Flags Type St Inode Path
//
// A line that is in seen already was counted before: tables of one namespace
// read twice. Num is the socket's address in the kernel, or a hash of it, and
// zeros for whoever may not see it: then it says nothing.
func count(r io.Reader, socket string, seen map[string]bool) (int, error) {
	n := 0
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[7] != socket || f[5] != connecting && f[5] != connected {
			continue
		}
		if strings.Trim(f[0], "0:") != "" {
			if seen[f[0]] {
				continue
			}
			seen[f[0]] = true
		}
		n++
	}
	return n, lines.Err()
}
