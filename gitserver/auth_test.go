package gitserver

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// CVE-2024-45337: a client may offer any public key without having its private
// half, be told that it would do, and then log in with another. Who offers an
// admin's key must not be the admin.
//
// The real ssh does just that when its agent has a key that it can't sign with
// (a hardware token that was pulled, say).
func TestCVE202445337OfferedKeyIsNotIdentity(t *testing.T) {
	f := start(t, func(f *fixture) { f.Commands = echo })
	alice, bob := unable{f.signers["alice"].PublicKey()}, f.signers["bob"]
	ring := &tokenAgent{signers: []gossh.Signer{alice, bob}}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				agent.ServeAgent(ring, conn)
			}()
		}
	}()
	cmd := f.gitCommand("alice")
	cmd.Dir = f.dir
	cmd.Path, cmd.Args = mustLook(t, "ssh"), append([]string{"ssh"}, f.sshArgs("nobody")...)
	cmd.Args = append(cmd.Args, "-v", "x@127.0.0.1", "list")
	for i, arg := range cmd.Args {
		switch arg {
		case "IdentityAgent=none":
			cmd.Args[i] = "IdentityAgent=" + socket
		case "IdentitiesOnly=yes":
			cmd.Args[i] = "IdentitiesOnly=no"
		case "LogLevel=ERROR":
			cmd.Args[i] = "LogLevel=DEBUG1"
		}
	}
	r := f.run(cmd).exits(1)
	if r.out != "bob push [\"list\"] \"\"\n" {
		t.Errorf("logged in as %s", r.out)
	}
	if fp := gossh.FingerprintSHA256(alice.key); !strings.Contains(r.err, "Server accepts key:") || strings.Count(r.err, fp) < 2 {
		t.Errorf("the admin's key was not offered first:\n%s", r.err)
	}
	if _, err := f.tryDial(gossh.PublicKeys(alice)); err == nil {
		t.Error("a false signature is a login")
	}
}

// tokenAgent is an ssh agent that lists keys, some of which can't sign.
type tokenAgent struct {
	agent.Agent
	signers []gossh.Signer
}

func (a *tokenAgent) List() ([]*agent.Key, error) {
	var out []*agent.Key
	for _, s := range a.signers {
		out = append(out, &agent.Key{Format: s.PublicKey().Type(), Blob: s.PublicKey().Marshal(), Comment: "key"})
	}
	return out, nil
}

func (a *tokenAgent) Sign(key gossh.PublicKey, data []byte) (*gossh.Signature, error) {
	for _, s := range a.signers {
		if string(s.PublicKey().Marshal()) == string(key.Marshal()) {
			if _, cannot := s.(unable); cannot {
				return nil, errors.New("the token was pulled")
			}
			return s.Sign(nil, data)
		}
	}
	return nil, errors.New("no such key")
}

// unable has a public key and signs rubbish.
type unable struct{ key gossh.PublicKey }

func (u unable) PublicKey() gossh.PublicKey { return u.key }
func (u unable) Sign(io.Reader, []byte) (*gossh.Signature, error) {
	return &gossh.Signature{Format: u.key.Type(), Blob: make([]byte, 64)}, nil
}

// gliderlabs/ssh lets everybody in when it sees no handler for keys.
func TestOnlyKnownKeysLogIn(t *testing.T) {
	f := start(t, func(f *fixture) { f.Commands = echo })
	stranger := f.newKey("stranger")
	for name, auth := range map[string][]gossh.AuthMethod{
		"none":                 nil,
		"password":             {gossh.Password("")},
		"keyboard-interactive": {gossh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) { return make([]string, len(q)), nil })},
		"stranger":             {gossh.PublicKeys(stranger)},
	} {
		if c, err := f.tryDial(auth...); err == nil {
			c.Close()
			t.Errorf("%s: logged in", name)
		}
	}
	f.ssh("stranger", "list").exits(255).says("Permission denied (publickey)")
}

func TestRemovedKeyIsOutOnAnOpenConnection(t *testing.T) {
	f := start(t, func(f *fixture) { f.Commands = echo })
	c := f.dial("bob")
	run := func() (string, error) {
		sess, err := c.NewSession()
		if err != nil {
			return "", err
		}
		out, err := sess.CombinedOutput("")
		return string(out), err
	}
	if out, err := run(); err != nil || !strings.Contains(out, "bob push") {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := f.keys.Remove("bob"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(); err == nil || !strings.Contains(out, "not known here any more") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestNoForwardingAgentTerminalOrEnvironment(t *testing.T) {
	f := start(t, func(f *fixture) { f.Commands = echo })
	c := f.dial("alice")
	if _, err := c.Dial("tcp", "127.0.0.1:"+f.port); err == nil {
		t.Error("forwards to an address")
	}
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("listens for a client")
	}
	for _, kind := range []string{"auth-agent@openssh.com", "x11", "direct-streamlocal@openssh.com", "tun@openssh.com"} {
		if _, _, err := c.OpenChannel(kind, nil); err == nil {
			t.Errorf("opens a channel %q", kind)
		}
	}
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"auth-agent-req@openssh.com", "x11-req", "pty-req", "subsystem"} {
		if ok, err := sess.SendRequest(kind, true, gossh.Marshal(struct{ S string }{"sftp"})); ok || err != nil {
			t.Errorf("%s: %v, %v", kind, ok, err)
		}
	}
	for _, kv := range [][2]string{{"LD_PRELOAD", "x"}, {"GIT_PROTOCOL", "version=2:evil"}, {"GIT_PROTOCOL", "version=2\n"}, {"GIT_DIR", "x"}, {"LANG", "C"}} {
		if err := sess.Setenv(kv[0], kv[1]); err == nil {
			t.Errorf("takes %q", kv)
		}
	}
	if err := sess.Setenv("GIT_PROTOCOL", "version=2"); err != nil {
		t.Errorf("GIT_PROTOCOL: %v", err)
	}
	if ok, err := sess.SendRequest("exec", true, gossh.Marshal(struct{ S string }{strings.Repeat("x", maxCommand)})); ok || err != nil {
		t.Errorf("a huge command line: %v, %v", ok, err)
	}
	// A terminal was refused; the command runs all the same.
	if out, err := sess.Output(""); err != nil || !strings.HasPrefix(string(out), "alice ") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestModernAlgorithmsOnly(t *testing.T) {
	f := start(t, func(f *fixture) { f.Commands = echo })
	secure := gossh.SupportedAlgorithms()
	for _, algorithm := range []string{gossh.KeyExchangeDH14SHA256, gossh.InsecureKeyExchangeDH14SHA1, gossh.KeyExchangeECDHP256} {
		conf := &gossh.ClientConfig{Auth: []gossh.AuthMethod{gossh.PublicKeys(f.signers["alice"])}, HostKeyCallback: gossh.InsecureIgnoreHostKey()}
		conf.KeyExchanges = []string{algorithm}
		if c, err := gossh.Dial("tcp", "127.0.0.1:"+f.port, conf); err == nil {
			c.Close()
			t.Errorf("key exchange %q is taken", algorithm)
		}
	}
	for _, mac := range slices.Concat(secure.MACs, gossh.InsecureAlgorithms().MACs) {
		conf := &gossh.ClientConfig{Auth: []gossh.AuthMethod{gossh.PublicKeys(f.signers["alice"])}, HostKeyCallback: gossh.InsecureIgnoreHostKey()}
		conf.MACs, conf.Ciphers = []string{mac}, []string{gossh.CipherAES256CTR}
		c, err := gossh.Dial("tcp", "127.0.0.1:"+f.port, conf)
		if err == nil {
			c.Close()
		}
		if (err == nil) != strings.HasSuffix(mac, "-etm@openssh.com") {
			t.Errorf("MAC %q: %v", mac, err)
		}
	}
	c := f.dial("alice")
	if m, ok := c.Conn.(gossh.AlgorithmsConnMetadata); !ok || m.Algorithms().KeyExchange != gossh.KeyExchangeMLKEM768X25519 {
		t.Error("mlkem768x25519-sha256 does not come first")
	}
}

func TestHostKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host_key")
	first, fingerprint, err := LoadOrCreateHostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if first.PublicKey().Type() != gossh.KeyAlgoED25519 || fingerprint != gossh.FingerprintSHA256(first.PublicKey()) {
		t.Errorf("%s %s", first.PublicKey().Type(), fingerprint)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	if _, again, err := LoadOrCreateHostKey(path); err != nil || again != fingerprint {
		t.Errorf("%s the second time, %v", again, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreateHostKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o600)
	if _, _, err := LoadOrCreateHostKey(path); err == nil {
		t.Error("rubbish is read, or replaced")
	}
	if data, _ := os.ReadFile(path); string(data) != "rubbish" {
		t.Error("a key that can't be read was replaced")
	}
}

func TestHostKeyThatProvesNothingIsRefused(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "host_key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(short)}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreateHostKey(path); err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("an RSA key of 1024 bits: %v", err)
	}
}

// SHA-1 signatures (ssh-rsa) are not made with an operator's older RSA key.
func TestRSAHostKeySignsWithSHA2Only(t *testing.T) {
	f := start(t, func(f *fixture) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(f.dir, "rsa_host_key")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600); err != nil {
			t.Fatal(err)
		}
		if f.HostKey, _, err = LoadOrCreateHostKey(path); err != nil {
			t.Fatal(err)
		}
	})
	if got := f.kexInit()[1]; !slices.Equal(got, []string{"rsa-sha2-256", "rsa-sha2-512"}) {
		t.Errorf("host key algorithms %q", got)
	}
}
