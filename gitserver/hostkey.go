package gitserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// LoadOrCreateHostKey reads the server's private key from path, in any format
// that ssh-keygen writes without a passphrase, or makes an ed25519 key there,
// for its owner alone and on disk when it returns. The fingerprint is what a
// client shows at its first connection ("SHA256:…").
func LoadOrCreateHostKey(path string) (key gossh.Signer, fingerprint string, err error) {
	data, err := readHostKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = createHostKey(path)
	}
	if err != nil {
		return nil, "", err
	}
	key, err = gossh.ParsePrivateKey(data)
	if err != nil {
		return nil, "", fmt.Errorf("the host key %q can't be read: %w\nput its backup there, or remove the file to get a new one, which every client will ask about", path, err)
	}
	if err := access.CheckKey(key.PublicKey()); err != nil {
		return nil, "", fmt.Errorf("the host key %q proves nothing any more: %w\nremove the file to get a new one, which every client will ask about", path, err)
	}
	if key.PublicKey().Type() == gossh.KeyAlgoRSA {
		// An operator's older key; never with SHA-1.
		a, ok := key.(gossh.AlgorithmSigner)
		if !ok {
			return nil, "", fmt.Errorf("the host key %q can't sign with SHA-2", path)
		}
		key, err = gossh.NewSignerWithAlgorithms(a, []string{gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSASHA256})
		if err != nil {
			return nil, "", fmt.Errorf("the host key %q: %w", path, err)
		}
	}
	return key, gossh.FingerprintSHA256(key.PublicKey()), nil
}

func readHostKey(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the host key: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the host key %q can be read by others (mode %04o)\nif nobody did: chmod 600 %s", path, fi.Mode().Perm(), path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the host key: %w", err)
	}
	return data, nil
}

func createHostKey(path string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a host key: %w", err)
	}
	block, err := gossh.MarshalPrivateKey(private, "scotch")
	if err != nil {
		return nil, fmt.Errorf("making a host key: %w", err)
	}
	data := pem.EncodeToMemory(block)
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600)); err != nil {
		return nil, fmt.Errorf("writing the host key: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("writing the host key: %w", err)
	}
	return data, nil
}

// syncDir puts the names in a directory on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
