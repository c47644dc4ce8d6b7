package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// AdminKey is a public key that is to become an admin's.
type AdminKey struct {
	Name        string
	Line        string // as in a .pub file, without options
	Fingerprint string
	From        string // the file that it was found in
}

var keyName = pattern(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)

// ReadAdminKeys reads the public keys in a file, one a line, as .pub files and
// authorized_keys have them. A key without a comment that can be a name gets
// name. Those with options are left out and told of: what they are restricted to
// is not known to scotch, and without it they would be let in for more.
func ReadAdminKeys(path, name string) (keys []AdminKey, skipped []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	for n := 1; len(data) > 0; n++ {
		line, rest, _ := strings.Cut(string(data), "\n")
		data = []byte(rest)
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		switch {
		case strings.Contains(line, "PRIVATE KEY"):
			return nil, nil, fmt.Errorf("%s holds a private key\ngive the public half, the file that ends in .pub", path)
		case err != nil:
			skipped = append(skipped, fmt.Sprintf("%s:%d is no public key", path, n))
			continue
		case len(options) > 0:
			skipped = append(skipped, fmt.Sprintf("%s:%d is a key with options (%s)", path, n, optionNames(options)))
			continue
		}
		k := AdminKey{Name: name, Line: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), Fingerprint: ssh.FingerprintSHA256(key), From: path}
		if keyName().MatchString(comment) {
			k.Name = comment
		}
		keys = append(keys, k)
	}
	return keys, skipped, nil
}

func optionNames(options []string) string {
	var names []string
	for _, o := range options {
		name, _, _ := strings.Cut(o, "=")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// CallerKeys are the keys by which the person who runs setup may have come: those
// of the user who called sudo, else root's own.
func CallerKeys(sudoUser string) (keys []AdminKey, skipped []string, err error) {
	for _, name := range []string{sudoUser, "root"} {
		u, err := user.Lookup(name)
		if name == "" || err != nil {
			continue
		}
		found, left, err := ReadAdminKeys(filepath.Join(u.HomeDir, ".ssh", "authorized_keys"), u.Username)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("reading the keys of %s: %w", name, err)
		}
		skipped = append(skipped, left...)
		if len(found) > 0 {
			return found, skipped, nil
		}
	}
	return nil, skipped, nil
}

func (m *Machine) planKeys(p *Plan, o SetupOptions) {
	if !exists(m.Site.Server.HostKey) {
		p.add("make the ssh server's host key", []string{m.Site.Server.HostKey}, func(context.Context, io.Writer) (string, error) {
			return m.HostKey(m.Site.Server.HostKey)
		})
	}
	admins, err := m.Keys.Admins()
	switch {
	case err != nil:
		p.note("%s is left as it is: %v", m.Site.Server.AuthorizedKeys, err)
		return
	case admins > 0:
		return
	case len(o.Admins) == 0:
		p.note("nobody may connect yet: there is no admin's key\nlet one in: scotch keys add NAME FILE --role admin (or setup --key FILE)")
		return
	}
	var details []string
	for _, k := range o.Admins {
		details = append(details, fmt.Sprintf("%s %s, from %s", k.Name, k.Fingerprint, k.From))
	}
	p.add("let the first admin in", details, func(context.Context, io.Writer) (string, error) {
		for _, k := range o.Admins {
			if err := m.Keys.AddAdmin(k.Name, k.Line); err != nil {
				return "", err
			}
		}
		return "", nil
	})
}
