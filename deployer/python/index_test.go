package python_test

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/python"
)

// wheel is a package with one module, and nothing else.
func wheel(t *testing.T, name, version string, needs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	info := fmt.Sprintf("%s-%s.dist-info/", name, version)
	meta := fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version)
	for _, n := range needs {
		meta += "Requires-Dist: " + n + "\n"
	}
	var record strings.Builder
	for _, f := range [][2]string{
		{name + ".py", "version = '" + version + "'\n"},
		{info + "METADATA", meta},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	} {
		w, _ := z.Create(f[0])
		w.Write([]byte(f[1]))
		sum := sha256.Sum256([]byte(f[1]))
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", f[0], base64.RawURLEncoding.EncodeToString(sum[:]), len(f[1]))
	}
	w, _ := z.Create(info + "RECORD")
	fmt.Fprintf(w, "%s%sRECORD,,\n", record.String(), info)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// index serves wheels as https://packaging.python.org/en/latest/specifications/simple-repository-api/,
// on loopback, to who gives the password.
type indexServer struct {
	*httptest.Server
	wheels         map[string][]byte // by file name
	user, password string

	mu    sync.Mutex
	asked int
}

func newIndex(t *testing.T) *indexServer {
	t.Helper()
	x := &indexServer{wheels: map[string][]byte{}}
	over := make(chan struct{})
	x.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		x.asked++
		x.mu.Unlock()
		kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch kind {
		case "slow":
			select {
			case <-r.Context().Done():
			case <-over:
			}
			return
		case "login": // a page of a proxy before it
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, "please log in")
			return
		case "broken":
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case "garbage": // right lists of wrong files
			if strings.HasSuffix(rest, ".whl") {
				fmt.Fprint(w, "this is no wheel")
				return
			}
		}
		if user, password, _ := r.BasicAuth(); x.password != "" && (user != x.user || password != x.password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="index"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		rest = strings.TrimPrefix(rest, "simple/")
		if b, ok := x.wheels[rest]; ok {
			w.Write(b)
			return
		}
		name := strings.Trim(rest, "/")
		var links strings.Builder
		for _, file := range slices.Sorted(func(yield func(string) bool) {
			for f := range x.wheels {
				if !yield(f) {
					return
				}
			}
		}) {
			if of, _, _ := strings.Cut(file, "-"); of == name {
				sum := sha256.Sum256(x.wheels[file])
				fmt.Fprintf(&links, "<a href=\"../%s#sha256=%s\">%s</a>\n", file, hex.EncodeToString(sum[:]), file)
			}
		}
		if links.Len() == 0 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!DOCTYPE html><html><body>%s</body></html>", links.String())
	}))
	t.Cleanup(func() { close(over); x.CloseClientConnections(); x.Close() })
	return x
}

func (x *indexServer) add(t *testing.T, name, version string, needs ...string) (hash string) {
	t.Helper()
	b := wheel(t, name, version, needs...)
	x.wheels[fmt.Sprintf("%s-%s-py3-none-any.whl", name, version)] = b
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// address is that of the index, with a login before its host.
func (x *indexServer) address(kind, login string) string {
	return strings.Replace(x.URL, "://", "://"+login, 1) + "/" + kind + "/simple"
}

// installWith installs with an index in [build_env], as the deployer does.
func installWith(t *testing.T, tc *python.Toolchain, app *config.App, src, dir string, timeout time.Duration) (result, error) {
	t.Helper()
	in, err := tc.Interpreter(t.Context(), app, src)
	if err != nil {
		t.Fatal(err)
	}
	deps, err := tc.Dependencies(t.Context(), app, src, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + withoutUV, "HOME=" + t.TempDir(), "LANG=C.UTF-8", "PIP_RETRIES=0", "UV_HTTP_RETRIES=0", "PIP_DEFAULT_TIMEOUT=3"}
	for _, v := range app.BuildEnv {
		env = append(env, v.Name+"="+v.Value)
	}
	var out bytes.Buffer
	r := result{deps: deps, dir: dir}
	r.list, err = tc.Install(t.Context(), deployer.InstallRequest{App: app, Source: src, Dir: dir, Interpreter: in, Deps: deps, Env: env, Out: &out, Timeout: timeout})
	r.out = out.String()
	return r, err
}

func appFrom(address string) *config.App {
	return &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1", BuildEnv: []config.Var{{Name: "PIP_INDEX_URL", Value: address}, {Name: "UV_INDEX_URL", Value: address}}}
}

// A private index: what it wants to know is shown nowhere, whatever goes wrong.
func TestPrivateIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("starts pip many times")
	}
	t.Parallel()
	x := newIndex(t)
	x.user, x.password = "bob", "s3cr%t/word"
	hash := x.add(t, "tiny", "1.0", "tinier")
	x.add(t, "tinier", "2.0")
	const login = "bob:s3cr%25t%2Fword@"
	poetryLock := `[[package]]
name = "tiny"
version = "1.0"
groups = ["main"]
files = [{file = "tiny-1.0-py3-none-any.whl", hash = "` + hash + `"}]
[package.source]
type = "legacy"
url = "` + x.address("ok", "") + `"
reference = "Our.Own"
[metadata]
lock-version = "2.1"
`
	for name, path := range installers(t) {
		tc := freshToolchain(t, path)
		for _, c := range []struct {
			name  string
			app   *config.App
			files []string
			list  []string // else it fails
		}{
			{"poetry, though another is configured", &config.App{Name: "blog", Interpreter: "python3", BuildEnv: append(appFrom("http://127.0.0.1:1/simple").BuildEnv, config.Var{Name: "POETRY_HTTP_BASIC_OUR_OWN_USERNAME", Value: "bob"}, config.Var{Name: "POETRY_HTTP_BASIC_OUR_OWN_PASSWORD", Value: x.password})},
				[]string{"pyproject.toml", "[tool.poetry]\npackage-mode = false\n", "poetry.lock", poetryLock}, []string{"tiny==1.0"}},
			{"build_env", appFrom(x.address("ok", login)), []string{"requirements.txt", "tiny==1.0\n"}, []string{"tinier==2.0", "tiny==1.0"}},
			{"in the file", &config.App{Name: "blog", Interpreter: "python3"}, []string{"requirements.txt", "--index-url " + x.address("ok", login) + "\ntiny==1.0\n"}, []string{"tinier==2.0", "tiny==1.0"}},
			{"poetry", &config.App{Name: "blog", Interpreter: "python3", BuildEnv: []config.Var{{Name: "POETRY_HTTP_BASIC_OUR_OWN_USERNAME", Value: "bob"}, {Name: "POETRY_HTTP_BASIC_OUR_OWN_PASSWORD", Value: x.password}}},
				[]string{"pyproject.toml", "[tool.poetry]\npackage-mode = false\n", "poetry.lock", poetryLock}, []string{"tiny==1.0"}},
			{"no such package", appFrom(x.address("ok", login)), []string{"requirements.txt", "nothing==1.0\n"}, nil},
			{"wrong hash", appFrom(x.address("ok", login)), []string{"requirements.txt", "tinier==2.0 --hash=sha256:" + strings.Repeat("0", 64) + "\n"}, nil},
			{"wrong password", appFrom(x.address("ok", "bob:oth3r-s3cr3t@")), []string{"requirements.txt", "tiny==1.0\n"}, nil},
		} {
			if name == "pip" && (c.name == "in the file" || c.name == "wrong hash") {
				continue // its virtualenvs take seconds each
			}
			t.Run(name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				r, err := installWith(t, tc, c.app, tree(t, c.files...), filepath.Join(t.TempDir(), "venv"), time.Minute)
				r.list = slices.DeleteFunc(r.list, func(s string) bool { return strings.HasPrefix(s, "setuptools==") })
				if (err == nil) != (c.list != nil) || c.list != nil && !slices.Equal(r.list, c.list) {
					t.Errorf("%v %q\n%s", err, r.list, r.out)
				}
				all := fmt.Sprint(r.out, err, r.list, r.deps)
				for _, secret := range []string{"s3cr%t", "s3cr%25t", "oth3r"} {
					if strings.Contains(all, secret) {
						t.Errorf("%q is shown:\n%s", secret, all)
					}
				}
				if c.name == "wrong password" && err != nil && !strings.Contains(err.Error(), "credentials") {
					t.Errorf("%v\n%s", err, r.out)
				}
			})
		}
	}
}

// An index that is slow, down or not what it should be: why, which, what next.
func TestBadIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for time-outs")
	}
	t.Parallel()
	x := newIndex(t)
	x.add(t, "tiny", "1.0")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := "http://bob:s3cret@" + l.Addr().String() + "/simple"
	l.Close()
	const login = "bob:s3cret@"
	for name, path := range installers(t) {
		tc := freshToolchain(t, path)
		noPackage := "the index has no such package, or did not answer as it should"
		for kind, c := range map[string]struct{ address, uv, pip string }{
			"slow":    {x.address("slow", login), "the index may be slow or down; a longer time is set by timeout in [deploy]", noPackage},
			"down":    {down, "the index can't be reached from this server", ""},
			"login":   {x.address("login", login), "what the index gave is no package or no list of them", "what the index gave is no package or no list of them"},
			"broken":  {x.address("broken", login), "the index has trouble of its own", ""},
			"garbage": {x.address("garbage", login), "no package", ""},
		} {
			want, timeout := c.uv, 60*time.Second
			if name == "pip" {
				want = c.pip
			} else if kind == "slow" {
				timeout = 5 * time.Second
			}
			if want == "" {
				continue // a virtualenv of pip's takes seconds
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				begin := time.Now()
				r, err := installWith(t, tc, appFrom(c.address), tree(t, "requirements.txt", "tiny==1.0\n"), filepath.Join(t.TempDir(), "venv"), timeout)
				if err == nil {
					t.Fatalf("it works\n%s", r.out)
				}
				if took := time.Since(begin); took > 2*time.Minute {
					t.Errorf("it took %s", took)
				}
				if !strings.Contains(err.Error(), want) || strings.Contains(r.out+err.Error(), "s3cret") {
					t.Errorf("%v\n%s", err, r.out)
				}
				if !strings.Contains(err.Error(), "\nasked was http://****@127.0.0.1:") {
					t.Errorf("it names no index: %v\n%s", err, r.out)
				}
			})
		}
	}
}

// A server without a network, by default: pip's five tries, each after twice the time,
// made half a minute.
func TestOfflineIsToldSoon(t *testing.T) {
	if testing.Short() {
		t.Skip("starts pip")
	}
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app := &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}
	src := tree(t, "requirements.txt", "--index-url http://"+l.Addr().String()+"/simple\ntiny==1.0\n")
	l.Close()
	r, err := install(t, freshToolchain(t, withoutUV), app, src)
	if err == nil || !strings.Contains(err.Error(), "\nthe index can't be reached from this server: look whether its address is right and it is up") || !strings.Contains(err.Error(), "\nasked was http://127.0.0.1:") {
		t.Errorf("%v\n%s", err, r.out)
	}
	if n := strings.Count(r.out, "Retrying ("); n != 2 {
		t.Errorf("%d tries again:\n%s", n, r.out)
	}
}

// Whatever is edited in the files that declare dependencies: the virtualenv that a
// deploy uses, new or from the store, has what one made from nothing has.
func TestAnyEditGivesWhatAFreshInstallGives(t *testing.T) {
	if testing.Short() {
		t.Skip("makes many virtualenvs")
	}
	t.Parallel()
	x := newIndex(t)
	hashes := map[string]string{}
	names := []string{"pa", "pb", "pc", "pd"}
	for _, n := range names {
		for _, v := range []string{"1.0", "1.1", "2.0"} {
			var needs []string
			if n == "pa" && v == "2.0" {
				needs = []string{"pd<2"}
			}
			hashes[n+v] = x.add(t, n, v, needs...)
		}
	}
	path, steps := withoutUV, 2
	if uv, err := exec.LookPath("uv"); err == nil {
		path, steps = filepath.Dir(uv)+":"+withoutUV, 8
	}
	if n, err := strconv.Atoi(os.Getenv("SCOTCH_EDITS")); err == nil {
		steps = n
	}
	seed, err := strconv.ParseUint(os.Getenv("SCOTCH_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("SCOTCH_SEED=%d SCOTCH_EDITS=%d", seed, steps)
	rng := rand.New(rand.NewPCG(seed, 0))
	tc := freshToolchain(t, path)
	app := appFrom(x.address("ok", ""))
	local := t.TempDir()
	one := func(list ...string) string { return list[rng.IntN(len(list))] }
	requirement := func() string {
		n, v := one(names...), one("1.0", "1.1", "2.0")
		return one(n, n+"=="+v, n+">="+v, n+"<2", n+"==1.*", n+"=="+v+"; python_version < '3'", strings.ToUpper(n)+"=="+v, "# "+n) + "\n"
	}
	some := func(f func() string, most int) (s string) {
		for range rng.IntN(most + 1) {
			s += f()
		}
		return s
	}
	make := func() []string {
		switch rng.IntN(4) {
		case 0: // a lock
			var l strings.Builder
			for _, n := range names[:1+rng.IntN(3)] {
				v := one("1.0", "1.1", "2.0")
				fmt.Fprintf(&l, "[[package]]\nname = %q\nversion = %q\ngroups = [%q]\nmarkers = %q\nfiles = [{file = \"x\", hash = %q}]\n", n, v, one("main", "main", "dev"), one("", "python_version > '3'", "os_name == 'nt'"), hashes[n+v])
			}
			return []string{"pyproject.toml", "[tool.poetry]\npackage-mode = false\n", "poetry.lock", l.String() + "[metadata]\nlock-version = \"2.1\"\n"}
		case 1: // a list
			return []string{"pyproject.toml", fmt.Sprintf("[project]\nname = 'x'\nversion = '1'\ndependencies = [%q]\n", strings.TrimSpace(one(names...)+one("", "<2", "==1.0")))}
		case 2: // what is included
			return []string{"requirements.txt", one("-r more.txt\n", "-c more.txt\n", "-r more.txt\n-c pins.txt\n") + some(requirement, 1), "more.txt", one("pb==1.0\n", "pb<2\n", "pc\n"), "pins.txt", "pb==1.0\n"}
		}
		return []string{"requirements.txt", some(requirement, 3)}
	}
	store := map[string]result{}
	var before [][]string
	reused := 0
	for i := range steps {
		files := make()
		if rng.IntN(6) == 0 {
			// A path of the source, whose content is not in any file that declares.
			file := fmt.Sprintf("lib-%s-py3-none-any.whl", one("1.0", "2.0"))
			_, v, _ := strings.Cut(strings.TrimSuffix(file, "-py3-none-any.whl"), "-")
			files = []string{"requirements.txt", "./lib.d/" + file + "\n", "lib.d/" + file, string(wheel(t, "lib", v, one("pa==1.0", "pb==1.0")))}
		}
		if len(before) > 0 && rng.IntN(3) == 0 { // back to what was
			files = before[rng.IntN(len(before))]
		}
		before = append(before, files)
		src := tree(t, files...)
		in, err := tc.Interpreter(t.Context(), app, src)
		if err != nil {
			t.Fatal(err)
		}
		app.InstanceID = fmt.Sprint(i)
		deps, err := tc.Dependencies(t.Context(), app, src, in, nil)
		if err != nil {
			t.Fatalf("%d %q: %v", i, files, err)
		}
		fresh, freshErr := installWith(t, tc, app, src, filepath.Join(local, fmt.Sprint(i, "-fresh")), time.Minute)
		used, ok := store[deps.Key]
		if ok && deps.Shareable {
			reused++
		} else {
			if used, err = installWith(t, tc, app, src, filepath.Join(local, fmt.Sprint(i)), time.Minute); (err == nil) != (freshErr == nil) {
				t.Fatalf("%d %q: once %v, once %v", i, files, err, freshErr)
			}
			if err != nil { // requirements that contradict each other
				continue
			}
			store[deps.Key] = used
		}
		if diff := gocmp.Diff(fresh.list, used.list); diff != "" || freshErr != nil {
			t.Fatalf("edit %d, seed %d: %q: %s %v", i, seed, files, diff, freshErr)
		}
	}
	t.Logf("%d of %d from the store", reused, steps)
}

// A real compiler's words about a header that is not there.
func TestMissingHeaderOfARealCompiler(t *testing.T) {
	online(t)
	t.Parallel()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip(err)
	}
	if _, err := os.Stat("/usr/include/lber.h"); err == nil {
		t.Skip("the header is there")
	}
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := tree(t, "x.c", "#include <lber.h>\n#include <Python.h>\n", "setup.py", "from setuptools import setup, Extension\nsetup(name='x', version='1', ext_modules=[Extension('x', ['x.c'])])\n",
				"pyproject.toml", "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n")
			_, err := install(t, toolchain(t, path), &config.App{Name: "blog", Interpreter: "python3", InstanceID: "1"}, src)
			if err == nil || !strings.Contains(err.Error(), "apt install libldap2-dev libsasl2-dev") {
				t.Errorf("%v", err)
			}
		})
	}
}

// Words of compilers and of setup.py files, as they were printed.
func TestMends(t *testing.T) {
	app := &config.App{}
	for line, want := range map[string]string{
		"psycopg/psycopg.h:35:10: fatal error: Python.h: No such file or directory":                                                   "apt install python3.11-dev",
		"./psycopg/psycopg.h:36:10: fatal error: libpq-fe.h: No such file or directory":                                               "libpq-dev",
		"    Error: pg_config executable not found.":                                                                                  "libpq-dev",
		"/bin/sh: 1: mysql_config: not found":                                                                                         "default-libmysqlclient-dev pkg-config",
		"Exception: Can not find valid pkg-config name.":                                                                              "default-libmysqlclient-dev pkg-config",
		"c/_cffi_backend.c:15:10: fatal error: ffi.h: No such file or directory":                                                      "libffi-dev",
		"src/lxml/etree.c:231:10: fatal error: libxml/xmlversion.h: No such file or directory":                                        "libxml2-dev libxslt1-dev",
		"Error: Please make sure the libxml2 and libxslt development packages are installed.":                                         "libxml2-dev libxslt1-dev",
		"The headers or library files could not be found for jpeg,":                                                                   "libjpeg-dev",
		"src/libImaging/Jpeg.h:15:10: fatal error: 'jpeglib.h' file not found":                                                        "libjpeg-dev",
		"error: can't find Rust compiler":                                                                                             "cargo",
		"Cargo, the Rust package manager, is not installed or is not on PATH.":                                                        "cargo",
		"unable to execute 'x86_64-linux-gnu-gcc': No such file or directory":                                                         "build-essential",
		"error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory":                                                     "build-essential",
		"error: command 'gcc' failed with exit status 127: gcc: not found":                                                            "build-essential",
		"Modules/LDAPObject.c:10: fatal error: lber.h: No such file or directory":                                                     "libldap2-dev",
		"xmlsec.error: xmlsec1 is not installed or not in path":                                                                       "libxmlsec1-dev",
		"src/constants.c:17:10: fatal error: xmlsec/xmldsig.h: No such file or directory":                                             "libxmlsec1-dev",
		"_openssl.c:575:10: fatal error: openssl/opensslv.h: No such file or directory":                                               "libssl-dev",
		"__main__.ConfigurationError: Could not run curl-config: [Errno 2] No such file or directory: 'curl-config'":                  "libcurl4-openssl-dev",
		"src/pyodbc.h:56:10: fatal error: sql.h: No such file or directory":                                                           "unixodbc-dev",
		"ERROR: 401 Client Error: Unauthorized for url: https://pypi.example.org/simple/x/":                                           "[build_env]",
		"NewConnectionError: Failed to establish a new connection: [Errno 111] Connection refused":                                    "can't be reached",
		"hint: An index URL (https://pypi.example.org/simple) could not be queried due to a lack of valid authentication credentials": "[build_env]",
	} {
		_, hints := python.Filter(app, line+"\n")
		if len(hints) == 0 || !strings.Contains(hints[0], want) {
			t.Errorf("%q: %q, not %q", line, hints, want)
		}
	}
	for _, fine := range []string{
		"Collecting cargo-not==1.0", "Downloading ffi.h-1.0.tar.gz", "copying Python.h -> build", "gcc -c x.c -o x.o", "Building wheel for mysqlclient (pyproject.toml)",
		"Successfully installed six-1.16.0", "cmake version 3.25", "Using cached pkg-config-1.0",
	} {
		if _, hints := python.Filter(app, fine+"\n"); len(hints) > 0 {
			t.Errorf("%q: %q", fine, hints)
		}
	}
}

// Caches are cut back after an installation that made them too large.
func TestCacheIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("makes virtualenvs")
	}
	t.Parallel()
	x := newIndex(t)
	x.add(t, "tiny", "1.0")
	for name, path := range installers(t) {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			old := filepath.Join(cache, cmp.Or(name, "pip"), "old")
			outside := filepath.Join(t.TempDir(), "precious")
			os.MkdirAll(filepath.Dir(old), 0o755)
			os.WriteFile(old, make([]byte, 1<<20), 0o644)
			os.Chtimes(old, time.Unix(1, 0), time.Unix(1, 0))
			os.WriteFile(outside, make([]byte, 1<<20), 0o644)
			os.Symlink(filepath.Dir(outside), filepath.Join(filepath.Dir(old), "link"))
			tc := python.New(seeded{newRunner(t)}, python.Options{Path: path, Cache: func(*config.App) string { return cache }, MaxCache: 512 << 10})
			if r, err := installWith(t, tc, appFrom(x.address("ok", "")), tree(t, "requirements.txt", "tiny==1.0\n"), filepath.Join(t.TempDir(), "venv"), time.Minute); err != nil {
				t.Fatalf("%v\n%s", err, r.out)
			}
			if _, err := os.Stat(old); err == nil {
				t.Error("the cache is as large as before")
			}
			if _, err := os.Stat(outside); err != nil {
				t.Error("what is not the cache was removed")
			}
		})
	}
}
