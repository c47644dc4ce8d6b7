package access

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"

	"scotch/config"
)

// DefaultRole is the role of a line that names none.
const DefaultRole = Push

const (
	minRSA = 2048 // bits; NIST SP 800-131A
	maxRSA = 8192 // bits; verifying with longer ones is work for the server at a stranger's request
)

// Entry is one key that may connect.
type Entry struct {
	Name        string // the comment; the fingerprint where a line has none
	Fingerprint string
	Type        string // "ssh-ed25519"
	Role        Role
	Apps        []string  // nil: all
	From        string    // the option as written, "" for anywhere
	Expires     time.Time // zero: never
	Source      string    // FILE:LINE

	extra bool // not from the keyring's own file
	from  []fromPattern
	key   string // wire format
}

// allows tells whether the entry holds for a connection from addr at now.
func (e *Entry) allows(addr netip.Addr, now time.Time) bool {
	if !e.Expires.IsZero() && !now.Before(e.Expires) {
		return false
	}
	return e.From == "" || matchFrom(e.from, addr)
}

// parseLine reads one line. It returns nil and no error for a blank one and a comment.
func parseLine(line string) (*Entry, error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil, nil
	}
	if strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
		return nil, errors.New("it has a control character in it")
	}
	if isPrivate(line) {
		return nil, errors.New("it is a private key, which belongs on its owner's machine alone")
	}
	key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, errors.New("it is no public key in OpenSSH's format")
	}
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	e := &Entry{
		Name:        comment,
		Fingerprint: ssh.FingerprintSHA256(key),
		Type:        key.Type(),
		Role:        DefaultRole,
		key:         string(key.Marshal()),
	}
	if e.Name == "" {
		e.Name = e.Fingerprint
	}
	if len(e.Name) > 200 {
		return nil, errors.New("its comment, the name, is longer than 200 bytes")
	}
	seen := map[string]bool{}
	for _, o := range options {
		name, _, _ := strings.Cut(strings.ToLower(o), "=")
		if seen[name] {
			return nil, fmt.Errorf("the option %q is there twice", name)
		}
		seen[name] = true
		if err := e.option(name, o); err != nil {
			return nil, err
		}
	}
	if e.Role == Admin && e.Apps != nil {
		return nil, errors.New(`role="admin" and apps= contradict each other: an admin may do everything`)
	}
	return e, nil
}

// option applies one option. What it does not know it refuses: an option of
// OpenSSH's mostly takes a right away, and must not be read as if it weren't there.
func (e *Entry) option(name, option string) (err error) {
	switch name {
	case "no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding", "no-user-rc":
		return nil // forbids what scotch never does
	case "role", "apps", "from", "expiry-time":
	default:
		return fmt.Errorf("the option %q is none that scotch can honour", name)
	}
	_, quoted, ok := strings.Cut(option, "=")
	if !ok || len(quoted) < 2 || quoted[0] != '"' || quoted[len(quoted)-1] != '"' {
		return fmt.Errorf("the value of %q is not in quotes", name)
	}
	value := strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
	switch name {
	case "role":
		e.Role = Role(value)
		if !e.Role.Valid() {
			return fmt.Errorf("there is no role %q: it is read, push or admin", value)
		}
	case "apps":
		for app := range strings.SplitSeq(value, ",") {
			app = strings.TrimSpace(app)
			if config.ValidName(app) != nil {
				return fmt.Errorf("%q in apps= is no name of an app", app)
			}
			e.Apps = append(e.Apps, app)
		}
	case "from":
		e.From = value
		e.from, err = parseFrom(value)
	case "expiry-time":
		e.Expires, err = parseExpiry(value)
	}
	return err
}

// CheckKey refuses the kinds and sizes of keys that are no proof any more.
func CheckKey(key ssh.PublicKey) error {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	case ssh.KeyAlgoRSA:
		if bits := rsaBits(key); bits < minRSA || bits > maxRSA {
			return fmt.Errorf("it is an RSA key of %d bits, which must be %d to %d", bits, minRSA, maxRSA)
		}
		return nil
	}
	return fmt.Errorf("keys of the type %q are not accepted", key.Type())
}

// CheckSize refuses keys that are so large that a stranger could keep the server
// busy with them, whether in a certificate or not. It looks at their length only.
func CheckSize(key ssh.PublicKey) error {
	if bits := rsaBits(key); bits > maxRSA {
		return fmt.Errorf("it is an RSA key of %d bits, which must be %d to %d", bits, minRSA, maxRSA)
	}
	return nil
}

// rsaBits is the length of an RSA key's modulus, 0 for other keys.
func rsaBits(key ssh.PublicKey) int {
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok {
			return k.N.BitLen()
		}
	}
	return 0
}

func isPrivate(text string) bool {
	return strings.Contains(text, "PRIVATE KEY-----") || strings.Contains(text, "PuTTY-User-Key-File")
}

// parseExpiry reads expiry-time as sshd(8) does: YYYYMMDD or YYYYMMDDHHMM[SS],
// local time, or UTC where a Z follows.
func parseExpiry(v string) (time.Time, error) {
	zone, digits := time.Local, v
	if d, ok := strings.CutSuffix(strings.ToUpper(v), "Z"); ok {
		zone, digits = time.UTC, d
	}
	layouts := map[int]string{8: "20060102", 12: "200601021504", 14: "20060102150405"}
	if layout, ok := layouts[len(digits)]; ok {
		if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("expiry-time=%q is no time: write YYYYMMDD or YYYYMMDDHHMM, and Z behind it for UTC", v)
}

// fromPattern is one pattern of from=: a network, or text with * and ?.
type fromPattern struct {
	negated bool
	network netip.Prefix
	text    string
}

// parseFrom reads the list of ssh_config(5) PATTERNS that from= takes. Names of
// hosts are refused: whoever answers for the reverse zone of an address could
// choose one.
func parseFrom(list string) ([]fromPattern, error) {
	var out []fromPattern
	for item := range strings.SplitSeq(list, ",") {
		var p fromPattern
		item = strings.TrimSpace(item)
		text, negated := strings.CutPrefix(item, "!")
		p.negated = negated
		switch {
		case strings.Contains(text, "/"):
			network, err := netip.ParsePrefix(text)
			if err != nil || network != network.Masked() {
				return nil, fmt.Errorf("%q in from= is no network", item)
			}
			p.network = network
		case strings.ContainsAny(text, "*?") && strings.Trim(strings.ToLower(text), "0123456789abcdef.:*?") == "":
			p.text = strings.ToLower(text)
		default:
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%q in from= is no address (names of hosts are not looked up)", item)
			}
			p.network = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

// matchFrom says yes when a pattern matches and no negated one does.
func matchFrom(patterns []fromPattern, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	matched := false
	for _, p := range patterns {
		hit := false
		if p.text != "" {
			hit = wildcard(p.text, addr.String())
		} else {
			hit = p.network.Contains(addr)
		}
		if hit && p.negated {
			return false
		}
		matched = matched || hit
	}
	return matched
}

// wildcard matches s against a pattern in which * is any text and ? any character.
func wildcard(pattern, s string) bool {
	// star and mark are where to resume when the text behind the last * didn't fit.
	star, mark, i, j := -1, 0, 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}
