package deployer

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// DialApp connects to a unix socket that processes of the user listen at, "" for the
// server's own. What lies in an app's run directory is the app's: there may be a link
// to a socket that only root may connect to, in the place of its own. So whoever
// listens must be the user (SO_PEERCRED, unix(7)), before anything is written.
func DialApp(ctx context.Context, path, name string) (net.Conn, error) {
	uid := os.Geteuid()
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, err
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return nil, fmt.Errorf("user %q: %w", name, err)
		}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	peer, err := peerOf(conn.(*net.UnixConn))
	if err == nil && peer != uid {
		err = fmt.Errorf("%q is no socket of the app's: user number %d listens there", path, peer)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// peerOf is the user who listens at the other end of a connection.
func peerOf(conn *net.UnixConn) (uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("asking who listens: %w", credErr)
	}
	return int(cred.Uid), nil
}
