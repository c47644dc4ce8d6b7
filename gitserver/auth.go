package gitserver

import (
	"errors"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// provedKey is the extension of a connection's permissions that holds the key
// that was proved, in wire format.
const provedKey = "proved-key@scotch"

// errKeyCostsTime is a panic's value: x/crypto/ssh verifies the signature that
// comes with a key before it looks at what the callback made of the key, and only
// a panic keeps it from that.
var errKeyCostsTime = errors.New("the client offers a key that is made to cost time")

// offered tells whether a proof of the key is worth asking for. It says nothing
// about who is there: a client may offer any key (CVE-2024-45337).
func (c *connection) offered(_ ssh.Context, key ssh.PublicKey) bool {
	c.offeredKey = gossh.FingerprintSHA256(key)
	if err := access.CheckSize(key); err != nil {
		panic(errKeyCostsTime)
	}
	_, ok := c.server.Keys.Find(key, c.net.RemoteAddr(), time.Now())
	return ok
}

// config is the ssh protocol's configuration of a connection. gliderlabs adds
// the callback for offered keys, that returns permissions shared by all of
// them: who is there is written into new ones, after the proof.
func (c *connection) config(ssh.Context) *gossh.ServerConfig {
	conf := &gossh.ServerConfig{
		MaxAuthTries: 6,
		VerifiedPublicKeyCallback: func(_ gossh.ConnMetadata, key gossh.PublicKey, _ *gossh.Permissions, _ string) (*gossh.Permissions, error) {
			if _, ok := c.server.Keys.Find(key, c.net.RemoteAddr(), time.Now()); !ok {
				return nil, errors.New("the key is not known any more")
			}
			if !c.server.loggedIn(c, gossh.FingerprintSHA256(key)) {
				return nil, errors.New("dropped to make room")
			}
			c.proved = true
			c.server.penalties.forgive(c.network)
			return &gossh.Permissions{Extensions: map[string]string{provedKey: string(key.Marshal())}}, nil
		},
		// No SHA-1, no CBC, no NIST groups; encrypt-then-MAC alone beside the AEADs.
		// Terrapin (CVE-2023-48795) meets strict key exchange, and with a client too
		// old for that no chacha20-poly1305, which it is easiest with. OpenSSH 6.5
		// (2014) and later speak these.
		PublicKeyAuthAlgorithms: []string{
			gossh.KeyAlgoED25519, gossh.KeyAlgoSKED25519, gossh.KeyAlgoSKECDSA256,
			gossh.KeyAlgoECDSA256, gossh.KeyAlgoECDSA384, gossh.KeyAlgoECDSA521,
			gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSASHA256,
		},
	}
	conf.KeyExchanges = []string{gossh.KeyExchangeMLKEM768X25519, gossh.KeyExchangeCurve25519}
	conf.Ciphers = []string{
		gossh.CipherAES128GCM, gossh.CipherAES256GCM, gossh.CipherAES256CTR,
	}
	conf.MACs = []string{gossh.HMACSHA256ETM, gossh.HMACSHA512ETM}
	return conf
}

// identity says who is at the other end now, and with which key. It is asked
// for each session: a key that was taken out since the login finds nobody.
func (c *connection) identity(conn *gossh.ServerConn) (access.Identity, gossh.PublicKey, bool) {
	if conn.Permissions == nil || conn.Permissions.Extensions[provedKey] == "" {
		return access.Identity{}, nil, false
	}
	key, err := gossh.ParsePublicKey([]byte(conn.Permissions.Extensions[provedKey]))
	if err != nil {
		return access.Identity{}, nil, false
	}
	id, ok := c.server.Keys.Find(key, c.net.RemoteAddr(), time.Now())
	return id, key, ok
}
