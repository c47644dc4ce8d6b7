package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"syscall"
	"time"
)

// peer is OpenSSH's sshd with stock git, for the same key, on a port of its own.
type peer struct {
	w    *world
	cmd  *exec.Cmd
	port int
	user string
	done chan struct{}
	// made is /run/sshd where it was missing.
	made string
}

var errNoPeer = errors.New("there is no sshd to compare with (openssh-server)")

// startPeer starts sshd with a configuration and a host key of its own. It is
// errNoPeer where none is installed or it cannot run here.
func (w *world) startPeer(ctx context.Context) (*peer, error) {
	program := "/usr/sbin/sshd"
	if !executable(program) {
		return nil, errNoPeer
	}
	made := ""
	if os.Getuid() == 0 {
		// sshd(8) of root wants this directory, which its service makes.
		if err := os.Mkdir("/run/sshd", 0o755); err == nil {
			made = "/run/sshd"
		}
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(w.home, "sshd")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := w.run(ctx, dir, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "host")); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`ListenAddress 127.0.0.1:%d
HostKey %s/host
AuthorizedKeysFile %s.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PidFile none
UseDNS no
PrintMotd no
SetEnv GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
`, port, dir, w.key)
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, "-D", "-e", "-f", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peer{w: w, cmd: cmd, port: port, user: me.Username, done: make(chan struct{}), made: made}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	for range 500 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
			return p, nil
		}
		select {
		case <-p.done:
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%w: it ended: %s", errNoPeer, lastLines(string(said), 3))
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.close()
	return nil, fmt.Errorf("%w: it does not listen", errNoPeer)
}

func (p *peer) close() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	<-p.done
	if p.made != "" {
		os.Remove(p.made)
	}
}

// repository makes a bare repository and returns its path and URL.
func (p *peer) repository(ctx context.Context, name string) (dir, url string, err error) {
	dir = filepath.Join(p.w.home, "peer", name+".git")
	if _, err := p.w.run(ctx, p.w.home, "git", "init", "-q", "--bare", dir); err != nil {
		return "", "", err
	}
	// Housekeeping in the middle of a measurement would be the peer's loss.
	_, err = p.w.run(ctx, dir, "git", "config", "receive.autogc", "false")
	return dir, fmt.Sprintf("ssh://%s@127.0.0.1:%d%s", p.user, p.port, dir), err
}
