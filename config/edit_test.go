package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEditKeepsTheRest(t *testing.T) {
	const before = `# the blog
[app]   # not a comment, but no harm
  Src : https://git.example.org/blog.git

  ; more of them
  WORKERS=2
  # between
#threads = 4

[env]
A = 1
  # in the middle
  more

  and more
# below A
B = 2
`
	const after = `# the blog
[app]   # not a comment, but no harm
  Src : https://git.example.org/blog.git

  ; more of them
  WORKERS = 3
  # between
#threads = 4
  threads = 8

[env]
A = $$x
C = new
  # in the middle
# below A

[git]
branch = ${app:name}
`
	got, err := Edit("blog.cfg", []byte(before), []Change{Set("app", "workers", "3"), Set("app", "threads", "8"), Set("env", "A", "$x"), Unset("env", "B"), Unset("env", "nothing"), Set("env", "C", "new"), SetRaw("git", "branch", "${app:name}")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(after, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestEditLineEnds(t *testing.T) {
	got, err := Edit("blog.cfg", []byte("[env]\r\nA = 1\r\n"), []Change{Set("env", "B", "x\ny")})
	if err != nil || string(got) != "[env]\r\nA = 1\r\nB = x\r\n\ty\r\n" {
		t.Errorf("%q, %v", got, err)
	}
	got, err = Edit("blog.cfg", nil, []Change{Set("app", "keep", "3"), Unset("app", "keep")})
	if err != nil || string(got) != "[app]\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// What `env set` takes is what the app gets.
func TestEditRoundTrip(t *testing.T) {
	values := []string{
		"", " ", "  both ends\t", "\n", "\n\n\n", "a\nb", "a\n\nb\n", "\nlead", "trail\n", "$", "$$", "${HOME}", "a$b${c}$$d", "# no comment", "; no comment",
		"x\n# no comment\n; nor this\n  indented\n\t\ttabs \n\n  \n", "= : = :", "[section]", "a\n[section]\nk = v", "\"quoted\" 'twice'", `back\slash\`, "ünïcödé \u00a0", "\u2028x\x0c",
		"-----BEGIN PRIVATE KEY-----\nMIIE/vQ+IBADANBg==\n-----END PRIVATE KEY-----\n", "{\n  \"type\": \"service_account\",\n  \"cost\": \"$5\"\n}\n", strings.Repeat("long", 20000),
	}
	s := mustOpen(t, "")
	file := AppTemplate("blog")
	var changes []Change
	for i, v := range values {
		changes = append(changes, Set("env", fmt.Sprintf("V%d", i), v))
	}
	file, err := Edit("blog.cfg", file, changes)
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		a, err := s.App("blog", AppOptions{File: file})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			if a.Env[i].Value != v {
				t.Errorf("%q came back as %q", v, a.Env[i].Value)
			}
		}
	}
	check()
	// Again, the other way round: each value in the place of another one.
	slices.Reverse(values)
	for i, v := range values {
		if file, err = Edit("blog.cfg", file, []Change{Set("env", fmt.Sprintf("V%d", i), v)}); err != nil {
			t.Fatal(err)
		}
	}
	check()
}

func TestEditRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		file   string
		change Change
	}{
		"a carriage return":             {"", Set("env", "A", "x\r\ny")},
		"a NUL byte":                    {"", Set("env", "A", "\x00")},
		"no UTF-8":                      {"", Set("env", "A", "\xff")},
		"a key with a delimiter":        {"", Set("env", "A=B", "x")},
		"a key that is a comment":       {"", Set("env", "#A", "x")},
		"a key with a line break":       {"", Set("env", "A\n[app]\nuser", "root")},
		"no key":                        {"", Set("env", "", "x")},
		"a section with a bracket":      {"", Set("a]b", "A", "x")},
		"a file with errors":            {"[app]\nnonsense\n", Set("app", "keep", "3")},
		"what would join another value": {"[app]\n#keep = 5\n    workers = 2\n", Set("app", "keep", "3")},
	} {
		if got, err := Edit("blog.cfg", []byte(test.file), []Change{test.change}); err == nil {
			t.Errorf("%s: gave %q", name, got)
		}
	}
}

func TestAppTemplate(t *testing.T) {
	text := AppTemplate("blog")
	d, errs := parse("blog.cfg", text)
	if len(errs) > 0 || len(d.entries) > 0 || len(d.sections) != 1 || d.sections[0].name != "app" {
		t.Errorf("the template says %+v, %v", d.entries, errs)
	}
	if bytes.Contains(text, []byte("NAME")) || !bytes.Contains(text, []byte("blog")) {
		t.Error("the name is not filled in")
	}
	// With every comment removed that shows a key, it must be right.
	var shown []string
	for l := range strings.Lines(string(text)) {
		if len(l) > 1 && l[0] == '#' && l[1] != ' ' {
			l = l[1:]
		}
		shown = append(shown, l)
	}
	a, err := mustOpen(t, "").App("blog", AppOptions{File: []byte(strings.Join(shown, ""))})
	if err != nil {
		t.Fatal(err)
	}
	if a.EntryPoint != "blog.wsgi:application" || len(a.Static) != 2 || a.Release == "" {
		t.Errorf("the examples give %+v", a)
	}
}

func TestStandaloneSite(t *testing.T) {
	dir := t.TempDir()
	build := []Var{{"PIP_INDEX_URL", "https://u:pa$$w@h/simple"}, {"TWO", "a\n  b"}}
	text := StandaloneSite(StandaloneOptions{Dir: dir, Listen: "127.0.0.1:2222", HTTP: "127.0.0.1:8080", BuildEnv: build})
	file := filepath.Join(dir, "scotch.cfg")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Files: []string{file}, Plugins: realPlugins(t)})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want := Paths{dir, dir + "/apps-enabled", dir + "/instances", dir + "/repositories", dir + "/data", dir + "/logs", dir + "/run"}
	if s.Mode != "standalone" || s.Domain != "localhost" || s.Paths != want || s.Server.HostKey != dir+"/host_key" || s.Server.AuthorizedKeys != dir+"/authorized_keys" || s.Server.Listen != "127.0.0.1:2222" {
		t.Errorf("got %+v", s)
	}
	for key, want := range map[string]string{"listen": "127.0.0.1:8080", "config_path": dir + "/run/nginx", "pid_path": dir + "/run/nginx/nginx.pid"} {
		if got, err := s.Get("nginx", key); got != want || err != nil {
			t.Errorf("[nginx] %s is %q, %v", key, got, err)
		}
	}
	a, err := s.App("blog", AppOptions{NoFile: true})
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(a.BuildEnv, build) || !cmp.Equal(a.Domains, []string{"blog.localhost"}) || a.User != "" {
		t.Errorf("got %+v", a)
	}
	// An editor's own view of it: everything is explained.
	if n := bytes.Count(text, []byte("\n#")); n < 6 {
		t.Errorf("%d comments in\n%s", n, text)
	}
}

// An env file of some thousand lines kept the server busy for a minute: each variable
// read the file three times and looked at each pair of its lines.
func TestManyChanges(t *testing.T) {
	var changes []Change
	for i := range MaxChanges {
		changes = append(changes, Change{Section: "env", Key: fmt.Sprintf("V%d", i), Value: "x"})
	}
	if _, err := Edit("a.cfg", []byte("[app]\n"), changes); err != nil {
		t.Error(err)
	}
	if _, err := Edit("a.cfg", []byte("[app]\n"), append(changes, changes[0])); err == nil || !strings.Contains(err.Error(), "501 changes") {
		t.Errorf("one more gives %v", err)
	}
	unset := []Change{Unset("env", "A"), Unset("env", "B"), {Section: "env", Key: "C"}}
	if got := Absent([]byte("[env]\nA = 1\n"), unset); len(got) != 1 || got[0].Key != "B" {
		t.Errorf("absent are %v", got)
	}
}

// Thousands of references to what is not set were compared with thousands of keys.
func TestManyUnknownReferences(t *testing.T) {
	var b strings.Builder
	b.WriteString("[static]\n")
	for i := range 4900 {
		fmt.Fprintf(&b, "/abcdefghij%05d/ = ${bcdefghijk%05d}\n", i, i)
	}
	s := mustOpen(t, "", "blog", b.String())
	if _, err := s.App("blog", AppOptions{}); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("%.200v", err)
	}
}

// A value of many lines and many other changes were minutes of work; a source may have
// thousands of unknown keys behind a value of thousands of lines.
func TestMuchToLookAt(t *testing.T) {
	changes := []Change{{Section: "env", Key: "BIG", Value: strings.Repeat("a\n", 200_000)}}
	for i := range MaxChanges - 1 {
		changes = append(changes, Change{Section: "env", Key: fmt.Sprintf("V%d", i), Value: "x"})
	}
	if _, err := Edit("a.cfg", []byte("[app]\n"), changes); err == nil || !strings.Contains(err.Error(), "too much at once") {
		t.Errorf("%.200v", err)
	}
	var b strings.Builder
	b.WriteString("[app]\nworkers = 2\n" + strings.Repeat(" x\n", 60_000))
	for i := range 4900 {
		fmt.Fprintf(&b, "q%d = 1\n", i)
	}
	b.WriteString("[static]\n")
	s := mustOpen(t, "", "blog", b.String())
	if _, err := s.App("blog", AppOptions{}); err == nil || !strings.Contains(err.Error(), " more") {
		t.Errorf("%d bytes, %.100q … %q", len(err.Error()), err.Error(), err.Error()[max(0, len(err.Error())-300):])
	}
}
