package access

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxFile is the most that is read of a file of keys: some ten thousand keys.
const maxFile = 8 << 20 // bytes

// Keyring is the set of keys that may connect, as the files that hold it say it
// now. All its methods may be called at the same time.
type Keyring struct {
	// Report is told what is wrong with a file, once for each version of it.
	// Set it before the first use. nil: nobody is told.
	Report func(error)

	path  string
	extra []string

	mu      sync.Mutex
	main    keyFile
	extras  map[string]*keyFile
	entries map[string]*Entry // by key; what is in force
}

// keyFile is what is known of one file.
type keyFile struct {
	read    bool // that it was looked at before
	unread  bool // that it could not be read the last time
	stamp   stamp
	entries []*Entry // in force
	bad     error    // of its newest version
}

// stamp tells versions of a file apart. A rename onto the file changes its
// inode, a write in place its size or time.
type stamp struct {
	modified time.Time
	changed  syscall.Timespec // its inode: whoever sets the time back can't set this one
	size     int64
	device   uint64
	inode    uint64
	missing  bool // no such file
}

// OpenKeyring returns the keyring in the file path, which need not exist yet.
// The keys in extra, files or glob patterns (filepath.Match) of plain public
// keys, are admins besides. Nothing is read before the first use.
func OpenKeyring(path string, extra ...string) *Keyring {
	return &Keyring{path: path, extra: extra, extras: map[string]*keyFile{}}
}

// Find tells who a key belongs to, for a connection from addr at the time now.
// The key must have been proved, or the answer be used for nothing but whether
// to ask for a proof.
func (k *Keyring) Find(key ssh.PublicKey, addr net.Addr, now time.Time) (Identity, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	e, ok := k.entries[string(key.Marshal())]
	if !ok {
		return Identity{}, false
	}
	id := Identity{Name: e.Name, Fingerprint: e.Fingerprint, Role: e.Role, Apps: slices.Clone(e.Apps)}
	var ip netip.Addr
	if addr != nil {
		id.Addr = addr.String()
		if ap, err := netip.ParseAddrPort(id.Addr); err == nil {
			ip = ap.Addr()
		}
	}
	if !e.allows(ip, now) {
		return Identity{}, false
	}
	return id, true
}

// Again tells who a key belongs to now that was proved before, by its fingerprint,
// for what a connection from addr began. Its error says why the key does not count
// any more, in words that go behind its name.
func (k *Keyring) Again(fingerprint, addr string, now time.Time) (Identity, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	for _, e := range k.entries {
		if e.Fingerprint != fingerprint {
			continue
		}
		var ip netip.Addr
		if ap, err := netip.ParseAddrPort(addr); err == nil {
			ip = ap.Addr()
		}
		switch {
		case !e.Expires.IsZero() && !now.Before(e.Expires):
			return Identity{}, errors.New("has expired")
		case !e.allows(ip, now):
			return Identity{}, errors.New("may not come from there any more")
		}
		return Identity{Name: e.Name, Fingerprint: e.Fingerprint, Role: e.Role, Apps: slices.Clone(e.Apps), Addr: addr}, nil
	}
	return Identity{}, errors.New("was removed")
}

// List returns the keys in force, those of the keyring's own file first, in
// the order of their files. The error says what is wrong with the newest
// version of a file; the entries are what is in force all the same.
func (k *Keyring) List() ([]Entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	var out []Entry
	bad := []error{k.main.bad}
	add := func(f *keyFile) {
		for _, e := range f.entries {
			if k.entries[e.key] == e {
				c := *e
				c.Apps = slices.Clone(e.Apps)
				out = append(out, c)
			}
		}
	}
	add(&k.main)
	for _, path := range sortedPaths(k.extras) {
		add(k.extras[path])
		bad = append(bad, k.extras[path].bad)
	}
	return out, errors.Join(bad...)
}

// refresh reads the files that have changed since the last time.
func (k *Keyring) refresh() {
	changed := k.main.refresh(k.path, parseMain, k.report)
	for path := range k.extras {
		if !slices.Contains(k.extraPaths(), path) {
			delete(k.extras, path)
			changed = true
		}
	}
	for _, path := range k.extraPaths() {
		f, ok := k.extras[path]
		if !ok {
			f = &keyFile{}
			k.extras[path] = f
		}
		changed = f.refresh(path, parseExtra, k.report) || changed
	}
	if changed || k.entries == nil {
		k.index()
	}
}

// index rebuilds the map of what is in force. The keyring's own file is the
// more explicit one and wins over the extra keys.
func (k *Keyring) index() {
	k.entries = map[string]*Entry{}
	for _, e := range k.main.entries {
		k.entries[e.key] = e
	}
	for _, path := range sortedPaths(k.extras) {
		for _, e := range k.extras[path].entries {
			if _, ok := k.entries[e.key]; !ok {
				k.entries[e.key] = e
			}
		}
	}
}

func (k *Keyring) extraPaths() []string {
	var out []string
	for _, pattern := range k.extra {
		// A pattern that is none matches nothing, which is the safe side.
		paths, _ := filepath.Glob(pattern)
		out = append(out, paths...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func sortedPaths(m map[string]*keyFile) []string {
	var out []string
	for path := range m {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

func (k *Keyring) report(err error) {
	if k.Report != nil {
		k.Report(err)
	}
}

// refresh reads the file if it isn't the version that was read last, and tells
// whether what is in force changed. A bad version leaves the last good one in
// force; where there is none, its good lines are: each line only ever gives.
func (f *keyFile) refresh(path string, parse func(path string, data []byte) ([]*Entry, error), report func(error)) bool {
	now, err := stampOf(path)
	if err == nil && f.read && !f.unread && now == f.stamp {
		return false
	}
	var data []byte
	if err == nil && !now.missing {
		data, err = readFile(path)
	}
	if err != nil {
		err = fmt.Errorf("reading keys: %w", err)
		if f.bad == nil || f.bad.Error() != err.Error() {
			report(err)
		}
		f.bad, f.unread = err, true // and try again the next time
		return false
	}
	first := !f.read
	entries, bad := parse(path, data)
	f.read, f.unread, f.stamp, f.bad = true, false, now, bad
	if bad != nil {
		report(bad)
		if !first {
			return false
		}
	}
	f.entries = entries
	return true
}

// parseMain reads authorized_keys. The entries are those of the good lines.
func parseMain(path string, data []byte) ([]*Entry, error) {
	var entries []*Entry
	var bad []error
	seen := map[string]*Entry{}
	for i, line := range strings.Split(string(data), "\n") {
		e, err := parseLine(line)
		if e != nil && err == nil {
			e.Source = fmt.Sprintf("%s:%d", path, i+1)
			if other := seen[e.key]; other != nil {
				err = fmt.Errorf("it is the key of %q again", other.Name)
			}
		}
		switch {
		case err != nil:
			bad = append(bad, fmt.Errorf("%s:%d: the line is refused: %w", path, i+1, err))
		case e != nil:
			seen[e.key] = e
			entries = append(entries, e)
		}
	}
	if bad != nil {
		bad = append(bad, errors.New("until it is mended, the last good version of the file is what counts"))
	}
	return entries, errors.Join(bad...)
}

// parseExtra reads a file of plain public keys, as ssh-keygen writes it. What
// is no plain key that can be accepted is passed over: the file has other uses.
func parseExtra(path string, data []byte) ([]*Entry, error) {
	var entries []*Entry
	for i, line := range strings.Split(string(data), "\n") {
		e, err := parseLine(line)
		if err != nil || e == nil || e.From != "" || !e.Expires.IsZero() || e.Apps != nil {
			continue
		}
		e.Role, e.extra = Admin, true
		e.Source = fmt.Sprintf("%s:%d", path, i+1)
		entries = append(entries, e)
	}
	return entries, nil
}

func stampOf(path string) (stamp, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return stamp{missing: true}, nil
	}
	if err != nil {
		return stamp{}, err
	}
	s := stamp{modified: fi.ModTime(), size: fi.Size()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode, s.changed = uint64(st.Dev), st.Ino, st.Ctim
	}
	return s, nil
}

func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no regular file", path)
	}
	if fi.Size() > maxFile {
		return nil, fmt.Errorf("%q is larger than %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}
