package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// echo answers with what it was told of the request, and with the addresses
// that a framework would build of it (PEP 3333, "URL Reconstruction").
const echo = `import json
import os
from wsgiref.util import application_uri, request_uri


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({
        "app": os.environ["SCOTCH_APP"],
        "script": environ["SCRIPT_NAME"], "path": environ["PATH_INFO"], "query": environ["QUERY_STRING"],
        "host": environ["HTTP_HOST"], "server": environ["SERVER_NAME"], "port": environ["SERVER_PORT"],
        "scheme": environ["wsgi.url_scheme"],
        "base": application_uri(environ), "uri": request_uri(environ),
    }).encode()]
`

type echoed struct {
	App, Script, Path, Query, Host, Server, Port, Scheme, Base, URI string
}

// echo asks through nginx. The status of an answer that is no app's is all
// that is known of it.
func (s *standaloneWorld) echo(host, path string) (int, echoed, http.Header) {
	s.t.Helper()
	status, body, header, err := s.request(host, path)
	if err != nil {
		s.t.Fatalf("http://%s%s: %v", host, path, err)
	}
	var e echoed
	if status == http.StatusOK {
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			s.t.Errorf("http://%s%s: %v\n%s", host, path, err, body)
		}
	}
	return status, e, header
}

// place is an app at a prefix.
type place struct{ app, prefix string }

// answers checks a path below an app's prefix: rest is what the app should see
// as PATH_INFO, raw how the client writes it.
func (s *standaloneWorld) answers(host string, p place, rest, raw, query string) {
	s.t.Helper()
	script := strings.TrimSuffix(p.prefix, "/")
	url := script + raw
	if query != "" {
		url += "?" + query
	}
	status, got, _ := s.echo(host, url)
	at := fmt.Sprintf("%s:%d", host, s.http)
	base := "http://" + at + script
	want := echoed{
		App: p.app, Script: script, Path: rest, Query: query, Host: at, Server: host, Port: fmt.Sprint(s.http), Scheme: "http",
		Base: base, URI: got.URI,
	}
	if script == "" {
		want.Base += "/"
	}
	if status != http.StatusOK || got != want {
		s.t.Errorf("http://%s%s: status %d\n got %+v\nwant %+v", host, url, status, got, want)
	}
	// request_uri() decodes and quotes again, so compare where that changes nothing.
	if rest == raw && got.URI != base+strings.TrimPrefix(url, script) {
		s.t.Errorf("http://%s%s: the app would link to itself as %q", host, url, got.URI)
	}
}

// Each kind of domain with each depth of prefix, two apps on one domain all the
// while: which app answers, and what it believes its own address to be. A wrong
// SCRIPT_NAME shows in no test of an app alone: its links lead out of the
// prefix only when it is served below one.
func TestDomainsAndPrefixes(t *testing.T) {
	t.Parallel()
	s := newStandaloneWorld(t)
	steps := []struct{ one, two string }{{"/", "/two/"}, {"/a/", "/"}, {"/a/b/", "/a/"}}
	domains := []struct {
		names, hosts []string // what the app claims, and who is asked
		strangers    []string // hosts that nobody claims
	}{
		{[]string{"one.localhost"}, []string{"one.localhost"}, []string{"two.localhost", "x.one.localhost", "localhost", "127.0.0.1"}},
		{[]string{"a.localhost", "b.localhost"}, []string{"a.localhost", "b.localhost"}, []string{"one.localhost", "c.localhost"}},
		{[]string{"*.x.localhost"}, []string{"any.x.localhost", "deep.er.x.localhost"}, []string{"x.localhost", "a.localhost", "yx.localhost"}},
		{[]string{"*"}, []string{"whatever.example", "127.0.0.1"}, nil},
	}
	for i, d := range domains {
		for j, step := range steps {
			one, two := place{"one", step.one}, place{"two", step.two}
			verb := "restart"
			if i == 0 && j == 0 {
				verb = "deploy"
			}
			for _, p := range []place{one, two} {
				s.configure(p.app, "domains = %s\nurl_prefix = %s\n", strings.Join(d.names, " "), p.prefix)
				s.must(verb, p.app)
			}
			for _, host := range d.hosts {
				s.checkPlaces(host, one, two)
			}
			for _, host := range d.strangers {
				for _, path := range []string{"/", "/a/", "/two/", "/a/b/", "/favicon.ico"} {
					if status, e, _ := s.echo(host, path); status != http.StatusNotFound {
						t.Errorf("%v: http://%s%s, that nobody claims: status %d, %+v", d.names, host, path, status, e)
					}
				}
			}
			if t.Failed() {
				t.Fatalf("with domains %v and prefixes %v", d.names, step)
			}
		}
	}
}

// checkPlaces checks one host that two apps share.
func (s *standaloneWorld) checkPlaces(host string, places ...place) {
	s.t.Helper()
	// The app of a path is the one with the longest prefix.
	owner := func(path string) (best place) {
		for _, p := range places {
			if strings.HasPrefix(path, p.prefix) && len(p.prefix) > len(best.prefix) {
				best = p
			}
		}
		return best
	}
	for _, p := range places {
		s.answers(host, p, "/", "/", "")
		s.answers(host, p, "/sub/page", "/sub/page", "x=1&y=%2F")
		s.answers(host, p, "/a b/c", "/a%20b/c", "") // RFC 3986, 2.1
		s.answers(host, p, "/caf\u00c3\u00a9/", "/caf%C3%A9/", "")
		if p.prefix == "/" {
			continue
		}
		bare := strings.TrimSuffix(p.prefix, "/")
		status, _, header := s.echo(host, bare+"?q=1")
		if status != http.StatusMovedPermanently || header.Get("Location") != p.prefix+"?q=1" {
			s.t.Errorf("http://%s%s: status %d, Location %q", host, bare, status, header.Get("Location"))
		}
	}
	// Beside the prefixes: names that only begin like one, and what is above.
	for _, path := range []string{"/", "/ax", "/a/bx", "/twoo/", "/b/"} {
		status, got, _ := s.echo(host, path)
		p := owner(path)
		script := strings.TrimSuffix(p.prefix, "/")
		switch {
		case p.app == "" && status != http.StatusNotFound:
			s.t.Errorf("http://%s%s is no app's: status %d, %+v", host, path, status, got)
		case p.app != "" && (got.App != p.app || got.Script != script || got.Path != strings.TrimPrefix(path, script)):
			s.t.Errorf("http://%s%s: status %d, %+v, want %+v", host, path, status, got, p)
		}
	}
}

// A host that an app claims is that app's and no one else's, whatever its
// prefix: where no app that claims the very host has a path, the answer is 404,
// and not an app with a wildcard or with *, as nginx has it of server_name. An
// exact name wins over a wildcard, the longer wildcard over the shorter, any
// over *.
func TestClaimedHosts(t *testing.T) {
	t.Parallel()
	s := newStandaloneWorld(t)
	s.configure("all", "domains = *\n")
	s.configure("wild", "domains = *.x.localhost\nurl_prefix = /w/\n")
	s.configure("deep", "domains = *.y.x.localhost\n")
	s.configure("exact", "domains = a.x.localhost\nurl_prefix = /a/\n")
	s.must("deploy", "all", "wild", "deep", "exact")
	all, wild, deep, exact := place{"all", "/"}, place{"wild", "/w/"}, place{"deep", "/"}, place{"exact", "/a/"}
	nobody := place{}
	check := func(host, path string, p place) {
		t.Helper()
		status, got, _ := s.echo(host, path)
		if want := map[bool]int{true: http.StatusOK, false: http.StatusNotFound}[p.app != ""]; status != want || got.App != p.app {
			t.Errorf("http://%s%s: status %d from %q, want %d from %q", host, path, status, got.App, want, p.app)
		}
	}
	for _, c := range []struct {
		host, path string
		of         place
	}{
		{"a.x.localhost", "/a/", exact},
		{"a.x.localhost", "/", nobody},
		{"a.x.localhost", "/w/", nobody}, // nor below the wildcard's prefix
		{"a.x.localhost", "/other", nobody},
		{"b.x.localhost", "/w/", wild},
		{"b.x.localhost", "/", nobody},
		{"b.x.localhost", "/a/", nobody},
		{"b.y.x.localhost", "/", deep},
		{"b.y.x.localhost", "/w/", deep},
		{"x.localhost", "/", all}, // *.x.localhost is what is below it
		{"else.example", "/", all},
		{"127.0.0.1", "/a/", all},
	} {
		check(c.host, c.path, c.of)
	}
	// What is to answer there says so: it claims the host as well.
	s.configure("all", "domains = * a.x.localhost\n")
	s.must("restart", "all")
	check("a.x.localhost", "/", all)
	check("a.x.localhost", "/a/", exact)
	check("b.x.localhost", "/", nobody)
	// A host is free once nobody claims it any more.
	s.must("destroy", "exact", "--force")
	s.configure("all", "domains = *\n")
	s.must("restart", "all")
	check("a.x.localhost", "/", nobody) // the wildcard's
	check("a.x.localhost", "/w/", wild)
	s.must("destroy", "wild", "--force")
	check("a.x.localhost", "/", all)
}

// Two apps can't have one place. Who comes second is refused, with both names,
// and both go on where they were; after a restart of the server it is the same
// one that is refused, whatever the refused one's file says by then.
func TestTwoAppsAtOnePlace(t *testing.T) {
	t.Parallel()
	s := newStandaloneWorld(t)
	s.configure("one", "domains = a.localhost b.localhost\nurl_prefix = /shop\n")
	s.configure("two", "domains = b.localhost\n")
	s.must("deploy", "one", "two")
	check := func() {
		t.Helper()
		for host, p := range map[string]place{"a.localhost": {"one", "/shop/"}, "b.localhost": {"two", "/"}} {
			s.answers(host, p, "/", "/", "")
		}
		s.answers("b.localhost", place{"one", "/shop/"}, "/x", "/x", "")
	}
	check()
	refused := func(args ...string) {
		t.Helper()
		out, status := s.scotch(args...)
		if status != 1 || !strings.Contains(out, `"two" and "one" both claim b.localhost/shop/`) || !strings.Contains(out, "url_prefix") {
			t.Errorf("scotch %v exits with %d\n%s", args, status, out)
		}
		check()
	}
	// The same place in other words: case, the last slash, one domain of several.
	s.configure("two", "domains = x.localhost B.Localhost\nurl_prefix = /shop/\n")
	refused("restart", "two")
	refused("deploy", "two")
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	check()
	refused("restart", "two")
	s.must("restart", "one")
	check()
	// A third one, that was never live.
	s.configure("three", "domains = a.localhost\nurl_prefix = /shop\n")
	if out, status := s.scotch("deploy", "three"); status != 1 || !strings.Contains(out, `"three" and "one" both claim a.localhost/shop/`) {
		t.Errorf("deploy three exits with %d\n%s", status, out)
	}
	// The place is free once its app has left it.
	s.configure("one", "domains = a.localhost\n")
	s.must("restart", "one")
	s.must("restart", "two")
	s.answers("b.localhost", place{"two", "/shop/"}, "/", "/", "")
	s.must("destroy", "one", "--force")
	s.configure("three", "domains = a.localhost\n")
	s.must("deploy", "three")
	s.answers("a.localhost", place{"three", "/"}, "/", "/", "")
}

// list shows where each app is reached; dump each value and where it was
// written; both for machines too, and no secret in any.
func TestListAndDump(t *testing.T) {
	t.Parallel()
	s := newStandaloneWorld(t)
	s.commit("scotch.cfg", "[app]\npersist = media\n[env]\nFROM_SOURCE = s3cret\n")
	s.configure("one", "domains = a.localhost *.b.localhost\nurl_prefix = /shop\nbuild = true\n  true\nrelease = echo ${env:TOKEN} > /dev/null\n[env]\nTOKEN = s3cret\n[build_env]\nINDEX = https://u:s3cret@host/\n")
	s.must("deploy", "one")
	s.configure("never", "domains = never.localhost\n")

	at := fmt.Sprintf("localhost:%d/", s.http)
	urls := []string{"http://a." + at + "shop/", "http://one.b." + at + "shop/"}
	lines := strings.Split(strings.TrimSpace(s.must("list")), "\n")
	if len(lines) != 3 || strings.Fields(lines[0])[0] != "never" || !strings.HasSuffix(lines[0], "http://never."+at) ||
		!strings.HasPrefix(lines[1], "one ") || !strings.HasSuffix(lines[1], urls[0]) || strings.TrimSpace(lines[2]) != urls[1] {
		t.Errorf("list: %q", lines)
	}
	var list []struct {
		App, State, URL string
		URLs            []string
		Release         int
	}
	if err := json.Unmarshal([]byte(s.must("list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].State != "never deployed" || list[1].URL != urls[0] || !slices.Equal(list[1].URLs, urls) || list[1].Release != 1 {
		t.Errorf("list --json: %+v", list)
	}

	file := filepath.Join(s.dir, "apps-enabled", "one.cfg")
	site := filepath.Join(s.dir, "scotch.cfg")
	dump := "\n" + s.must("dump", "--origin", "one")
	for _, want := range []string{
		"\n[app]\n",
		"\ndomains = a.localhost *.b.localhost  ; " + file + ":3\n",
		"\nurl_prefix = /shop  ; " + file + ":4\n",
		"\npersist = media  ; " + filepath.Join(s.dir, "instances/one/.src/000001/scotch.cfg") + ":2\n",
		"\nFROM_SOURCE = ********  ; " + filepath.Join(s.dir, "instances/one/.src/000001/scotch.cfg") + ":4\n",
		"\nkeep = 5  ; defaults.cfg (built in):",
		"\nname = one  ; filled in by scotch\n",
		"\nTOKEN = ********  ; " + file + ":9\n",
		"\nrelease = ********  ; " + file + ":7\n",
		"\nbuild = true\n    true  ; " + file + ":5\n",
		"\nmode = standalone  ; " + site + ":",
		"\nprogram = uwsgi  ; uwsgi/defaults.cfg (built in):",
	} {
		if !strings.Contains(dump, want) {
			t.Errorf("dump --origin has no %q", want)
		}
	}
	for i, line := range strings.Split(strings.TrimSpace(strings.ReplaceAll(dump, "\n    ", " ")), "\n") {
		if !strings.HasPrefix(line, "[") && !strings.Contains(line, "  ; ") {
			t.Errorf("line %d of dump --origin names no origin: %q", i+1, line)
		}
	}
	var all map[string][]struct {
		Section, Key, Raw, Value string
		Origin                   struct {
			Layer, File string
			Line        int
		}
	}
	asJSON := s.must("dump", "--json", "one", "never")
	if err := json.Unmarshal([]byte(asJSON), &all); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, e := range all["one"] {
		seen[e.Section+":"+e.Key] = fmt.Sprintf("%s|%s|%s|%s:%d", e.Value, e.Raw, e.Origin.Layer, e.Origin.File, e.Origin.Line)
	}
	for key, want := range map[string]string{
		"app:url_prefix": "/shop|/shop|app|" + file + ":4",
		"env:TOKEN":      "********|********|app|" + file + ":9",
	} {
		if seen[key] != want {
			t.Errorf("dump --json: %s is %q, want %q", key, seen[key], want)
		}
	}
	if len(all["one"]) < 60 || len(all["never"]) < 60 {
		t.Errorf("dump --json has %d and %d values", len(all["one"]), len(all["never"]))
	}
	for what, text := range map[string]string{"dump": s.must("dump", "one"), "dump --origin": dump, "dump --json": asJSON} {
		if strings.Contains(text, "s3cret") {
			t.Errorf("%s shows a secret", what)
		}
	}
	// A password in the address of the source is one too.
	if err := os.WriteFile(file, []byte("[app]\nsrc = https://ada:s3cret@git.example.org/one.git\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.must("dump", "one"); strings.Contains(out, "s3cret") || !strings.Contains(out, "\nsrc = https://********@git.example.org/one.git\n") {
		t.Errorf("dump: %s", out)
	}
	if out, status := s.scotch("dump", "one", "nosuch"); status != 1 || !strings.Contains(out, "nosuch") {
		t.Errorf("dump of an app that is not there exits with %d: %s", status, out)
	}
	// Of several the others are shown, and the exit status is 1.
	s.configure("never", "workers = none\nkeep = 0\n")
	if out, status := s.scotch("dump", "never", "one", "nosuch"); status != 1 || !strings.Contains(out, "never.cfg:3") || !strings.Contains(out, "never.cfg:4") ||
		!strings.Contains(out, "# one\n[app]\n") || !strings.Contains(out, `there is no app "nosuch"`) || !strings.Contains(out, "2 of 3 failed") {
		t.Errorf("dump of three, of which two have mistakes, exits with %d: %s", status, out)
	}
	if out, status := s.scotch("dump"); status != 2 {
		t.Errorf("dump of nothing exits with %d: %s", status, out)
	}
}
