package access

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"
)

var loopback = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}

func newKey(t *testing.T) (ssh.PublicKey, string) {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sshKey(t, pub)
}

func sshKey(t *testing.T, pub any) (ssh.PublicKey, string) {
	t.Helper()
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return k, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

// newKeyring returns a keyring and where it reports to.
func newKeyring(t *testing.T, text string, extra ...string) (k *Keyring, path string, reported *[]string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "authorized_keys")
	write(t, path, text)
	k = OpenKeyring(path, extra...)
	reported = new([]string)
	k.Report = func(err error) { *reported = append(*reported, err.Error()) }
	return k, path, reported
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func find(k *Keyring, key ssh.PublicKey) (Identity, bool) { return k.Find(key, loopback, time.Now()) }

func TestFind(t *testing.T) {
	alice, aliceLine := newKey(t)
	bob, bobLine := newKey(t)
	carol, carolLine := newKey(t)
	stranger, _ := newKey(t)
	k, _, reported := newKeyring(t, "# the team\n\n"+
		`role="admin" `+aliceLine+" alice\n"+
		`role="push",apps="blog,shop",no-agent-forwarding `+bobLine+" Bob B.\r\n"+
		carolLine)
	id, ok := find(k, alice)
	if !ok || id.Name != "alice" || id.Role != Admin || id.Apps != nil || id.Fingerprint != ssh.FingerprintSHA256(alice) || id.Addr != "127.0.0.1:4711" {
		t.Errorf("alice: %+v, %v", id, ok)
	}
	id, ok = find(k, bob)
	if !ok || id.Name != "Bob B." || id.Role != Push || strings.Join(id.Apps, " ") != "blog shop" {
		t.Errorf("bob: %+v, %v", id, ok)
	}
	id, ok = find(k, carol)
	if !ok || id.Name != ssh.FingerprintSHA256(carol) || id.Role != DefaultRole {
		t.Errorf("carol: %+v, %v", id, ok)
	}
	if id, ok := find(k, stranger); ok {
		t.Errorf("a stranger is %+v", id)
	}
	if len(*reported) > 0 {
		t.Errorf("reported %q", *reported)
	}
}

func TestNoFile(t *testing.T) {
	key, line := newKey(t)
	dir := t.TempDir()
	k := OpenKeyring(filepath.Join(dir, "keys"))
	if _, ok := find(k, key); ok {
		t.Fatal("found in no file")
	}
	if err := k.Add("alice", Admin, nil, line); err != nil {
		t.Fatal(err)
	}
	if _, ok := find(k, key); !ok {
		t.Fatal("not found after Add")
	}
	fi, err := os.Stat(filepath.Join(dir, "keys"))
	if err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestReadAnew(t *testing.T) {
	alice, aliceLine := newKey(t)
	bob, bobLine := newKey(t)
	k, path, _ := newKeyring(t, aliceLine+" alice\n")
	if _, ok := find(k, bob); ok {
		t.Fatal("bob is in already")
	}
	// By rename, as editors do: same size, maybe the same time.
	write(t, path+".new", bobLine+" alicf\n")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if _, ok := find(k, bob); !ok {
		t.Error("bob is not in after the file changed")
	}
	if _, ok := find(k, alice); ok {
		t.Error("alice is still in")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, ok := find(k, bob); ok {
		t.Error("bob is in after the file went")
	}
}

func TestBadLineKeepsLastGood(t *testing.T) {
	alice, aliceLine := newKey(t)
	bob, bobLine := newKey(t)
	k, path, reported := newKeyring(t, aliceLine+" alice\n")
	find(k, alice)
	write(t, path, bobLine+" bob\nnonsense here\n")
	if _, ok := find(k, alice); !ok {
		t.Error("the last good file is not in force")
	}
	if _, ok := find(k, bob); ok {
		t.Error("a bad file is in force")
	}
	find(k, bob)
	if len(*reported) != 1 || !strings.Contains((*reported)[0], path+":2: ") {
		t.Errorf("reported %q", *reported)
	}
	if err := k.Add("carol", Push, nil, firstLine(newKey(t))); err == nil || !strings.Contains(err.Error(), ":2: ") {
		t.Errorf("Add to a bad file: %v", err)
	}
	// The removal of a lost key must not wait until somebody mends the file.
	if n, err := k.Remove("alice"); n != 1 || err != nil {
		t.Errorf("Remove = %d, %v", n, err)
	}
	if _, ok := find(k, alice); ok {
		t.Error("alice is in after Remove")
	}
	write(t, path, bobLine+" bob\n")
	if _, ok := find(k, bob); !ok {
		t.Error("the mended file is not in force")
	}
}

func firstLine(_ ssh.PublicKey, line string) string { return line }

func TestBadFileAtStart(t *testing.T) {
	alice, aliceLine := newKey(t)
	k, _, reported := newKeyring(t, "rubbish\n"+aliceLine+" alice\n")
	if _, ok := find(k, alice); !ok {
		t.Error("a bad line locks everybody out at the start")
	}
	if len(*reported) != 1 {
		t.Errorf("reported %q", *reported)
	}
}

func TestRefusedLines(t *testing.T) {
	_, line := newKey(t)
	rsa1024 := rsaLine(t, 1024)
	for _, tt := range []struct{ line, want string }{
		{`command="rm -rf /" ` + line, `"command"`},
		{`restrict ` + line, `"restrict"`},
		{`restrict,role="push" ` + line, `"restrict"`},
		{`no-pty ` + line, `"no-pty"`},
		{`verify-required ` + line, `"verify-required"`},
		{`cert-authority ` + line, `"cert-authority"`},
		{`role=push ` + line, "quotes"},
		{`role="root" ` + line, `no role "root"`},
		{`role="Admin" ` + line, `no role "Admin"`},
		{`role="read",role="admin" ` + line, "twice"},
		{`role="admin",apps="blog" ` + line, "contradict"},
		{`apps="" ` + line, `""`},
		{`apps="../x" ` + line, `"../x"`},
		{`apps="blog,*" ` + line, `"*"`},
		{`from="example.org" ` + line, "names of hosts"},
		{`from="10.1.2.3/8" ` + line, "network"},
		{`from="" ` + line, "no address"},
		{`expiry-time="2030" ` + line, "no time"},
		{`expiry-time="20301399" ` + line, "no time"},
		{line + " ali\x1b[2Jce", "control character"},
		{rsa1024, "1024 bits"},
		{rsaLine(t, 8200), "8200 bits"},
		{"ssh-dss AAAAB3NzaC1kc3MAAACBAO alice", "no public key"},
		{"-----BEGIN OPENSSH PRIVATE KEY-----", "private key"},
		{strings.Fields(line)[1], "no public key"},
		{`role="push` + line, "no public key"},
	} {
		e, err := parseLine(tt.line)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: %+v, %v, want an error with %q", tt.line, e, err, tt.want)
		}
	}
}

// rsaLine returns a key that only looks like one: making a real one takes seconds.
func rsaLine(t *testing.T, bits int) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	n.Add(n, big.NewInt(1))
	_, line := sshKey(t, &rsa.PublicKey{N: n, E: 65537})
	return line
}

func TestAcceptedKinds(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{firstLine(sshKey(t, &p256.PublicKey)), rsaLine(t, 2048), rsaLine(t, 8192)} {
		if _, err := parseLine(line); err != nil {
			t.Errorf("%.30s…: %v", line, err)
		}
	}
}

func TestSameKeyTwiceInFile(t *testing.T) {
	_, line := newKey(t)
	k, path, _ := newKeyring(t, `role="read" `+line+" alice\n"+`role="admin" `+line+" mallory\n")
	list, err := k.List()
	if err == nil || !strings.Contains(err.Error(), path+`:2: `) || !strings.Contains(err.Error(), `"alice"`) {
		t.Errorf("List: %v", err)
	}
	if len(list) != 1 || list[0].Role != Read {
		t.Errorf("in force: %+v", list)
	}
}

func TestFrom(t *testing.T) {
	for _, tt := range []struct {
		from, addr string
		want       bool
	}{
		{"192.0.2.1", "192.0.2.1:22", true},
		{"192.0.2.1", "192.0.2.10:22", false},
		{"192.0.2.1", "[::ffff:192.0.2.1]:22", true},
		{"192.0.2.0/24", "192.0.2.77:22", true},
		{"192.0.2.0/24,!192.0.2.77", "192.0.2.77:22", false},
		{"!192.0.2.77", "192.0.2.1:22", false}, // as OpenSSH: only saying who not means nobody
		{"192.0.2.*", "192.0.2.77:22", true},
		{"192.0.?.1*", "192.0.2.177:22", true},
		{"192.0.2.*", "198.51.100.1:22", false},
		{"2001:db8::/32", "[2001:db8::1]:22", true},
		{"2001:db8::1", "[2001:DB8:0::1%eth0]:22", true},
		{"*", "[2001:db8::1]:22", true},
		{"10.0.0.0/8, 192.0.2.1", "192.0.2.1:22", true},
	} {
		key, line := newKey(t)
		k, _, reported := newKeyring(t, `from="`+tt.from+`" `+line+" alice\n")
		_, ok := k.Find(key, addr(tt.addr), time.Now())
		if ok != tt.want || len(*reported) > 0 {
			t.Errorf("from=%q, %s: %v, want %v (%q)", tt.from, tt.addr, ok, tt.want, *reported)
		}
		if _, ok := k.Find(key, nil, time.Now()); ok && tt.from != "*" {
			t.Errorf("from=%q: allowed for an unknown address", tt.from)
		}
	}
}

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

func TestExpiry(t *testing.T) {
	key, line := newKey(t)
	for _, tt := range []struct {
		option string
		at     time.Time
	}{
		{"20300102Z", time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)},
		{"203001020304", time.Date(2030, 1, 2, 3, 4, 0, 0, time.Local)},
		{"20300102030405Z", time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)},
	} {
		k, _, _ := newKeyring(t, `expiry-time="`+tt.option+`" `+line+" alice\n")
		if _, ok := k.Find(key, loopback, tt.at.Add(-time.Second)); !ok {
			t.Errorf("%s: expired too early", tt.option)
		}
		if _, ok := k.Find(key, loopback, tt.at); ok {
			t.Errorf("%s: still valid", tt.option)
		}
	}
}

func TestAddAndRemoveKeepTheRest(t *testing.T) {
	_, aliceLine := newKey(t)
	bob, bobLine := newKey(t)
	text := "# the team\n\n  " + `role="admin",from="127.0.0.1" ` + aliceLine + "   alice  \n# below: CI"
	k, path, _ := newKeyring(t, text)
	if err := k.Add("bob", Push, []string{"blog", "shop"}, "  "+bobLine+" bob@laptop\n"); err != nil {
		t.Fatal(err)
	}
	want := text + "\n" + `role="push",apps="blog,shop" ` + bobLine + " bob\n"
	if got := readString(t, path); got != want {
		t.Errorf("file:\n%s\nwant:\n%s", got, want)
	}
	if id, ok := find(k, bob); !ok || id.Name != "bob" || len(id.Apps) != 2 {
		t.Errorf("bob: %+v, %v", id, ok)
	}
	if n, err := k.Remove("carol"); n != 0 || err != nil {
		t.Errorf("Remove carol = %d, %v", n, err)
	}
	if n, err := k.Remove("bob"); n != 1 || err != nil {
		t.Errorf("Remove bob = %d, %v", n, err)
	}
	if got := readString(t, path); got != text+"\n" {
		t.Errorf("file:\n%s", got)
	}
	if _, ok := find(k, bob); ok {
		t.Error("bob is in after Remove")
	}
}

func readString(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAddRefuses(t *testing.T) {
	_, line := newKey(t)
	_, known := newKey(t)
	k, path, _ := newKeyring(t, known+" alice\n")
	before := readString(t, path)
	for _, tt := range []struct {
		name string
		role Role
		apps []string
		key  string
		want string
	}{
		{"bob", Push, nil, known + " bob", `"alice" already`},
		{"bob", "root", nil, line, `"root"`},
		{"bob", Admin, []string{"blog"}, line, "admin"},
		{"bob", Push, []string{}, line, "empty"},
		{"bob", Push, []string{"x y"}, line, `"x y"`},
		{"bo b", Push, nil, line, `"bo b"`},
		{"bob\n", Push, nil, line, `"bob\n"`},
		{"#bob", Push, nil, line, `"#bob"`},
		{"bob", Push, nil, "", "no key"},
		{"bob", Push, nil, line + "\n" + known, "more than one line"},
		{"bob", Push, nil, `from="1.2.3.4" ` + line, "without options"},
		{"bob", Push, nil, "hello", "refused"},
		{"bob", Push, nil, "# " + line, "no plain public key"},
		{"bob", Push, nil, "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n", "private key: keep it"},
		{"bob", Push, nil, "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none", "private key: keep it"},
		{"bob", Push, nil, "---- BEGIN SSH2 PUBLIC KEY ----\nabc", "ssh-keygen -i"},
		{"bob", Push, nil, rsaLine(t, 1024), "1024 bits"},
	} {
		err := k.Add(tt.name, tt.role, tt.apps, tt.key)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Add(%q, %q, %q, %.30q) = %v, want %q", tt.name, tt.role, tt.apps, tt.key, err, tt.want)
		}
	}
	if got := readString(t, path); got != before {
		t.Errorf("a refused Add changed the file:\n%s", got)
	}
}

func TestExtraKeysAreAdmins(t *testing.T) {
	own, ownLine := newKey(t)
	both, bothLine := newKey(t)
	limited, limitedLine := newKey(t)
	home := t.TempDir()
	write(t, filepath.Join(home, "id_ed25519.pub"), ownLine+" me@laptop\n")
	write(t, filepath.Join(home, "other.pub"), "no key at all\n"+bothLine+" me@other\n")
	write(t, filepath.Join(home, "limited.pub"), `from="192.0.2.1" `+limitedLine+" x\n")
	write(t, filepath.Join(home, "id_ed25519"), "-----BEGIN OPENSSH PRIVATE KEY-----\n")
	k, _, reported := newKeyring(t, `role="read" `+bothLine+" other\n", filepath.Join(home, "*.pub"))
	if id, ok := find(k, own); !ok || id.Role != Admin || id.Name != "me@laptop" {
		t.Errorf("own key: %+v, %v", id, ok)
	}
	if id, ok := find(k, both); !ok || id.Role != Read {
		t.Errorf("a key that the file names is not what the file says: %+v, %v", id, ok)
	}
	if _, ok := find(k, limited); ok {
		t.Error("a key with conditions became an admin without them")
	}
	if len(*reported) > 0 {
		t.Errorf("reported %q", *reported)
	}
	if _, err := k.Remove("me@laptop"); err == nil || !strings.Contains(err.Error(), "id_ed25519.pub:1") {
		t.Errorf("Remove of an extra key: %v", err)
	}
	if err := os.Remove(filepath.Join(home, "id_ed25519.pub")); err != nil {
		t.Fatal(err)
	}
	if _, ok := find(k, own); ok {
		t.Error("the key is in after its file went")
	}
	list, err := k.List()
	if err != nil || len(list) != 1 || list[0].Name != "other" {
		t.Errorf("List = %+v, %v", list, err)
	}
}

// Whatever a line of authorized_keys says, what it gives can be said of it: a
// known role, a key that proves something, names that harm no list.
func FuzzParseLine(f *testing.F) {
	f.Add(`role="push",apps="blog,shop",from="10.0.0.0/8,!10.1.*",expiry-time="20300101Z" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUfp1Go9ELRyARQO8rLZVcnvqVbM1GZQlQ/LsrqD4Ii alice`)
	f.Add(`command="x\"y" ssh-ed25519 AAAA x`)
	f.Fuzz(func(t *testing.T, line string) {
		e, err := parseLine(line)
		if err != nil || e == nil {
			return
		}
		if e.Role.rank() == 0 || e.key == "" || e.Name == "" || (e.Apps != nil && len(e.Apps) == 0) {
			t.Errorf("%q gives %+v", line, e)
		}
		key, err := ssh.ParsePublicKey([]byte(e.key))
		if err != nil || CheckKey(key) != nil || ssh.FingerprintSHA256(key) != e.Fingerprint {
			t.Errorf("%q gives a key that proves nothing: %v", line, err)
		}
		if strings.ContainsFunc(e.Name, unicode.IsControl) {
			t.Errorf("%q gives the name %q", line, e.Name)
		}
		// An option that takes a right away is not lost.
		if strings.Contains(strings.ToLower(line), "cert-authority") && !strings.Contains(strings.ToLower(e.Name+e.From), "cert-authority") {
			t.Errorf("%q gives %+v", line, e)
		}
		if e.Role == Admin && e.Apps != nil {
			t.Errorf("%q gives an admin of %q", line, e.Apps)
		}
		for _, app := range e.Apps {
			if May(Identity{Role: e.Role, Apps: e.Apps}, VerbPush, app+"x") && !slices.Contains(e.Apps, app+"x") {
				t.Errorf("%q lets in to %q", line, app+"x")
			}
		}
		e.allows(netip.MustParseAddr("192.0.2.1"), time.Now())
	})
}

// A name that one of the person's own keys has too does not keep the one in the
// file from being removed.
func TestRemoveOfANameThatAnExtraKeyHasToo(t *testing.T) {
	extra, extraLine := newKey(t)
	own := filepath.Join(t.TempDir(), "id.pub")
	write(t, own, extraLine+" bob\n")
	bob, bobLine := newKey(t)
	k, path, _ := newKeyring(t, bobLine+" bob\n", own)
	n, err := k.Remove("bob")
	if n != 1 || err == nil || !strings.Contains(err.Error(), "removed 1") || !strings.Contains(err.Error(), own) {
		t.Errorf("Remove = %d, %v", n, err)
	}
	if _, ok := find(k, bob); ok || readString(t, path) != "" {
		t.Error("bob's key in the file is in force")
	}
	if _, ok := find(k, extra); !ok {
		t.Error("the extra key is out")
	}
}

// A file that could not be read for a while, and is then the same as before.
func TestReadErrorIsOverWithTheFile(t *testing.T) {
	alice, line := newKey(t)
	k, path, _ := newKeyring(t, line+" alice\n")
	find(k, alice)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := k.List(); err == nil {
		t.Error("no error for a directory")
	}
	if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.List(); err != nil {
		t.Errorf("the file is back: %v", err)
	}
	if err := k.Add("bob", Push, nil, firstLine(newKey(t))); err != nil {
		t.Error(err)
	}
}

// Same size, same time, same inode: an editor that puts the time back.
func TestReadAnewWhereTheTimeWasPutBack(t *testing.T) {
	alice, aliceLine := newKey(t)
	bob, bobLine := newKey(t)
	k, path, _ := newKeyring(t, aliceLine+" alice\n")
	find(k, alice)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, bobLine+" cilla\n")
	if err := os.Chtimes(path, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, ok := find(k, alice); ok {
		t.Error("the old file is in force")
	}
	if _, ok := find(k, bob); !ok {
		t.Error("the new file is not in force")
	}
}

// What a key has begun is asked about by its fingerprint, when it is to have an effect.
func TestAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authorized_keys")
	key, _ := newKey(t)
	fingerprint := ssh.FingerprintSHA256(key)
	k := OpenKeyring(path)
	now := time.Now()
	for _, test := range []struct{ options, from, want string }{
		{`role="push",apps="blog"`, "192.0.2.1:1000", ""},
		{`role="push",from="192.0.2.0/24"`, "192.0.2.1:1000", ""},
		{`role="push",from="192.0.2.0/24"`, "198.51.100.1:1000", "may not come from there any more"},
		{`role="push",expiry-time="20200101"`, "192.0.2.1:1000", "has expired"},
		{"", "192.0.2.1:1000", "was removed"},
	} {
		text := "# nobody\n"
		if test.options != "" {
			text = test.options + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " bob\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		who, err := k.Again(fingerprint, test.from, now)
		switch {
		case test.want == "" && (err != nil || who.Name != "bob" || who.Role != Push || who.Fingerprint != fingerprint || who.Addr != test.from):
			t.Errorf("%s: %+v, %v", test.options, who, err)
		case test.want != "" && (err == nil || err.Error() != test.want || May(who, VerbDeploy, "blog")):
			t.Errorf("%s: %+v, %v", test.options, who, err)
		}
	}
}
