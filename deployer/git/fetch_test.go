package git_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"scotch/deployer/direct"
	"scotch/deployer/git"
)

// A token in an address reached git's arguments, which all users of a machine
// can read (proc(5)), and git's messages.
func TestFetchHTTPS(t *testing.T) {
	gitPath, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	source := newSite(t)
	source.write("a.py", "1")
	one := source.commit("one")
	const token = "t0ken/of+ada%"
	var seen string // a process with the token in its arguments
	backend := &cgi.Handler{
		Path: gitPath, Args: []string{"http-backend"}, InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(source.work), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range found {
			if data, err := os.ReadFile(f); err == nil && bytes.Contains(data, []byte("t0ken")) {
				seen = string(data)
			}
		}
		user, password, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/elsewhere/"):
			http.Redirect(w, r, "https://localhost:"+port(r.Host)+strings.TrimPrefix(r.URL.Path, "/elsewhere")+"?"+r.URL.RawQuery, http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/gone"):
			http.NotFound(w, r)
		case password == token && user == "ada", user == token && password == "":
			backend.ServeHTTP(w, r)
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "who are you, "+user+":"+password+"?", http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	trusting := []string{"GIT_SSL_CAINFO=" + ca}
	host := strings.TrimPrefix(server.URL, "https://")
	escaped := url.QueryEscape(token)
	for _, c := range []struct {
		source string
		env    []string
		want   string // in the error; "" for none
	}{
		{"https://ada:" + escaped + "@" + host + "/work/.git", trusting, ""},
		{"https://" + escaped + "@" + host + "/work/.git", trusting, ""},
		{"https://" + escaped + ":@" + host + "/work/.git", trusting, ""},
		{"https://ada:" + escaped + "@" + host + "/work/.git", nil, "is not trusted"},
		{"https://" + host + "/work/.git", trusting, "asks for a name and a password"},
		{"https://bob:" + escaped + "@" + host + "/work/.git", trusting, "does not accept the name and password"},
		{"https://ada:" + escaped + "@" + host + "/gone", trusting, "says that there is no such repository"},
		// Another host, by the name: it is not told the token.
		{"https://ada:" + escaped + "@" + host + "/elsewhere/work/.git", trusting, "fetching"},
		{"https://ada:" + escaped + "%0Ahost%3Devil@" + host + "/work/.git", trusting, "control character"},
	} {
		dir := t.TempDir()
		g := git.New(filepath.Join(dir, "r"), direct.New(filepath.Join(dir, "run"), direct.Options{}),
			git.Options{FetchEnv: func(string) []string { return c.env }, Timeout: time.Minute})
		var out bytes.Buffer
		got, err := g.Resolve(t.Context(), app(c.source, "main", false), "", &out)
		text := out.String()
		if c.want == "" {
			if err != nil || got.ID != one {
				t.Errorf("%s: %q, %v", c.source, got.ID, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.source, err, c.want)
		}
		if err != nil {
			text += err.Error()
		}
		if strings.Contains(text, token) || strings.Contains(text, escaped) || strings.Contains(text, "t0ken") {
			t.Errorf("%s: the token is shown:\n%s", c.source, text)
		}
	}
	if seen != "" {
		t.Errorf("the token is in the arguments of %q", strings.ReplaceAll(seen, "\x00", " "))
	}
}

func port(host string) string {
	_, p, _ := net.SplitHostPort(host)
	return p
}

func keyed(t *testing.T) (*git.Git, string) {
	// Short, for the sake of the socket's path.
	dir, err := os.MkdirTemp("/tmp", "sk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return git.New(filepath.Join(dir, "r"), direct.New(filepath.Join(dir, "run"), direct.Options{}),
		git.Options{Keys: filepath.Join(dir, "keys"), Run: filepath.Join(dir, "run", "keys")}), dir
}

// What a build leaves in the place of the file of host keys is a stranger's: a
// line that is no host's key is not taken over, a link or a pipe is not followed.
func TestLoan(t *testing.T) {
	g, dir := keyed(t)
	public, err := g.DeployKey("blog")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := g.DeployKey("blog"); err != nil || again != public {
		t.Errorf("%q, then %q, %v", public, again, err)
	}
	if _, err := g.DeployKey("../blog"); err == nil {
		t.Error("a key was made outside its place")
	}
	key, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil || !strings.HasPrefix(comment, "scotch:blog@") {
		t.Fatalf("%q: %v", public, err)
	}
	loan, err := g.Lend("blog", "")
	if err != nil {
		t.Fatal(err)
	}
	lent, err := filepath.Glob(filepath.Join(dir, "run", "keys", "*"))
	if err != nil || len(lent) != 1 {
		t.Fatalf("%q, %v", lent, err)
	}
	conn, err := net.Dial("unix", filepath.Join(lent[0], "agent"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	list, err := client.List()
	if err != nil || len(list) != 1 || !bytes.Equal(list[0].Marshal(), key.Marshal()) {
		t.Fatalf("the agent lists %v, %v", list, err)
	}
	if !loan.Asked() {
		t.Error("nobody asked")
	}
	sig, err := client.Sign(key, []byte("x"))
	if err != nil || key.Verify([]byte("x"), sig) != nil {
		t.Errorf("sign: %v", err)
	}
	if err := client.RemoveAll(); err == nil {
		t.Error("a client can take the key away")
	}
	// One that claims to send much has no room made for it: there may be many.
	flood, err := net.Dial("unix", filepath.Join(lent[0], "agent"))
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	flood.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := flood.Write([]byte{0, 0x80, 0, 0, 11}); err != nil {
		t.Fatal(err)
	}
	if _, err := flood.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the agent waits for 8 MB: %v", err)
	}
	hosts := filepath.Join(lent[0], "known_hosts")
	line := "git.example.org " + strings.Join(strings.Fields(public)[:2], " ")
	text := "@cert-authority * " + strings.Join(strings.Fields(public)[:2], " ") + "\nnonsense\n" + line + " a comment \x1b[2J\n" + line + "\n"
	if err := os.WriteFile(hosts, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pinned, err := loan.End()
	if want := "host key of git.example.org pinned: " + ssh.FingerprintSHA256(key); err != nil || len(pinned) != 1 || pinned[0] != want {
		t.Errorf("pinned %q, %v", pinned, err)
	}
	if _, err := client.Sign(key, []byte("x")); err == nil {
		t.Error("the key is lent for ever")
	}
	kept := filepath.Join(g.DeployKeyDir("blog"), "known_hosts")
	if data, err := os.ReadFile(kept); err != nil || string(data) != line+"\n" {
		t.Errorf("kept %q, %v", data, err)
	}

	for name, put := range map[string]func(string) error{
		"a link":    func(p string) error { return os.Symlink("/etc/passwd", p) },
		"a pipe":    func(p string) error { return exec.Command("mkfifo", p).Run() },
		"nothing":   func(string) error { return nil },
		"a folder":  func(p string) error { return os.Mkdir(p, 0o700) },
		"a torrent": func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 1<<20), 0o600) },
	} {
		loan, err := g.Lend("blog", "")
		if err != nil {
			t.Fatal(err)
		}
		lent, _ := filepath.Glob(filepath.Join(dir, "run", "keys", "*"))
		hosts := filepath.Join(lent[0], "known_hosts")
		if data, err := os.ReadFile(hosts); err != nil || string(data) != line+"\n" {
			t.Errorf("%s: lent %q, %v", name, data, err)
		}
		if err := os.Remove(hosts); err != nil {
			t.Fatal(err)
		}
		if err := put(hosts); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := loan.End(); done <- err }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the loan does not end", name)
		}
		if data, err := os.ReadFile(kept); err != nil || string(data) != line+"\n" {
			t.Errorf("%s: kept %q, %v", name, data, err)
		}
	}
	// What a killed server left.
	if _, err := g.Lend("blog", ""); err != nil {
		t.Fatal(err)
	}
	if err := g.Recover("blog"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "run", "keys", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestSourceIsRefused(t *testing.T) {
	g, _ := keyed(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for source, want := range map[string]string{
		"/nonexistent/x.git":                       "there is nothing at that path",
		"file:///nonexistent/x.git":                "there is nothing at that path",
		t.TempDir():                                "there is no git repository at that path",
		"ssh://git:hunter22@127.0.0.1:1/x":         "takes no password",
		"ssh://git@127.0.0.1:1/x":                  "can this server reach that host",
		"git@localhost.invalid:x":                  "can this server reach that host",
		"https://ada:hunter22@localhost.invalid/x": "can this server reach that host",
		"https://ada:hunt%zzer22@127.0.0.1:1/x":    "no URL",
		"https://ada:hunter22/more@127.0.0.1:1/x":  "[app] src",
	} {
		var out bytes.Buffer
		_, err := g.Resolve(ctx, app(source, "main", false), "", &out)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", source, err, want)
			continue
		}
		all := out.String() + err.Error()
		if strings.Contains(all, "hunt") {
			t.Errorf("%s: the password is shown: %s", source, all)
		}
		if strings.HasPrefix(source, "/") && strings.Contains(all, "deploy key") {
			t.Errorf("%s: %s", source, all)
		}
	}
}

// A fetch of [app] src had no limits: whoever has the source could fill the disk
// and the memory of the server. What is too large leaves nothing behind.
func TestFetchLimits(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	other.write("app.py", "app")
	one := other.commit("one")
	resolve := func(l git.Limits) (string, error) {
		var out bytes.Buffer
		c, err := s.limited(l).Resolve(t.Context(), app(other.work, "main", false), "main", &out)
		return c.ID, err
	}
	if id, err := resolve(git.Limits{Push: 1 << 20, Objects: 3, Object: 1000, Memory: 128 << 20, CPU: time.Minute}); err != nil || id != one {
		t.Fatalf("%q, %v", id, err)
	}
	before := s.everything()

	noise := make([]byte, 300_000)
	rand.Read(noise)
	other.write("film", string(noise))
	other.write("large", strings.Repeat("0123456789abcde\n", 20<<20/16))
	other.run(other.work, "branch", "gone")
	two := other.commit("two")
	for _, test := range []struct {
		limits git.Limits
		want   []string
	}{
		{git.Limits{Push: 100_000}, []string{"it brings more than the 100.0 kB that this server takes", "[server] max_push"}},
		{git.Limits{Objects: 3}, []string{"the source brings more than the 3 objects that this server takes", "[server] max_objects"}},
		{git.Limits{Object: 200_000}, []string{"a file in the source is larger than 200.0 kB: object ", "[server] max_object"}},
		{git.Limits{Memory: 20 << 20}, []string{"needs more memory than the 21.0 MB", "[server] push_memory"}},
	} {
		_, err := resolve(test.limits)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: error %v, want %q", test.limits, err, want)
			}
		}
		if after := s.everything(); after != before {
			t.Errorf("%+v: left behind:\n%s\nbefore:\n%s", test.limits, after, before)
		}
	}
	if id, err := resolve(git.Limits{}); err != nil || id != two {
		t.Errorf("%q, %v", id, err)
	}
	// A branch in the place of one that was a folder of others, and new ones only.
	packs := s.packs()
	other.run(other.work, "branch", "-m", "gone", "gone/now")
	if id, err := resolve(git.Limits{}); err != nil || id != two || s.ref("refs/scotch/source/heads/gone/now") != one || s.packs() != packs {
		t.Errorf("%q, %v, %d packs and %d before", id, err, s.packs(), packs)
	}
	if out := s.run(s.Path("blog"), "fsck", "--full"); strings.Contains(out, "missing") {
		t.Error(out)
	}
}

// everything lists the app's repository.
func (s *site) everything() string {
	return s.run(s.Path("blog"), "for-each-ref") + "\n" + strings.Join(s.files(s.Path("blog")), "\n")
}

func (s *site) files(dir string) (all []string) {
	s.t.Helper()
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		all = append(all, p)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func (s *site) packs() int {
	all, _ := filepath.Glob(filepath.Join(s.Path("blog"), "objects", "pack", "*.pack"))
	return len(all)
}

// A source behind a web server that knows nothing of git comes as loose objects.
func TestFetchFromAPlainWebServer(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	server := httptest.NewServer(http.FileServer(http.Dir(other.work)))
	defer server.Close()
	for i := range 3 {
		other.write("app.py", fmt.Sprint(i))
		want := other.commit("a change")
		if i == 1 {
			other.run(other.work, "repack", "-q", "-a", "-d")
		}
		other.run(other.work, "update-server-info")
		var out bytes.Buffer
		c, err := s.limited(git.Limits{Push: 1 << 20, Object: 1000}).Resolve(t.Context(), app(server.URL+"/.git", "main", false), "main", &out)
		if err != nil || c.ID != want {
			t.Fatalf("%d: %q, %v\n%s", i, c.ID, err, &out)
		}
		if id := s.ref("refs/scotch/source/HEAD"); id != want {
			t.Errorf("%d: HEAD is at %q", i, id)
		}
	}
	if out, err := s.try(s.Path("blog"), "fsck", "--full"); err != nil {
		t.Error(out)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Path("blog"), "objects", "tmp_*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
