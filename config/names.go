package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// Values that end up in nginx's and uWSGI's files are checked here, by pattern:
// `nginx -t` passes "~.*", "$host" and a newline with directives behind it, and
// uWSGI expands %x, $(…) and @(…) in the values of its ini files.

var (
	namePattern        = pattern(`^[a-z][a-z0-9_-]{0,39}$`)
	envPattern         = pattern(`^[A-Za-z_][A-Za-z0-9_]*$`)
	userPattern        = pattern(`^[a-z_][a-z0-9_-]{0,31}$`)
	idPattern          = pattern(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	labelPattern       = pattern(`^[a-z0-9][a-z0-9_-]{0,62}$`) // also what an app's name may be
	prefixPattern      = pattern(`^/([A-Za-z0-9._-]+/)*$`)
	healthPattern      = pattern(`^/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*$`)
	relativePattern    = pattern(`^[A-Za-z0-9._@+/-]+$`)
	interpreterPattern = pattern(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)
	entryPattern       = pattern(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\(\))?$`)
	scpPattern         = pattern(`^([A-Za-z0-9_.-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^:\s]\S*$`)
)

// ValidName tells whether a name may be an app's: ^[a-z][a-z0-9_-]{0,39}$.
func ValidName(name string) error {
	if namePattern().MatchString(name) {
		return nil
	}
	shown := name
	if len(shown) > 60 {
		shown = shown[:60] + "…"
	}
	if bare := strings.TrimSuffix(filepath.Base(name), ".cfg"); bare != name && namePattern().MatchString(bare) {
		return fmt.Errorf("%q is no name for an app\nname the app alone: %s", shown, bare)
	}
	return fmt.Errorf("%q is no name for an app\nuse a lower-case letter, then letters, digits, - and _, at most 40 in all", shown)
}

// ValidEnvName tells whether a name may be an environment variable's.
func ValidEnvName(name string) error {
	if !envPattern().MatchString(name) {
		return fmt.Errorf("%q is no name for an environment variable\nuse letters, digits and _, not a digit first", name)
	}
	return nil
}

// maxSocketPath is what sockaddr_un.sun_path holds on Linux, unix(7): 108 bytes
// with the NUL at the end.
const maxSocketPath = 107

// CheckSocketPath tells whether a unix socket can have this path.
func CheckSocketPath(path string) error {
	if len(path) <= maxSocketPath {
		return nil
	}
	return fmt.Errorf("the socket's path %q has %d bytes, a unix socket's has at most %d\nshorten what it begins with: [app] run_path or [paths] instances for an app's, [paths] run for the server's", path, len(path), maxSocketPath)
}

// parsePath takes an absolute path, and cleans it. It goes into files of nginx
// and uWSGI, into PATH and into scripts of a virtualenv, so what means something
// there is refused.
func parsePath(s string) (string, error) {
	if s == "" {
		return "", errors.New("must be an absolute path, and is empty")
	}
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune("\"'`\\$%:;{}()[]<>*?|&#", r) {
			return "", fmt.Errorf("the path %q holds %q, which other programs' files can't", s, r)
		}
	}
	if !filepath.IsAbs(s) {
		return "", fmt.Errorf("must be an absolute path, not %q", s)
	}
	return filepath.Clean(s), nil
}

// parseRelative takes a path inside some directory: slash-separated, never out of it.
func parseRelative(s string) (string, error) {
	if !relativePattern().MatchString(s) || path.IsAbs(s) || strings.HasPrefix(s, "-") {
		return "", fmt.Errorf("must be a relative path of letters, digits and . _ - + @ /, not %q", s)
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == ".." {
			return "", fmt.Errorf("the path %q leads out of its directory", s)
		}
		if part == ".git" {
			return "", fmt.Errorf("the path %q is git's own", s)
		}
	}
	return path.Clean(s), nil
}

func parseRoot(s string) (string, error) {
	p, err := parseRelative(s)
	if p == "." {
		p = ""
	}
	return p, err
}

func parsePersist(s string) ([]string, error) {
	var (
		all  []string
		errs []error
	)
	for _, word := range strings.Fields(s) {
		p, err := parseRelative(word)
		if err == nil && p == "." {
			err = errors.New("the whole source can't be kept across releases")
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, other := range all {
			if strings.HasPrefix(p+"/", other+"/") || strings.HasPrefix(other+"/", p+"/") {
				errs = append(errs, fmt.Errorf("the path %q is inside %q, or the same", p, other))
			}
		}
		all = append(all, p)
	}
	return all, errors.Join(errs...)
}

// parseSource takes what git can fetch from without asking or running anything:
// no option, no remote helper such as ext::, no path that depends on where the
// server happens to run.
func parseSource(s string) (string, error) {
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return "", fmt.Errorf("the source %q holds white space", redactURL(s))
		}
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		u, err := url.Parse(s)
		switch scheme {
		case "https", "http", "ssh", "git":
			if err != nil || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") || strings.HasPrefix(u.User.Username(), "-") {
				return "", fmt.Errorf("%q is no URL of a repository", redactURL(s))
			}
		case "file":
			if !strings.HasPrefix(rest, "/") {
				return "", fmt.Errorf("%q has no absolute path\nwrite file:///PATH", s)
			}
		default:
			return "", fmt.Errorf("%q can't be fetched from\nuse https, http, ssh, git or file", redactURL(s))
		}
		return s, nil
	}
	if filepath.IsAbs(s) {
		return filepath.Clean(s), nil
	}
	if scpPattern().MatchString(s) && !strings.Contains(s, "::") {
		return s, nil
	}
	return "", fmt.Errorf("%q is neither a git URL nor an absolute path\nthe server reads it, in no particular directory and with no home: write the whole path", s)
}

// redactURL keeps a password in a URL out of an error.
func redactURL(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	if _, host, ok := strings.Cut(rest, "@"); ok {
		rest = "…@" + host
	}
	return scheme + "://" + rest
}

// parseHost takes a host's name without a port, in lower case.
func parseHost(s string) (string, error) {
	h := strings.ToLower(s)
	if bare := bareHost(h); bare != "" {
		return "", fmt.Errorf("%q is no host's name\nwrite the name alone: %s", s, bare)
	}
	for _, r := range h {
		if r > 0x7f {
			return "", fmt.Errorf("the host %q has letters outside ASCII\nwrite it in punycode: xn--…", s)
		}
	}
	if _, port, ok := strings.Cut(h, ":"); ok && strings.Trim(port, "0123456789") == "" {
		return "", fmt.Errorf("the host %q has a port\nwrite the name alone: the web server's port is [nginx] listen", s)
	}
	ok := h != "" && len(h) <= 253
	for label := range strings.SplitSeq(h, ".") {
		ok = ok && labelPattern().MatchString(label)
		if code, puny := strings.CutPrefix(label, "xn--"); puny && !validPunycode(code) {
			return "", fmt.Errorf("the host %q has %q in it, which is no punycode\nwrite what the name is registered as", s, label)
		}
	}
	if !ok {
		return "", fmt.Errorf("%q is no host's name", s)
	}
	return h, nil
}

// bareHost is the host in a URL, or in a name with the root's dot behind it; ""
// for anything else.
func bareHost(s string) string {
	host := strings.TrimSuffix(s, ".")
	if _, rest, isURL := strings.Cut(s, "://"); isURL {
		host, _, _ = strings.Cut(rest, "/")
		host, _, _ = strings.Cut(host, ":")
	}
	if host == s || host == "" {
		return ""
	}
	if h, err := parseHost(host); err == nil {
		return h
	}
	return ""
}

// parseDomains takes hosts, *.HOST and *, each once.
func parseDomains(s string) ([]string, error) {
	var (
		all  []string
		errs []error
		seen = make(map[string]bool)
	)
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return isSpace(r) || r == ',' }) {
		domain := word
		if word != "*" {
			name, wild := strings.CutPrefix(word, "*.")
			host, err := parseHost(name)
			if err != nil {
				// In nginx's server_name, which scotch 0.3 copied them into, they mean something.
				if below, dot := strings.CutPrefix(word, "."); dot {
					if h, bad := parseHost(below); bad == nil {
						err = fmt.Errorf("%w\nfor the host and all below it write: %s *.%s", err, h, h)
					}
				} else if word == "_" {
					err = fmt.Errorf("%w\nfor every host write *", err)
				}
				if strings.Contains(name, "*") {
					err = fmt.Errorf("%q has a * elsewhere than at its beginning\nwrite *.HOST, or * alone for every host", word)
				}
				errs = append(errs, err)
				continue
			}
			domain = host
			if wild {
				domain = "*." + host
			}
		}
		if !seen[domain] {
			seen[domain] = true
			all = append(all, domain)
		}
	}
	return all, errors.Join(errs...)
}

// parsePrefix takes a URL path, with or without the first and the last slash, as
// scotch 0.3 did.
func parsePrefix(s string) (string, error) {
	p := strings.TrimSuffix(s, "/") + "/"
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return p, checkURLPath(p, s)
}

// checkURLPath checks a URL path that ends with a slash; written is how a person wrote it.
func checkURLPath(p, written string) error {
	if !prefixPattern().MatchString(p) || strings.Contains(p, "/./") || strings.Contains(p, "/../") {
		return fmt.Errorf("must be a path such as / or /shop/, of letters, digits and . _ -, not %q", written)
	}
	return nil
}

// maxStatic is how many directories of an app the web server is told of. Each is
// mapped file by file at every start.
const maxStatic = 100

func parseStatic(url, value string) (Static, error) {
	s := Static{URL: url}
	if !strings.HasPrefix(url, "/") || !strings.HasSuffix(url, "/") {
		return s, fmt.Errorf("the URL %q must begin and end with /", url)
	}
	if err := checkURLPath(url, url); err != nil {
		return s, err
	}
	if url == "/" {
		return s, errors.New("the URL \"/\" would hide the app")
	}
	rest, data := strings.CutPrefix(value, "data:")
	p, err := parseRelative(rest)
	if err != nil {
		return s, err
	}
	if p == "." {
		return s, errors.New("the whole directory would be for everybody to read\nname a directory in it")
	}
	s.Path, s.Data = p, data
	return s, nil
}

func parseHealthPath(s string) (string, error) {
	if !healthPattern().MatchString(s) {
		return "", fmt.Errorf("must be a path that begins with /, not %q", s)
	}
	return s, nil
}

func parseUser(s string) (string, error) {
	if !userPattern().MatchString(s) {
		return "", fmt.Errorf("%q is no name for a user or group of the system", s)
	}
	return s, nil
}

// parseAppUser takes a user that an app may run as.
func parseAppUser(s string) (string, error) {
	if s == "root" {
		return "", errors.New("no app runs as root\nremove the line, and the app gets a user of its own")
	}
	return parseUser(s)
}

// shortUser keeps a name within the 32 characters of useradd(8).
func shortUser(s string) string {
	if len(s) <= 32 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return s[:23] + "-" + hex.EncodeToString(sum[:4])
}

func parseInterpreter(s string) (string, error) {
	if filepath.IsAbs(s) {
		return parsePath(s)
	}
	if !interpreterPattern().MatchString(s) {
		return "", fmt.Errorf("must be a program's name such as python3.11, or an absolute path, not %q", s)
	}
	return s, nil
}

func parseEntryPoint(s string) (string, error) {
	if !entryPattern().MatchString(s) {
		return "", fmt.Errorf("must be MODULE:CALLABLE, with () for a factory, not %q\nfor the application in blog/wsgi.py write blog.wsgi:application; what lies in another directory needs [app] root = DIRECTORY", s)
	}
	return s, nil
}

// parseBranch follows git-check-ref-format(1).
func parseBranch(s string) (string, error) {
	b := strings.TrimPrefix(s, "refs/heads/")
	bad := b == "" || b == "@" || b == "HEAD" || len(b) > 200 || strings.HasPrefix(b, "-") || strings.HasSuffix(b, ".") ||
		strings.Contains(b, "..") || strings.Contains(b, "@{") || strings.ContainsAny(b, " ~^:?*[\\\x7f")
	for part := range strings.SplitSeq(b, "/") {
		bad = bad || part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	for _, r := range b {
		bad = bad || !unicode.IsPrint(r)
	}
	if bad {
		return "", fmt.Errorf("%q is no name for a branch", s)
	}
	return b, nil
}

// parseListen takes HOST:PORT, :PORT and PORT.
func parseListen(s string) (string, error) {
	if strings.Trim(s, "0123456789") == "" {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	n, err2 := strconv.Atoi(port)
	if err != nil || err2 != nil || n < 0 || n > 65535 || strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return "", fmt.Errorf("must be HOST:PORT or :PORT, not %q", s)
	}
	return s, nil
}
