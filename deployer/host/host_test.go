package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"scotch/config"
	"scotch/deployer/nginx"
	"scotch/deployer/uwsgi"
)

func site(t *testing.T, text string) *config.Site {
	t.Helper()
	file := filepath.Join(t.TempDir(), "scotch.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := config.Open(config.Options{Files: []string{file}, Plugins: []config.Defaults{nginx.Defaults(), uwsgi.Defaults()}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUnitSaysWhatTheServerMayWrite(t *testing.T) {
	s := site(t, "[app]\nvenv_path = /virtualenvs/${name}\n[paths]\ndata = /disk/apps\nrun = /var/run-scotch\n[server]\nstop_timeout = 10\n")
	unit, err := Unit(s, "/usr/bin/scotch", []string{"/etc/my site.cfg"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`ExecStart=/usr/bin/scotch -c "/etc/my site.cfg" serve` + "\n",
		"\nTimeoutStopSec=40\n",
		"=-/disk/apps ", " -/virtualenvs\n", " -/var/run-scotch ", "ReadWritePaths=", " -/etc ",
	} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("%q is not in the unit:\n%s", want, unit)
		}
	}
	for _, not := range []string{"RuntimeDirectory", "-/etc/scotch", "-/ ", "<no value>"} {
		if strings.Contains(string(unit), not) {
			t.Errorf("%q is in the unit:\n%s", not, unit)
		}
	}
}

func TestUnitWordIsReadAsItIs(t *testing.T) {
	for in, want := range map[string]string{
		"/srv/a": "/srv/a", "/srv/a b": `"/srv/a b"`, "/srv/100%": "/srv/100%%", "/srv/$x": "/srv/$$x", `/srv/a"b`: `/srv/a\"b`,
	} {
		if got := unitWord(in); got != want {
			t.Errorf("%q is written %s, want %s", in, got, want)
		}
	}
}

func TestSiteFileIsReadAsItWasMeant(t *testing.T) {
	text, err := SiteFile("apps.example.org", []config.Var{{Name: "PIP_INDEX_URL", Value: "https://u:p$1@example.org/simple"}})
	if err != nil {
		t.Fatal(err)
	}
	s := site(t, string(text))
	if v, _ := s.Get("build_env", "PIP_INDEX_URL"); s.Domain != "apps.example.org" || v != "https://u:p$1@example.org/simple" {
		t.Errorf("domain %q, index %q in\n%s", s.Domain, v, text)
	}
	if text, err = SiteFile("", nil); err != nil || !bytes.Equal(text, siteTemplate) {
		t.Errorf("without a domain it is not the template: %v\n%s", err, text)
	}
}

func TestPlanStopsAndSaysHowToGoOn(t *testing.T) {
	var did []string
	step := func(name string, err error) Step {
		return Step{Title: name, do: func(_ context.Context, out io.Writer) (string, error) {
			io.WriteString(out, "10%\r100%\nlast")
			did = append(did, name)
			return "", err
		}}
	}
	p := &Plan{Steps: []Step{step("one", nil), step("two", errors.New("no room")), step("three", nil)}, Notes: []string{"first\nsecond \x1b[31m"}, again: "scotch setup"}
	var out bytes.Buffer
	err := p.Do(t.Context(), &out)
	if err == nil || err.Error() != "step 2 of 3 (two): no room\nthe 1 before it are done and stay; when it is mended, this goes on from here: scotch setup" {
		t.Errorf("the error is %v", err)
	}
	if !slices.Equal(did, []string{"one", "two"}) {
		t.Errorf("it did %v", did)
	}
	if want := "[1/3] one\n      | 100%\n      | last\n[2/3] two\n      | 100%\n      | last\n"; out.String() != want {
		t.Errorf("it said\n%s", out.String())
	}
	out.Reset()
	p.PrintNotes(&out)
	if s := out.String(); !strings.HasPrefix(s, "note: first\n      second ") || strings.Contains(s, "\x1b") {
		t.Errorf("the note is %q", s)
	}
}

func TestAdminKeysLeaveOutWhatIsRestricted(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	file := filepath.Join(t.TempDir(), "authorized_keys")
	text := "# mine\n\n" + key + " ada@laptop\n" + key + " with a space\ncommand=\"x\",no-pty " + key + " ci\nnonsense\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, skipped, err := ReadAdminKeys(file, "ubuntu")
	if err != nil || len(keys) != 2 || keys[0].Name != "ada@laptop" || keys[1].Name != "ubuntu" || keys[0].Line != key {
		t.Errorf("the keys are %+v, %v", keys, err)
	}
	if want := []string{file + ":5 is a key with options (command, no-pty)", file + ":6 is no public key"}; !slices.Equal(skipped, want) {
		t.Errorf("left out are %q", skipped)
	}
	if err := os.WriteFile(file, []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadAdminKeys(file, "x"); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("a private key was taken: %v", err)
	}
}

func TestFirewalls(t *testing.T) {
	const status = "Status: active\n\nTo                         Action      From\n--                         ------      ----\n22/tcp                     ALLOW       Anywhere\n80                         ALLOW       Anywhere\n2222/tcp                   DENY        Anywhere\n"
	for port, want := range map[string]bool{"22": true, "80": true, "2222": false, "8": false} {
		if got := ufwAllows(status, port); got != want {
			t.Errorf("port %s: %v", port, got)
		}
	}
	if !dropsInput("chain input {\n\ttype filter hook input priority filter; policy drop;\n}") || dropsInput("type filter hook input priority filter; policy accept;\n") {
		t.Error("the policy of nft's input is read wrongly")
	}
}

func TestIncludesOfNginx(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("nginx.conf", "http {\n  # include sites-enabled/*;\n  include conf.d/*.conf;\n  include \"other/*\";\n}\n")
	write("conf.d/a.conf", "include "+root+"/deep/*.conf;")
	in, err := new(Machine).includes(root)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"conf.d": true, "other": true, "deep": true, "sites-enabled": false} {
		if got := in.site(filepath.Join(root, dir)); got != want {
			t.Errorf("%s: %v in %q", dir, got, in)
		}
	}
}
