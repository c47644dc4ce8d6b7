package host

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// door is a port that the site needs.
type door struct {
	what, key string
	name      string // of the program that listens there
	port      int
	public    bool // reached from outside
}

func (m *Machine) doors() []door {
	var doors []door
	if host, port, err := net.SplitHostPort(m.Site.Server.Listen); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			doors = append(doors, door{"ssh", "[server] listen", "scotch", n, !loopback(host)})
		}
	}
	listen, _ := m.Site.Get("nginx", "listen")
	for _, address := range strings.FieldsFunc(listen, func(r rune) bool { return strings.ContainsRune(" ,\t\n", r) }) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			host, port = "", address
		}
		if n, err := strconv.Atoi(port); err == nil {
			doors = append(doors, door{"http", "[nginx] listen", "nginx", n, !loopback(host)})
		}
	}
	return doors
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// listener is a process that listens at a port.
type listener struct {
	name string // "nginx", "" where it can't be found out
	pid  int
}

func (l listener) String() string {
	if l.pid == 0 {
		return "another program"
	}
	return fmt.Sprintf("%s (process %d)", l.name, l.pid)
}

// listeners finds who listens at a TCP port, on any address, by the tables of
// the kernel (proc_net_tcp.rst in its documentation).
func listeners(port int) []listener {
	const listening = "0A" // TCP_LISTEN
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return nil
	}
	names := map[string]bool{}
	var found []listener
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || !inodes[to] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		comm, _ := os.ReadFile(dir + "/comm")
		name := strings.TrimSpace(string(comm))
		if !names[name] {
			names[name] = true
			found = append(found, listener{name, pid})
		}
	}
	if len(found) == 0 {
		found = []listener{{}}
	}
	return found
}
