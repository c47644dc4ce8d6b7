package python

import (
	"fmt"
	"strings"
)

// hidden stands where a recorded address had a secret.
const hidden = "****"

// address is where a package comes from that no index has. It is taken apart as
// text: "${TOKEN}", which installers expand in a requirements file, must survive.
type address struct {
	scheme   string // "https", "git+ssh"
	user     string // and password
	place    string // host and path
	rev      string // of a version control's address
	query    string
	fragment string
}

// parseAddress reads what pip and uv take for an address
// (https://pip.pypa.io/en/stable/topics/vcs-support/).
func parseAddress(s string) (address, bool) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme == "" || strings.ContainsAny(scheme, " /@#") {
		return address{}, false
	}
	a := address{scheme: strings.ToLower(scheme)}
	rest, a.fragment, _ = strings.Cut(rest, "#")
	rest, a.query, _ = strings.Cut(rest, "?")
	host, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		a.user, host = host[:i], host[i+1:]
	}
	if i := strings.LastIndexByte(path, '@'); i >= 0 && a.vcs() {
		path, a.rev = path[:i], path[i+1:]
	}
	a.place = host + path
	return a, true
}

func (a address) vcs() bool { return vcsPattern().MatchString(a.scheme) }

func (a address) String() string {
	var b strings.Builder
	b.WriteString(a.scheme + "://")
	if a.user != "" {
		b.WriteString(a.user + "@")
	}
	b.WriteString(a.place)
	if a.rev != "" {
		b.WriteString("@" + a.rev)
	}
	if a.query != "" {
		b.WriteString("?" + a.query)
	}
	if a.fragment != "" {
		b.WriteString("#" + a.fragment)
	}
	return b.String()
}

// public is the address without credentials: no password, no token that stands
// for a user, nothing of a query, where signatures and tokens are.
func (a address) public() address {
	login := strings.HasSuffix(a.scheme, "ssh") && !strings.ContainsAny(a.user, ":$%")
	if a.user != "" && a.user != "git" && !login {
		a.user = hidden
	}
	if a.query != "" {
		a.query = hidden
	}
	return a
}

// incomplete tells that public has taken something out.
func (a address) incomplete() bool { return strings.Contains(a.String(), hidden) }

func (a address) samePlace(b address) bool {
	clean := func(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "/"), ".git") }
	return a.scheme == b.scheme && strings.EqualFold(clean(a.place), clean(b.place))
}

// unsafe is what must not stand in a line of a requirements file: spaces end an
// address, "${NAME}" is expanded, quotes and backslashes are read by some options.
var unsafe = pattern(`[^A-Za-z0-9._~:/?#@!&()*+,;=%\[\]-]`)

func escape(s string) string {
	return unsafe().ReplaceAllStringFunc(s, func(c string) string {
		var b strings.Builder
		for _, x := range []byte(c) {
			fmt.Fprintf(&b, "%%%02X", x)
		}
		return b.String()
	})
}

// addressedRequirement is a requirement of the source that names an address.
type addressedRequirement struct {
	name string // normalised, "" where it names none
	at   address
}

func readAddressed(text string) (addressedRequirement, bool) {
	text, _, _ = strings.Cut(text, " --")
	text, _, _ = strings.Cut(strings.TrimSpace(text), " ;")
	var q addressedRequirement
	if m := addressed().FindStringSubmatch(text); m != nil {
		q.name, text = normal(namePattern().FindString(text)), m[1]
	}
	var ok bool
	if q.at, ok = parseAddress(strings.TrimSpace(text)); !ok {
		return q, false
	}
	for part := range strings.SplitSeq(q.at.fragment, "&") {
		if egg, ok := strings.CutPrefix(part, "egg="); ok && q.name == "" {
			q.name = normal(namePattern().FindString(egg))
		}
	}
	return q, true
}
