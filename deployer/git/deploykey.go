package git

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"scotch/config"
	"scotch/deployer"
)

// An app's keys are one directory, Options.Keys/APP, that nobody but the server
// enters: its deploy key, made at first use, and the host keys that were pinned
// for it. git and builds, which run as others, get neither: they talk to an
// agent (see loan).
const (
	keyName  = "id_ed25519"
	pinsName = "known_hosts"
)

// DeployKeyDir is where the app's deploy key and its pinned host keys are, also
// where there are none.
func (g *Git) DeployKeyDir(app string) string { return filepath.Join(g.o.Keys, app) }

func (g *Git) pinsPath(app string) string { return filepath.Join(g.DeployKeyDir(app), pinsName) }

// DeployKey returns the public half of the app's deploy key, a line as in a file
// that ends in .pub, without a newline. The key is made where there is none.
func (g *Git) DeployKey(app string) (string, error) {
	if g.o.Keys == "" {
		return "", errors.New("this server keeps no deploy keys")
	}
	if err := config.ValidName(app); err != nil {
		return "", err
	}
	g.keyMu.Lock()
	defer g.keyMu.Unlock()
	_, public, err := g.deployKey(app)
	if errors.Is(err, fs.ErrNotExist) {
		return g.makeDeployKey(app)
	}
	return public, err
}

// deployKey reads the app's key; its error matches fs.ErrNotExist where there is none.
func (g *Git) deployKey(app string) (private ed25519.PrivateKey, public string, err error) {
	path := filepath.Join(g.DeployKeyDir(app), keyName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("reading the deploy key of %q: %w", app, err)
	}
	const mend = "put its backup there; or remove the file, and the next use makes a new one, for the repositories to be told of"
	raw, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return nil, "", fmt.Errorf("the deploy key %q can't be read: %w\n%s", path, err, mend)
	}
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, "", fmt.Errorf("the deploy key %q is no ed25519 key\n%s", path, mend)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("the deploy key %q: %w", path, err)
	}
	return *key, publicLine(signer.PublicKey(), app), nil
}

func (g *Git) makeDeployKey(app string) (string, error) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("making a deploy key for %q: %w", app, err)
	}
	block, err := ssh.MarshalPrivateKey(private, keyComment(app))
	if err != nil {
		return "", fmt.Errorf("making a deploy key for %q: %w", app, err)
	}
	public, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("making a deploy key for %q: %w", app, err)
	}
	line := publicLine(public, app)
	dir := g.DeployKeyDir(app)
	f := new(deployer.Files)
	if err := f.MkdirAll("make-keys", dir, 0o700); err != nil {
		return "", err
	}
	// The public half is for people who look; it is the private one that counts.
	if err := f.Write("write-public-key", filepath.Join(dir, keyName+".pub"), []byte(line+"\n"), 0o644); err != nil {
		return "", err
	}
	return line, f.Write("write-key", filepath.Join(dir, keyName), pem.EncodeToMemory(block), 0o600)
}

func publicLine(key ssh.PublicKey, app string) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + keyComment(app)
}

// keyComment tells who sees the key in a list where it comes from.
func keyComment(app string) string {
	host, err := os.Hostname()
	if err != nil || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		host = "localhost"
	}
	return "scotch:" + app + "@" + host
}

// pins reads the host keys that are pinned for an app.
func (g *Git) pins(app string) ([]byte, error) {
	data, err := os.ReadFile(g.pinsPath(app))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// pin adds to the app's pinned host keys what found has besides, and says of
// each which it is. found comes from a process that may be hostile: what is no
// host's key is left out.
func (g *Git) pin(app string, found []byte) (said []string, err error) {
	g.keyMu.Lock()
	defer g.keyMu.Unlock()
	pinned, err := g.pins(app)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for l := range strings.Lines(string(pinned)) {
		have[strings.TrimSpace(l)] = true
	}
	text := string(pinned)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	for l := range strings.Lines(string(found)) {
		l = strings.TrimSpace(l)
		if l == "" || have[l] {
			continue
		}
		marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(l + "\n"))
		if err != nil || marker != "" || len(hosts) == 0 {
			continue
		}
		name := strings.Join(hosts, ",")
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			continue
		}
		line := name + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		if have[line] {
			continue
		}
		have[line] = true
		text += line + "\n"
		said = append(said, fmt.Sprintf("host key of %s pinned: %s", name, ssh.FingerprintSHA256(key)))
	}
	if len(said) == 0 || len(text) > maxPins {
		return nil, nil
	}
	f := new(deployer.Files)
	if err := f.MkdirAll("make-keys", g.DeployKeyDir(app), 0o700); err != nil {
		return nil, err
	}
	return said, f.Write("write-pins", g.pinsPath(app), []byte(text), 0o600)
}

// maxPins bounds a file of pinned host keys, in bytes: some hundred hosts.
const maxPins = 64 << 10
