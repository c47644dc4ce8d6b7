package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"scotch/config"
)

var nameRE = pattern(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)

// Add gives a key a name, a role and, where apps is not nil, the apps that the
// role holds for. keyLine is one plain public key as ssh-keygen writes it; its
// own comment is not kept. The key counts when Add returns. Nothing is
// written when an error is returned.
func (k *Keyring) Add(name string, role Role, apps []string, keyLine string) error {
	if !nameRE().MatchString(name) {
		return fmt.Errorf("%q is no name for a key\nletters, digits and . _ @ + - are fine, 64 at most", name)
	}
	if !role.Valid() {
		return fmt.Errorf("there is no role %q\nit is read, push or admin", string(role))
	}
	if role == Admin && apps != nil {
		return errors.New("an admin may do everything, so there are no apps to name\nleave the apps out, or give the role push")
	}
	for _, app := range apps {
		if err := config.ValidName(app); err != nil {
			return err
		}
	}
	if apps != nil && len(apps) == 0 {
		return errors.New("the list of apps is empty\nname some, or leave it out to mean all")
	}
	e, err := parsePlain(keyLine)
	if err != nil {
		return err
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	if k.main.bad != nil {
		return fmt.Errorf("adding the key of %q: %w", name, k.main.bad)
	}
	if other := k.entries[e.key]; other != nil {
		if other.extra {
			return fmt.Errorf("this key is the one of %q already (%s)\nit is an admin's as long as it is there", other.Name, other.Source)
		}
		return fmt.Errorf("this key is the one of %q already (%s)\nto change its role: keys remove %s, then keys add", other.Name, other.Source, other.Name)
	}
	fields := strings.Fields(keyLine)
	options := []string{fmt.Sprintf("role=%q", string(role))}
	if apps != nil {
		options = append(options, fmt.Sprintf("apps=%q", strings.Join(apps, ",")))
	}
	line := strings.Join(options, ",") + " " + fields[0] + " " + fields[1] + " " + name + "\n"
	err = k.edit(func(text string) string {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return text + line
	})
	if err != nil {
		return fmt.Errorf("adding the key of %q: %w", name, err)
	}
	return nil
}

// Remove takes out every key with the name and returns how many there were. Those
// that come from elsewhere stay, which is an error, also where others were removed.
// They are out when it returns, also where another line of the file is bad and
// an older version is in force.
func (k *Keyring) Remove(name string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	named := func(e *Entry) bool { return e != nil && e.Name == name }
	before := len(k.main.entries)
	inFile := 0
	err := k.edit(func(text string) string {
		var kept strings.Builder
		for line := range strings.Lines(text) {
			if e, err := parseLine(line); err == nil && named(e) {
				inFile++
				continue
			}
			kept.WriteString(line)
		}
		return kept.String()
	})
	if err != nil {
		return 0, fmt.Errorf("removing the key of %q: %w", name, err)
	}
	k.main.entries = slices.DeleteFunc(k.main.entries, named)
	k.index()
	n := max(inFile, before-len(k.main.entries))
	for _, path := range sortedPaths(k.extras) {
		f := k.extras[path]
		i := slices.IndexFunc(f.entries, named)
		if i < 0 || k.entries[f.entries[i].key] != f.entries[i] {
			continue
		}
		source := f.entries[i].Source
		if n == 0 {
			return 0, fmt.Errorf("the key of %q is not scotch's to remove: it comes from %s", name, source)
		}
		return n, fmt.Errorf("removed %d of %s's keys; another one stays, which is not scotch's to remove: it comes from %s", n, name, source)
	}
	return n, nil
}

// parsePlain reads the one public key that a person gives.
func parsePlain(text string) (*Entry, error) {
	text = strings.TrimSpace(text)
	switch {
	case isPrivate(text):
		return nil, errors.New("this is a private key: keep it to yourself, scotch never needs it\ngive the public half, the file that ends in .pub; if others may have seen this one, make a new pair")
	case strings.HasPrefix(text, "---- BEGIN SSH2"):
		return nil, errors.New("this key is in the format of RFC 4716\nturn it into OpenSSH's: ssh-keygen -i -f FILE")
	case text == "":
		return nil, errors.New("there is no key\ngive a public key, one line as in a file that ends in .pub")
	case strings.Contains(text, "\n"):
		return nil, errors.New("this is more than one line\ngive one public key at a time")
	}
	e, err := parseLine(text)
	if err != nil {
		return nil, fmt.Errorf("the key is refused: %w", err)
	}
	fields := strings.Fields(text)
	if e == nil || fields[0] != e.Type {
		return nil, errors.New("this is no plain public key\ngive one line as in a file that ends in .pub, without options")
	}
	return e, nil
}

// edit changes the text of the keyring's own file, durably and at once, and
// reads it anew. A change that somebody else made since it was read is kept:
// the file is read here again.
func (k *Keyring) edit(change func(string) string) error {
	path := k.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	data, err := readFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := change(string(data))
	if text == string(data) {
		return nil
	}
	if err := writeFile(path, []byte(text)); err != nil {
		return err
	}
	k.refresh()
	return nil
}

// writeFile replaces the file by a rename, and returns when file and name are on disk.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
