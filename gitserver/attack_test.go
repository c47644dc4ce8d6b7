package gitserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// shifter is a key that changes: x/crypto's client asks it for the public half
// twice for the question whether it would do, and then to sign in. So it sends
// what OpenSSH's client never would.
type shifter struct {
	algorithm string
	asked     []byte // the public key of the question
	signed    []byte // that of the login
	by        gossh.Signer
	calls     atomic.Int32
}

func (s *shifter) PublicKey() gossh.PublicKey { return s }
func (s *shifter) Type() string {
	if strings.HasPrefix(s.algorithm, "rsa-sha2-512-cert") {
		return gossh.CertAlgoRSAv01
	}
	if strings.HasPrefix(s.algorithm, "rsa-") {
		return gossh.KeyAlgoRSA
	}
	return s.algorithm
}
func (s *shifter) Marshal() []byte {
	if s.calls.Add(1) <= 2 {
		return s.asked
	}
	return s.signed
}
func (s *shifter) Verify([]byte, *gossh.Signature) error { return errors.New("not for this") }
func (s *shifter) Sign(r io.Reader, data []byte) (*gossh.Signature, error) {
	return s.SignWithAlgorithm(r, data, s.algorithm)
}
func (s *shifter) SignWithAlgorithm(r io.Reader, data []byte, algorithm string) (*gossh.Signature, error) {
	if s.by != nil {
		return s.by.Sign(r, data)
	}
	return &gossh.Signature{Format: algorithm, Blob: make([]byte, 64)}, nil
}

// CVE-2024-45337 once more, with a client that the server can't expect: the key
// that it asks about is not the one that it signs with.
func TestCVE202445337AskedWithOneKeySignedWithAnother(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Commands = echo })
	alice, bob := f.signers["alice"], f.signers["bob"]
	c, err := f.tryDial(gossh.PublicKeys(&shifter{
		algorithm: gossh.KeyAlgoED25519, asked: alice.PublicKey().Marshal(), signed: bob.PublicKey().Marshal(), by: bob,
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := sess.Output(""); err != nil || !strings.HasPrefix(string(out), "bob push") {
		t.Errorf("logged in as %q, %v", out, err)
	}
	for name, by := range map[string]gossh.Signer{"another's signature": bob, "no signature": nil} {
		c, err := f.tryDial(gossh.PublicKeys(&shifter{
			algorithm: gossh.KeyAlgoED25519, asked: alice.PublicKey().Marshal(), signed: alice.PublicKey().Marshal(), by: by,
		}))
		if err == nil {
			c.Close()
			t.Errorf("%s is a login", name)
		}
	}
}

// Whatever is written where a connection's key belongs, nothing there is nobody.
func TestConnectionWithoutAProvedKeyIsNobody(t *testing.T) {
	f := start(t, nil)
	for _, p := range []*gossh.Permissions{nil, {}, {Extensions: map[string]string{provedKey: ""}}, {Extensions: map[string]string{provedKey: "rubbish"}},
		{Extensions: map[string]string{"pubkey": string(f.signers["alice"].PublicKey().Marshal())}}} {
		nc, err := f.connect("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if id, _, ok := newConnection(f.Server, nc).identity(&gossh.ServerConn{Permissions: p}); ok {
			t.Errorf("%+v is %+v", p, id)
		}
		nc.Close()
	}
}

// x/crypto/ssh verifies a signature with a key before it looks whether the key
// may log in (CVE-2023-39533's class in TLS): a stranger sends huge ones, also
// wrapped into a certificate, to keep the server busy.
func TestHugeRSAKeysAreNotCalculatedWith(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Commands = echo })
	known := f.signers["bob"].PublicKey()
	huge := rsaBlob(maxTestRSA)
	cert := (&gossh.Certificate{
		Key: mustParse(t, huge), CertType: gossh.UserCert, SignatureKey: known,
		Signature: &gossh.Signature{Format: known.Type(), Blob: make([]byte, 64)},
	}).Marshal()
	for i, s := range []*shifter{
		{algorithm: gossh.KeyAlgoRSASHA512, asked: huge, signed: huge},
		{algorithm: gossh.KeyAlgoRSASHA512, asked: known.Marshal(), signed: huge},
		{algorithm: "rsa-sha2-512-cert-v01@openssh.com", asked: known.Marshal(), signed: cert},
	} {
		if c, err := f.tryDial(gossh.PublicKeys(s)); err == nil {
			c.Close()
			t.Errorf("%d: a login", i)
		}
		if i > 0 && s.calls.Load() < 3 {
			t.Errorf("%d: the test did not sign", i)
		}
		f.log.has(t, errKeyCostsTime.Error(), i+1)
	}
	// Longer ones are none for x/crypto.
	for _, s := range []*shifter{
		{algorithm: gossh.KeyAlgoRSASHA512, asked: known.Marshal(), signed: rsaBlob(32 * maxTestRSA)},
		{algorithm: gossh.KeyAlgoRSASHA512, asked: known.Marshal(), signed: rsaBlob(16)},
	} {
		if c, err := f.tryDial(gossh.PublicKeys(s)); err == nil {
			c.Close()
			t.Error("a login")
		}
	}
	f.ssh("alice", "list").exits(1).says("alice admin")
}

const maxTestRSA = 16000 // bits; x/crypto takes 16384

// rsaBlob is a public key of RSA that nobody has the private half of.
func rsaBlob(bits uint) []byte {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	n.SetBit(n, 0, 1)
	return gossh.Marshal(struct {
		Name string
		E, N *big.Int
	}{gossh.KeyAlgoRSA, big.NewInt(1<<23 + 1), n})
}

func mustParse(t *testing.T, blob []byte) gossh.PublicKey {
	t.Helper()
	key, err := gossh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// CVE-2020-9283: a key of ed25519 with too few bytes was a panic of the server.
func TestCVE20209283MalformedKeys(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Commands = echo })
	known := f.signers["bob"].PublicKey().Marshal()
	short := gossh.Marshal(struct{ Name, Key string }{gossh.KeyAlgoED25519, "short"})
	for _, blob := range [][]byte{short, {}, {0, 0, 0, 255}, known[:len(known)-1],
		gossh.Marshal(struct{ Name, Curve, Point string }{gossh.KeyAlgoECDSA256, "nistp256", "\x04"}),
		gossh.Marshal(struct{ Name, Key, App string }{gossh.KeyAlgoSKED25519, "short", "ssh:"})} {
		if c, err := f.tryDial(gossh.PublicKeys(&shifter{algorithm: gossh.KeyAlgoED25519, asked: known, signed: blob})); err == nil {
			c.Close()
			t.Errorf("%q is a login", blob)
		}
	}
	f.ssh("alice", "list").exits(1).says("alice admin")
	if log := f.log.String(); strings.Contains(log, "panic") {
		t.Error("a panic")
	}
}

// CVE-2023-48795 (Terrapin) needs a server without strict key exchange. What
// else is offered is no more than this; ssh-audit has no complaint about it.
func TestCVE202348795StrictKeyExchangeAndNothingOld(t *testing.T) {
	f := start(t, nil)
	want := [][]string{
		{"mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "kex-strict-s-v00@openssh.com"},
		{"ssh-ed25519"},
		{"aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr"},
		{"aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr"},
		{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"},
		{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"},
		{"none"}, {"none"},
	}
	got := f.kexInit()
	for i, w := range want {
		if !slices.Equal(got[i], w) {
			t.Errorf("list %d is %q, want %q", i, got[i], w)
		}
	}
}

// kexInit is what the server offers (RFC 4253, section 7.1).
func (f *fixture) kexInit() [][]string {
	f.t.Helper()
	nc, err := f.connect("127.0.0.1")
	if err != nil {
		f.t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(nc, "SSH-2.0-test\r\n")
	r := bufio.NewReader(nc)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		f.t.Fatalf("%q, %v", line, err)
	}
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		f.t.Fatal(err)
	}
	packet := make([]byte, binary.BigEndian.Uint32(head[:])-1)
	if _, err := io.ReadFull(r, packet); err != nil || packet[0] != 20 {
		f.t.Fatalf("%q, %v", packet, err)
	}
	var lists [][]string
	for rest := packet[17:]; len(lists) < 10; {
		n := binary.BigEndian.Uint32(rest)
		lists = append(lists, strings.Split(string(rest[4:4+n]), ","))
		rest = rest[4+n:]
	}
	return lists
}

func TestSSHAudit(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("ssh-audit")
	if err != nil {
		t.Skip("no ssh-audit here; TestCVE202348795StrictKeyExchangeAndNothingOld compares the lists")
	}
	f := start(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{"-n", "-p", f.port, "127.0.0.1"}
	// Newer ones flood the server besides; older ones know no such option.
	if help, _ := exec.CommandContext(ctx, program, "--help").CombinedOutput(); strings.Contains(string(help), "--skip-rate-test") {
		args = append([]string{"--skip-rate-test"}, args...)
	}
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 {
		err = nil // warnings: that clients older than OpenSSH 9.9 can't do better than curve25519
	}
	if err != nil || strings.Contains(string(out), "[fail]") {
		t.Errorf("ssh-audit: %v\n%s", err, out)
	}
}

// What is no ssh at all ends its own connection.
func TestGarbageEndsItsConnectionOnly(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Commands = echo })
	packet := func(length uint32, rest ...byte) string {
		return "SSH-2.0-x\r\n" + string(binary.BigEndian.AppendUint32(nil, length)) + string(rest)
	}
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // TLS
		strings.Repeat("x", 1<<16),                     // a version without an end
		packet(0xffffffff, 4, 20),
		packet(0), packet(1, 0), packet(12, 255, 20), // CVE-2021-43565's kind: nothing in the packet
		packet(12, 4, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		packet(12, 4, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), // a login before a key exchange
	} {
		nc, err := f.connect("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(nc, garbage)
		nc.(*net.TCPConn).CloseWrite()
		expectEnd(t, nc)
		nc.Close()
	}
	f.ssh("alice", "list").exits(1).says("alice admin")
	if log := f.log.String(); strings.Contains(log, "panic") {
		t.Error("a panic")
	}
}

// ssh's forwarding of remote ports is a request of the connection, not of a channel.
func TestNoRequestOfTheConnectionIsGranted(t *testing.T) {
	t.Parallel()
	f := start(t, func(f *fixture) { f.Commands = echo })
	c := f.dial("alice")
	forward := gossh.Marshal(struct {
		Addr string
		Port uint32
	}{"127.0.0.1", 0})
	for _, kind := range []string{"tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "no-more-sessions@openssh.com",
		"hostkeys-prove-00@openssh.com", "keepalive@openssh.com", ""} {
		if ok, _, err := c.SendRequest(kind, true, forward); ok || err != nil {
			t.Errorf("%q: %v, %v", kind, ok, err)
		}
	}
	for _, kind := range []string{"direct-tcpip", "forwarded-tcpip", "session@evil", "auth-agent", ""} {
		if _, _, err := c.OpenChannel(kind, forward); err == nil {
			t.Errorf("opens a channel %q", kind)
		}
	}
}

// A panic in a handler of gliderlabs/ssh, or of a goroutine of ours beside it,
// ends the whole program, and the deploys in it.
func TestPanicsAnywhereEndOneConnectionAtMost(t *testing.T) {
	t.Parallel()
	keys := &panickingKeys{}
	var armed atomic.Value
	armed.Store("")
	boom := func(where string) {
		if armed.Load() == where {
			panic("boom in " + where)
		}
	}
	f := start(t, func(f *fixture) {
		keys.Keys = f.Keys
		f.Keys = keys
		keys.boom = func() { boom("Find") }
		f.Repositories = panickingRepositories{f.repos, func() { boom("Exists") }}
		f.Room = func() error { boom("Room"); return nil }
		create := f.CreateApp
		f.CreateApp = func(ctx context.Context, app, by string) error { boom("CreateApp"); return create(ctx, app, by) }
		f.pushes.answer = func(context.Context, *received, string) string { boom("Handle"); return "store" }
		f.Commands = func(ctx context.Context, who access.Identity, c Command) int {
			if slices.Equal(c.Args, []string{"wait"}) {
				fmt.Fprintln(c.Stdout, "waits")
				<-ctx.Done()
				return 0
			}
			return echo(ctx, who, c)
		}
	})
	f.app("blog")
	for _, where := range []string{"Find", "Exists", "Room", "Handle", "CreateApp"} {
		f.commit()
		armed.Store(where)
		app := "blog"
		if where == "CreateApp" {
			app = "fresh"
		}
		if r := f.git("alice", "push", f.url(app), "main"); r.status == 0 {
			t.Errorf("%s: pushed\n%s", where, r.err)
		}
		armed.Store("")
		f.log.has(t, "boom in "+where, 1)
		f.git("alice", "push", f.url(app), "main").ok()
	}
	// In the goroutine that asks for the key while a command runs.
	c := f.dial("alice")
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := sess.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.Start("wait"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	armed.Store("Find")
	ended := make(chan error, 1)
	go func() { ended <- sess.Wait() }()
	if err := wait(t, "the end of a command whose key can't be asked for", ended); err == nil {
		t.Error("exit status 0")
	}
	armed.Store("")
	f.ssh("alice", "list").exits(1).says("alice admin")
}

type panickingKeys struct {
	Keys
	boom func()
}

func (k *panickingKeys) Find(key gossh.PublicKey, addr net.Addr, now time.Time) (access.Identity, bool) {
	k.boom()
	return k.Keys.Find(key, addr, now)
}

type panickingRepositories struct {
	Repositories
	boom func()
}

func (r panickingRepositories) Exists(app string) bool { r.boom(); return r.Repositories.Exists(app) }
