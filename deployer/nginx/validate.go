package nginx

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// What may be written into nginx's configuration. Nothing here has a character
// that means something to it: white space, quotes, $, ;, {, }, ~ or \.
var (
	appName  = pattern(`\A[a-z][a-z0-9_-]{0,39}\z`)
	userName = pattern(`\A[A-Za-z0-9_][A-Za-z0-9._-]{0,31}\z`)
	// Letters and digits of any script: home directories have them.
	pathName = pattern(`\A/[\p{L}\p{N}._+@=/-]*\z`)
	relative = pattern(`\A[\p{L}\p{N}._+@=-]+(/[\p{L}\p{N}._+@=-]+)*\z`)
	// An underscore is no letter of a host's name, but one of an app's, and
	// apps' names become labels. None begins with it, so that a file's name
	// can say "wildcard" with it.
	hostName = pattern(`\A(\*\.)?([a-z0-9][a-z0-9_-]{0,62}\.)*[a-z0-9][a-z0-9_-]{0,62}\z`)
	urlPath  = pattern(`\A/([A-Za-z0-9._-]+/)*\z`)
	globName = pattern(`\A/[\p{L}\p{N}._+@=*/-]*\z`)
)

// socketMax is the length of sun_path in bytes, without the NUL that ends it
// (unix(7)).
const socketMax = 107

// acmePath is where challenges are looked for (RFC 8555, 8.3).
const acmePath = "/.well-known/acme-challenge/"

// problems collects what is wrong.
type problems []error

func (p *problems) add(err error) {
	if err != nil {
		*p = append(*p, err)
	}
}

func (p problems) err() error { return errors.Join(p...) }

func checkPath(p string) error {
	if !pathName().MatchString(p) {
		return fmt.Errorf("nginx can't take the path %q\nuse an absolute path of letters, digits and . _ + @ = - alone", p)
	}
	return nil
}

// checkApp checks what configuration takes and nginx does not, as part of an
// app's configuration, so that it has its file and line.
func checkApp(a *config.App, fail func(section, key string, err error)) {
	if isACME(a.URLPrefix) {
		fail("app", "url_prefix", errACME(a.URLPrefix))
	}
	for _, s := range a.Static {
		if isACME(s.URL) {
			fail("static", s.URL, errACME(s.URL))
		}
	}
	if v, _, err := a.Lookup("nginx", "include"); err == nil {
		if err := checkIncludePath(strings.TrimSpace(v)); err != nil {
			fail("nginx", "include", err)
		}
	}
}

func isACME(u string) bool { return u == acmePath }

func errACME(u string) error { return fmt.Errorf("%q is kept for the challenges of ACME", u) }

// checkRoute matches every value that the templates write.
func checkRoute(r deployer.Route) error {
	var errs problems
	a := r.App
	if !appName().MatchString(a.Name) {
		return fmt.Errorf("%q is no name of an app", a.Name)
	}
	if len(a.Domains) == 0 {
		errs.add(fmt.Errorf("[app] domains of %q is empty", a.Name))
	}
	for i, d := range a.Domains {
		errs.add(checkDomain(d))
		for _, e := range a.Domains[:i] {
			if d == e {
				errs.add(fmt.Errorf("[app] domains has %q twice", d))
			}
		}
	}
	errs.add(checkURL("[app] url_prefix", a.URLPrefix))
	for what, p := range map[string]string{"the socket": r.Socket, "the source": r.Source, "the data": r.Data, "the mark of a stopped app": r.Stopped} {
		if err := checkPath(p); err != nil {
			errs.add(fmt.Errorf("%s of %q: %w", what, a.Name, err))
		}
	}
	if len(r.Socket) > socketMax {
		errs.add(fmt.Errorf("the path of a unix socket has at most %d bytes, and %q has %d\nset a shorter [paths] instances", socketMax, r.Socket, len(r.Socket)))
	}
	switch r.Protocol {
	case "", deployer.ProtocolUWSGI, deployer.ProtocolHTTP:
	default:
		errs.add(fmt.Errorf("the socket of %q speaks %q, and nginx knows %s and %s here", a.Name, r.Protocol, deployer.ProtocolUWSGI, deployer.ProtocolHTTP))
	}
	if a.MaxBody < 0 {
		errs.add(fmt.Errorf("[app] max_body is negative"))
	}
	if a.Timeout <= 0 {
		errs.add(fmt.Errorf("[app] timeout %s is too short", a.Timeout))
	}
	for i, s := range a.Static {
		errs.add(checkStatic(s))
		for _, t := range a.Static[:i] {
			if s.URL == t.URL {
				errs.add(fmt.Errorf("[static] has %q twice", s.URL))
			}
		}
	}
	return errs.err()
}

func checkDomain(d string) error {
	if d == "*" {
		return nil
	}
	if len(d) > 253 || !hostName().MatchString(d) {
		return fmt.Errorf("[app] domains: %q is no host\nuse a name such as blog.example.org, *.example.org for all below it, or * for every host", d)
	}
	return nil
}

func checkURL(what, u string) error {
	bad := !urlPath().MatchString(u)
	for s := range strings.SplitSeq(u, "/") {
		bad = bad || s == "." || s == ".."
	}
	if bad {
		return fmt.Errorf("%s: %q is no path of a URL\nuse letters, digits and . _ - between slashes, with one at both ends", what, u)
	}
	if isACME(u) {
		return fmt.Errorf("%s: %w", what, errACME(u))
	}
	return nil
}

func checkStatic(s config.Static) error {
	if err := checkURL("[static]", s.URL); err != nil {
		return err
	}
	if s.URL == "/" {
		return fmt.Errorf("[static] / would hide the whole app\nuse a path below it, such as /static/")
	}
	p := strings.TrimSuffix(s.Path, "/")
	if s.Data && p == "" {
		return nil // all of the app's data, by its own choice
	}
	if !relative().MatchString(p) || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return fmt.Errorf("[static] %s: %q is no folder below the app's source\nuse a relative path of letters, digits and . _ + @ = - alone", s.URL, s.Path)
	}
	return nil
}

// checkInclude checks an operator's include.
func checkInclude(p string) error {
	if err := checkIncludePath(p); err != nil {
		return fmt.Errorf("[nginx] include: %w", err)
	}
	return nil
}

func checkIncludePath(p string) error {
	if p != "" && !globName().MatchString(p) {
		return fmt.Errorf("nginx can't take the path %q\nuse an absolute path of letters, digits and . _ + @ = - alone", p)
	}
	return nil
}

// address is where nginx listens.
type address struct {
	host string // with brackets for IPv6; empty for every address
	port int
}

func parseAddress(s string) (address, error) {
	bad := fmt.Errorf("%q is no address\nuse a port (80), HOST:PORT with a number as host (127.0.0.1:8080), or [IPV6]:PORT", s)
	host, port := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
		if err != nil || ip.Zone() != "" || ip.Is6() != strings.HasPrefix(host, "[") {
			return address{}, bad
		}
		host = ip.String()
		if ip.Is6() {
			host = "[" + host + "]"
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return address{}, bad
	}
	return address{host, int(n)}, nil
}

// directives are the values of nginx's listen.
func (a address) directives(ipv6 bool) []string {
	port := strconv.Itoa(a.port)
	switch {
	case a.host != "":
		return []string{a.host + ":" + port}
	case ipv6:
		return []string{port, "[::]:" + port}
	}
	return []string{port}
}
