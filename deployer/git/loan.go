package git

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"scotch/config"
	"scotch/deployer"
)

// loan lends an app's deploy key to the processes of one user, for as long as a
// fetch or a build takes. They never see the private key: it stays in the
// server, which signs for them as an agent (ssh-agent(1)). Its directory holds
// the agent's socket, the public key and the pinned host keys, to which ssh adds
// those that it meets for the first time.
type loan struct {
	g      *Git
	app    string
	dir    string
	hasKey bool
	asked  atomic.Bool // the agent was spoken to

	listener *net.UnixListener
	serving  sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool
	ended    bool
}

// Lend implements deployer.DeployKeys.
func (g *Git) Lend(app, name string) (*deployer.KeyLoan, error) {
	l, err := g.lend(app, name)
	if l == nil || err != nil {
		return nil, err
	}
	return &deployer.KeyLoan{Dir: l.dir, SSHCommand: l.sshCommand("IdentityAgent="+l.path("agent"), "IdentitiesOnly=no"), Asked: l.asked.Load, End: l.end}, nil
}

// lend makes a loan for a user, "" for the server's own. The caller ends it.
// It is nil where the server keeps no keys.
func (g *Git) lend(app, name string) (_ *loan, err error) {
	if g.o.Keys == "" {
		return nil, nil
	}
	if err := config.ValidName(app); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("lending the deploy key of %q: %w", app, err)
		}
	}()
	var private ed25519.PrivateKey
	g.keyMu.Lock()
	private, public, err := g.deployKey(app)
	pins, pinsErr := g.pins(app)
	g.keyMu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if pinsErr != nil {
		return nil, pinsErr
	}
	if err := os.MkdirAll(g.o.Run, 0o711); err != nil {
		return nil, err
	}
	l := &loan{g: g, app: app, hasKey: private != nil, conns: map[net.Conn]bool{}}
	if l.dir, err = os.MkdirTemp(g.o.Run, loanPrefix(app)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	for file, data := range map[string][]byte{"key.pub": []byte(public + "\n"), pinsName: pins} {
		if err := os.WriteFile(l.path(file), data, 0o600); err != nil {
			return nil, err
		}
	}
	if l.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: l.path("agent"), Net: "unix"}); err != nil {
		return nil, err
	}
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, err
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		// The directory last: from then on its files are that user's to change.
		for _, p := range []string{l.path("key.pub"), l.path(pinsName), l.path("agent"), l.dir} {
			if err := os.Lchown(p, uid, gid); err != nil {
				return nil, err
			}
		}
	}
	keys := agent.NewKeyring()
	if l.hasKey {
		if err := keys.Add(agent.AddedKey{PrivateKey: private, Comment: keyComment(app)}); err != nil {
			return nil, err
		}
	}
	l.serving.Go(func() { l.serve(&lender{keys, &l.asked}) })
	return l, nil
}

func (l *loan) path(name string) string { return filepath.Join(l.dir, name) }

func (l *loan) serve(keys agent.Agent) {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		if l.ended || len(l.conns) >= maxAgentConns {
			c.Close()
		} else {
			l.conns[c] = true
			l.serving.Go(func() {
				agent.ServeAgent(keys, &lentConn{Conn: c}) // its error is how the client left
				l.mu.Lock()
				delete(l.conns, c)
				l.mu.Unlock()
				c.Close()
			})
		}
		l.mu.Unlock()
	}
}

// maxAgentConns bounds what a hostile build can have open.
const maxAgentConns = 64

// lentConn ends a connection whose messages are too long: ServeAgent makes room for
// each as long as it claims to be. Each begins with its length in four bytes
// (draft-miller-ssh-agent, 3).
type lentConn struct {
	net.Conn
	head []byte
	left uint32 // of the message
}

// maxAgentMessage is far above what there is to sign, bytes.
const maxAgentMessage = 256 << 10

func (c *lentConn) Read(p []byte) (int, error) {
	if c.left > 0 {
		n, err := c.Conn.Read(p[:min(len(p), int(c.left))])
		c.left -= uint32(n)
		return n, err
	}
	n, err := c.Conn.Read(p[:min(len(p), 4-len(c.head))])
	if c.head = append(c.head, p[:n]...); len(c.head) == 4 {
		c.left, c.head = binary.BigEndian.Uint32(c.head), c.head[:0]
		if c.left > maxAgentMessage {
			return 0, errors.New("the message is too long")
		}
	}
	return n, err
}

// end takes the key back: nobody can use it when it returns. It pins the host
// keys that were met, and says which.
func (l *loan) end() (pinned []string, err error) {
	found, err := readPins(l.dir)
	if err == nil {
		pinned, err = l.g.pin(l.app, found)
	}
	return pinned, errors.Join(err, l.close())
}

func (l *loan) close() error {
	l.mu.Lock()
	l.ended = true
	if l.listener != nil {
		l.listener.Close()
	}
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.serving.Wait()
	return deployer.RemoveTree(l.dir)
}

// loanPrefix begins the names of an app's loans. An app's own name could be too
// long: the path of the agent's socket has at most 107 bytes (unix(7)).
func loanPrefix(app string) string {
	sum := sha256.Sum256([]byte(app))
	return hex.EncodeToString(sum[:4]) + "."
}

// endLoans removes what the loans of a killed server left.
func (g *Git) endLoans(app string) error {
	if g.o.Keys == "" || config.ValidName(app) != nil {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(g.o.Run, loanPrefix(app)+"*"))
	errs := []error{err}
	for _, dir := range left {
		errs = append(errs, deployer.RemoveTree(dir))
	}
	return errors.Join(errs...)
}

// readPins reads what may have been put in the file's place: it follows no link
// out of the directory and waits for no pipe.
func readPins(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(pinsName, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil // it is gone: nothing to pin
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxPins))
}

// sshCommand is the ssh for GIT_SSH_COMMAND (git(1)), with options beside those
// for host keys. Paths of scotch's own hold nothing that a shell or ssh would
// expand. ~ is what the user database says, whatever HOME is, and need not exist.
func (l *loan) sshCommand(options ...string) string {
	all := append([]string{
		"BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4", "LogLevel=ERROR",
		// A host is known for good once it was met; one whose key is another than
		// it was is refused (ssh_config(5)).
		"StrictHostKeyChecking=accept-new", "HashKnownHosts=no", "UpdateHostKeys=no", "CheckHostIP=no",
		"UserKnownHostsFile=" + l.path(pinsName) + " ~/.ssh/known_hosts ~/.ssh/known_hosts2",
	}, options...)
	var b strings.Builder
	b.WriteString("ssh")
	for _, o := range all {
		b.WriteString(" -o '" + o + "'")
	}
	return b.String()
}

// lender is an agent that signs and lists, and lets nobody change its keys.
type lender struct {
	keys  agent.Agent
	asked *atomic.Bool
}

var errLent = errors.New("the key is lent")

func (a *lender) List() ([]*agent.Key, error) {
	a.asked.Store(true)
	return a.keys.List()
}

func (a *lender) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return a.keys.Sign(key, data)
}

func (a *lender) Add(agent.AddedKey) error       { return errLent }
func (a *lender) Remove(ssh.PublicKey) error     { return errLent }
func (a *lender) RemoveAll() error               { return errLent }
func (a *lender) Lock([]byte) error              { return errLent }
func (a *lender) Unlock([]byte) error            { return errLent }
func (a *lender) Signers() ([]ssh.Signer, error) { return nil, errLent }
