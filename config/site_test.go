package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testPlugins stand for the real ones.
func testPlugins() []Defaults {
	return []Defaults{
		{Name: "uwsgi", Text: []byte("[uwsgi]\n# Where.\nconfig_path = /etc/uwsgi/apps-enabled\nconfig_mode = 0640\n\n# Free.\n[uwsgi_config]\n")},
		{Name: "nginx", Text: []byte("[nginx]\n# Where.\n# site files only\nconfig_path = /etc/nginx\nlisten = 80\npid_path = /run/nginx.pid\naccess_log =\n\n# An operator's own lines.\n#include = /etc/lines\n")},
	}
}

// folder writes files, given as name and content in turn, and returns their folder.
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// openSite opens a site whose file says site, and whose apps' files are given.
func openSite(t *testing.T, site string, apps ...string) (*Site, error) {
	t.Helper()
	for i := 0; i < len(apps); i += 2 {
		apps[i] = "apps-enabled/" + apps[i] + ".cfg"
	}
	dir := folder(t, apps...)
	file := filepath.Join(dir, "scotch.cfg")
	if !strings.Contains(site, "configuration") {
		site += "\n[paths]\nconfiguration = " + dir + "\n"
	}
	if err := os.WriteFile(file, []byte(site), 0o600); err != nil {
		t.Fatal(err)
	}
	return Open(Options{Files: []string{file}, Plugins: testPlugins()})
}

func mustOpen(t *testing.T, site string, apps ...string) *Site {
	t.Helper()
	s, err := openSite(t, site, apps...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSiteDefaults(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir(), Home: t.TempDir(), Plugins: testPlugins()})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Files) > 0 {
		t.Skipf("this system has site files of its own: %q", s.Files)
	}
	want := &Site{
		Mode: "system", DirMode: 0o755, Umask: 0o022,
		Paths: Paths{
			Configuration: "/etc/scotch", AppsEnabled: "/etc/scotch/apps-enabled", Instances: "/var/local/scotch",
			Repositories: "/var/lib/scotch/repositories", Data: "/var/lib/scotch/data", Logs: "/var/log/scotch", Run: "/run/scotch",
		},
		Server: Server{
			Listen: ":2222", HostKey: "/etc/scotch/host_key", AuthorizedKeys: "/etc/scotch/authorized_keys",
			MinFree: 200 << 20, MaxPush: 1 << 30, MaxObjects: 3000000, MaxObject: 1 << 30, MaxRefs: 10000, MaxFiles: 80000, MaxSource: 4 << 30, PushMemory: 1 << 30, PushCPU: 30 * time.Minute, LogSize: 10 << 20, LogKeep: 5, GitUser: "scotch", StopTimeout: 300 * time.Second,
			MaxConnections: 512, MaxPerAddress: 64, MaxLogins: 100, MaxSessions: 10, MaxPerKey: 32, LoginTimeout: 30 * time.Second, IdleTimeout: 15 * time.Minute,
			KeepAlive: 30 * time.Second, Penalty: 10 * time.Minute,
			PenaltyExempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		},
		Notify:  Notify{Timeout: 10 * time.Second},
		Plugins: map[string]bool{"git": true, "uwsgi": true, "nginx": true},
		Values:  s.Values, layers: s.layers, schema: s.schema, neighbours: s.neighbours,
	}
	if diff := cmp.Diff(want, s, cmp.Comparer(func(a, b *Values) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b []layer) bool { return len(a) == len(b) }), cmp.Comparer(func(a, b *schema) bool { return a == b }), cmp.Comparer(func(a, b *neighbours) bool { return a == b }), cmp.AllowUnexported(Site{})); diff != "" {
		t.Error(diff)
	}
}

func TestStandardFiles(t *testing.T) {
	dir := folder(t, "home/.scotch.cfg", "", "here/scotch.cfg", "", "tree/.git/HEAD", "", "tree/sub/scotch.cfg", "", "linked/.git", "gitdir: x", "linked/scotch.cfg", "")
	home := filepath.Join(dir, "home")
	for _, test := range []struct {
		dir  string
		want []string
	}{
		{"here", []string{"/etc/scotch.cfg", home + "/.scotch.cfg", dir + "/here/scotch.cfg"}},
		// There a scotch.cfg is an app's own.
		{"tree/sub", []string{"/etc/scotch.cfg", home + "/.scotch.cfg"}},
		{"linked", []string{"/etc/scotch.cfg", home + "/.scotch.cfg"}},
	} {
		got, err := Options{Dir: filepath.Join(dir, test.dir), Home: home}.standardFiles("/etc/scotch.cfg")
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v, want %q", test.dir, got, err, test.want)
		}
	}
}

func TestSiteFilesOrder(t *testing.T) {
	dir := folder(t, "home/.scotch.cfg", "[site]\ndomain=home.example\n[server]\ndeploys=7\n", "here/scotch.cfg", "[site]\nDomain: here.example\n", "a.cfg", "[site]\ndomain=a\numask=077\n", "b.cfg", "[site]\ndomain=b\n")
	s, err := Open(Options{Dir: filepath.Join(dir, "here"), Home: filepath.Join(dir, "home")})
	if err != nil {
		t.Fatal(err)
	}
	if s.Domain != "here.example" || s.Server.Deploys != 7 {
		t.Errorf("got %q, %d", s.Domain, s.Server.Deploys)
	}
	if o := s.Origin("site", "DOMAIN"); o.Layer != LayerSite || o.Line != 2 || filepath.Base(o.File) != "scotch.cfg" {
		t.Errorf("origin is %+v", o)
	}
	s, err = Open(Options{Files: []string{filepath.Join(dir, "a.cfg"), filepath.Join(dir, "b.cfg")}, Dir: filepath.Join(dir, "here"), Home: filepath.Join(dir, "home")})
	if err != nil {
		t.Fatal(err)
	}
	if s.Domain != "b" || s.Umask != 0o77 || s.Server.Deploys != 0 || len(s.Files) != 2 {
		t.Errorf("got %q, %o, %d, %q", s.Domain, s.Umask, s.Server.Deploys, s.Files)
	}
	if _, err := Open(Options{Files: []string{filepath.Join(dir, "none.cfg")}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that -c names and that is not there: %v", err)
	}
}

func TestSiteErrorsAllAtOnce(t *testing.T) {
	_, err := openSite(t, `[site]
dirmode = rwx
umaks = 022
[sever]
listen = :1
[server]
listen = nowhere
min_free = lots
deploys
log_size = ${nope}
[paths]
data = relative
configuration = /c
run = /`+strings.Repeat("long/", 25)+`
[app]
name = blog
listen = :1
[nginx]
listne = 81
`)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`scotch.cfg:2: [site] dirmode: must be an octal mode`,
		"scotch.cfg:3: [site] umaks: there is no such key\ndid you mean umask?",
		"scotch.cfg:4: [sever]: there is no such section\ndid you mean [server]?",
		`scotch.cfg:7: [server] listen: must be HOST:PORT`,
		`scotch.cfg:8: [server] min_free: must be a size`,
		`scotch.cfg:9: [server] "deploys" is neither KEY = VALUE nor a [section]`,
		`scotch.cfg:10: [server] log_size: refers to ${nope}, which is not set`,
		`scotch.cfg:12: [paths] data: must be an absolute path, not "relative"`,
		`scotch.cfg:14: [paths] run: the socket's path`,
		`scotch.cfg:16: [app] name: is filled in by scotch`,
		"scotch.cfg:17: [app] listen: there is no such key\ndid you mean listen in [server]?",
		"scotch.cfg:19: [nginx] listne: there is no such key\ndid you mean listen?",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	var one *Error
	if !errors.As(err, &one) || one.Line == 0 {
		t.Errorf("errors.As finds no *Error: %#v", one)
	}
}

func TestApps(t *testing.T) {
	s := mustOpen(t, "", "shop", "", "blog", "", "Bad Name", "", "x.y", "")
	os.WriteFile(filepath.Join(s.Paths.AppsEnabled, "blog.cfg~"), nil, 0o600)
	os.WriteFile(filepath.Join(s.Paths.AppsEnabled, ".#blog.cfg"), nil, 0o600)
	names, err := s.Apps()
	if !slices.Equal(names, []string{"blog", "shop"}) {
		t.Errorf("names are %q", names)
	}
	if err == nil || !strings.Contains(err.Error(), `Bad Name.cfg: "Bad Name" is no name for an app`) || !strings.Contains(err.Error(), `"x.y"`) {
		t.Errorf("error is %v", err)
	}
	if names, err := mustOpen(t, "").Apps(); len(names) > 0 || err != nil {
		t.Errorf("without a folder: %q, %v", names, err)
	}
}

func TestValidName(t *testing.T) {
	for _, good := range []string{"a", "blog", "my-app_2", strings.Repeat("a", 40)} {
		if err := ValidName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "1a", "Blog", "-a", "_a", "a.b", "a/b", "..", "a b", "a\n", "é", strings.Repeat("a", 41)} {
		if ValidName(bad) == nil {
			t.Errorf("%q is valid", bad)
		}
	}
	for _, file := range []string{"dram.cfg", "/etc/scotch/apps-enabled/dram.cfg"} {
		if err := ValidName(file); err == nil || !strings.HasSuffix(err.Error(), "name the app alone: dram") {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "500": 500, "1k": 1024, "1.5K": 1536, "200m": 200 << 20, "1 GiB": 1 << 30, "2TB": 2 << 40} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("size %q is %d, %v", s, got, err)
		}
	}
	for s, want := range map[string]time.Duration{"60": time.Minute, "1.5": 1500 * time.Millisecond, "60 s": time.Minute, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "250ms": 250 * time.Millisecond, "0": 0} {
		if got, err := parseDuration(0)(s); err != nil || got != want {
			t.Errorf("duration %q is %s, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "-1", "1x", "1e3", "99999999999999999999", "99999d", "m"} {
		if d, err := parseDuration(0)(bad); err == nil {
			t.Errorf("duration %q is %s", bad, d)
		}
		if n, err := parseSize(bad); err == nil && bad != "m" {
			t.Errorf("size %q is %d", bad, n)
		}
	}
	set, err := ParseStatusSet("200-399  401,403\n404")
	if err != nil || set.String() != "200-399 401 403 404" {
		t.Errorf("set is %q, %v", set, err)
	}
	for status, want := range map[int]bool{199: false, 200: true, 399: true, 400: false, 401: true, 402: false, 404: true, 500: false} {
		if set.Contains(status) != want {
			t.Errorf("%d: %t", status, !want)
		}
	}
	for _, bad := range []string{"", "abc", "99", "600", "400-300", "200-", "-200"} {
		if set, err := ParseStatusSet(bad); err == nil {
			t.Errorf("status set %q is %q", bad, set)
		}
	}
}

func TestCheckSocketPath(t *testing.T) {
	if err := CheckSocketPath("/" + strings.Repeat("a", 106)); err != nil {
		t.Error(err)
	}
	err := CheckSocketPath("/" + strings.Repeat("a", 107))
	if err == nil || !strings.Contains(err.Error(), "108 bytes") || !strings.Contains(err.Error(), "run_path") {
		t.Error(err)
	}
}

// A mode that keeps the web server and the apps' users out of the directories
// above theirs would make every deploy fail; standalone there is one user.
func TestDirModeAndRetiredKeys(t *testing.T) {
	for text, want := range map[string]string{
		"[site]\ndirmode = 0711\n":                                 "",
		"[site]\ndirmode = 0700\n":                                 "write 0711 or more",
		"[site]\ndirmode = 0700\n[server]\nmode = standalone\n":    "",
		"[site]\ndirmode = 0655\n[server]\nmode = standalone\n":    "keeps scotch itself out",
		"[uwsgi]\nreload_command = /etc/init.d/uwsgi restart\n":    "uWSGI is not restarted any more",
		"[uwsgi]\napp_config = ${app:name}.ini\n[site]\numask=0\n": "[uwsgi] config_path says where",
	} {
		_, err := openSite(t, text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
