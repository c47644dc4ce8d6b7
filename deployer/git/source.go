package git

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is an [app] src, taken apart.
type source struct {
	// address is what git is called with: it holds no password, because all
	// users of a machine can read a program's arguments.
	address string
	shown   string // for people
	host    string // "git.example.org" of an address, with a port where it names one
	path    string // of a source on this machine
	ssh     bool

	// What http asks for, "" for nothing; given to git through its environment.
	scope, username, password string
	secrets                   []string
}

// scpLike is git's short form of an ssh address, HOST:PATH with or without a user.
var scpLike = pattern(`^([^/:@]+@)?([A-Za-z0-9][^/:]*):.`)

// parseSource refuses what git would take for an option, a helper program or a
// path that depends on where it runs.
func parseSource(src string) (*source, error) {
	s := &source{address: src, shown: redact(src)}
	scheme, rest, isURL := strings.Cut(src, "://")
	switch {
	case strings.ContainsFunc(src, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, fmt.Errorf("[app] src is %q, which no address looks like", redact(src))
	case isURL && scheme == "file":
		s.path = rest
		return s, nil
	case isURL:
		return s, s.parseURL(scheme)
	case filepath.IsAbs(src):
		s.path = src
		return s, nil
	case strings.Contains(src, "::"):
	case scpLike().MatchString(src):
		s.ssh, s.host = true, scpLike().FindStringSubmatch(src)[2]
		return s, nil
	}
	return nil, fmt.Errorf("[app] src is %q: neither an address nor an absolute path\nexamples: https://example.org/blog.git, git@example.org:me/blog, /srv/git/blog.git", src)
}

func (s *source) parseURL(scheme string) error {
	switch scheme {
	case "https", "http", "ssh", "git":
	default:
		return fmt.Errorf("[app] src is %q: %q is no way to fetch\nuse https://, ssh://, git://, http://, file:// or a path", s.shown, scheme)
	}
	u, err := url.Parse(s.address)
	if err != nil {
		return fmt.Errorf("[app] src is %q, which is no URL", s.shown)
	}
	s.host, s.ssh = u.Host, scheme == "ssh"
	password, has := u.User.Password()
	if scheme == "ssh" || scheme == "git" {
		if has {
			return fmt.Errorf("[app] src is %q: %s takes no password from an address\nwrite it without one, and give the app's deploy key access there: scotch key APP shows it", s.shown, scheme)
		}
		return nil
	}
	if u.User == nil {
		return nil
	}
	s.username, s.password = u.User.Username(), password
	// git hands them on by line (git-credential(1)).
	if strings.ContainsFunc(s.username+s.password, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("[app] src is %q: its name or password holds a control character", s.shown)
	}
	s.secrets = []string{s.password}
	if s.password == "" || s.password == "x-oauth-basic" {
		s.secrets = []string{s.username} // a token alone
	}
	for _, p := range slices.Clone(s.secrets) {
		s.secrets = append(s.secrets, url.PathEscape(p), url.QueryEscape(p))
	}
	s.secrets = slices.DeleteFunc(append(s.secrets, u.User.String()), func(p string) bool { return len(p) < 4 })
	s.scope = scheme + "://" + u.Host
	u.User = nil
	s.address = u.String()
	return nil
}

// login adds to a git's environment what answers a question for name and
// password, for that host alone. git would put them into the arguments of
// git-remote-https where they stand in the address.
func (s *source) login(env []string) []string {
	if s.scope == "" {
		return env
	}
	const helper = `!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$SCOTCH_FETCH_USERNAME" "$SCOTCH_FETCH_PASSWORD"; }; f`
	env = set(env, [2]string{"credential." + s.scope + ".helper", helper})
	return append(env, "SCOTCH_FETCH_USERNAME="+s.username, "SCOTCH_FETCH_PASSWORD="+s.password)
}

// hidden are pairs for a strings.Replacer: what nobody may read, and its stand-in.
func (s *source) hidden() []string {
	var pairs []string
	for _, p := range s.secrets {
		pairs = append(pairs, p, "***")
	}
	return pairs
}

// missing says that there is nothing at a source's path.
func (s *source) missing() error {
	if s.path == "" {
		return nil
	}
	switch _, err := os.Stat(s.path); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is nothing at that path on this server\ncheck [app] src")
	case err != nil && !errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w\ncheck [app] src", err)
	}
	return nil
}

// isRepository tells whether what lies at a source's path looks like a repository.
func (s *source) isRepository() bool {
	for _, head := range []string{"HEAD", ".git"} {
		if _, err := os.Stat(filepath.Join(s.path, head)); err == nil {
			return true
		}
	}
	return false
}

// redact hides the password of an address.
func redact(src string) string {
	scheme, rest, ok := strings.Cut(src, "://")
	if !ok {
		return src
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		// A password may hold what an address may not.
		if at = strings.LastIndexByte(rest, '@'); at < 0 || !strings.Contains(rest[:end], ":") {
			return src
		}
	}
	if name, _, has := strings.Cut(rest[:at], ":"); !has && scheme == "ssh" || name == "" {
		return src // no password; ssh's name is no secret
	}
	return scheme + "://***" + rest[at:]
}
