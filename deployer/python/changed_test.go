package python_test

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/direct"
	"scotch/deployer/python"
)

// counting counts the processes that are started.
type counting struct {
	deployer.Runner
	runs atomic.Int32
	last atomic.Pointer[deployer.Command]
}

func (c *counting) Run(ctx context.Context, cmd deployer.Command) error {
	c.runs.Add(1)
	c.last.Store(&cmd)
	return c.Runner.Run(ctx, cmd)
}

func checker(t *testing.T) (*python.Toolchain, *counting) {
	t.Helper()
	run := &counting{Runner: direct.New(t.TempDir(), direct.Options{Terminate: time.Second})}
	return python.New(run, python.Options{Path: withoutUV, Home: os.Getenv("HOME")}), run
}

// pythonOfPyenv is an interpreter of that minor version; where there is none the test is skipped.
func pythonOfPyenv(t *testing.T, minor string) string {
	t.Helper()
	home, _ := os.UserHomeDir()
	found, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions", minor+".*/bin/python"+minor))
	if len(found) == 0 {
		t.Skipf("no Python %s of pyenv", minor)
	}
	return found[0]
}

// upgradable is a "distribution" whose python3 is a link that an upgrade turns.
func upgradable(t *testing.T) (link string, turn func(target string)) {
	t.Helper()
	link = filepath.Join(t.TempDir(), "python3")
	return link, func(target string) {
		t.Helper()
		os.Remove(link)
		if target == "" {
			return
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
}

func version(t *testing.T, python string) string {
	t.Helper()
	b, err := exec.Command(python, "-I", "-c", "import platform; print(platform.python_version())").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// makeVenv makes one like venv does: bin/python3 links to the very path given.
func makeVenv(t *testing.T, interpreter string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "venv")
	if b, err := exec.Command(interpreter, "-I", "-m", "venv", "--without-pip", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return dir
}

func TestChanged(t *testing.T) {
	tc, run := checker(t)
	changed := func(in deployer.Interpreter, venv string) string {
		t.Helper()
		why, err := tc.Changed(t.Context(), &config.App{Name: "blog"}, in, venv)
		if err != nil {
			t.Error(err)
		}
		return why
	}
	const py = "/usr/bin/python3"
	if _, err := os.Stat(py); err != nil {
		t.Skip(err)
	}
	in := deployer.Interpreter{Path: py, Version: version(t, py)}
	first := makeVenv(t, py)
	// 500 apps with one interpreter cost one process.
	for range 500 {
		if why := changed(in, first); why != "" {
			t.Fatal(why)
		}
	}
	if n := run.runs.Load(); n != 1 {
		t.Errorf("%d processes were started", n)
	}

	minor := strings.Join(strings.Split(in.Version, ".")[:2], ".")
	patch := in
	patch.Version = minor + ".99"
	if why := changed(patch, first); why != "" {
		t.Errorf("another bug-fix release: %s", why)
	}
	for name, c := range map[string]struct {
		in   deployer.Interpreter
		harm func(venv string)
		want string
	}{
		"another minor version": {in: deployer.Interpreter{Path: py, Version: "3.4.5"}, want: `"/usr/bin/python3" was Python 3.4.5 and is ` + in.Version + " now"},
		"before its release":    {in: deployer.Interpreter{Path: py, Version: minor + ".0rc1"}, want: "was Python " + minor + ".0rc1"},
		"interpreter gone":      {in: deployer.Interpreter{Path: "/nowhere/python3", Version: in.Version}, want: `"/nowhere/python3" is gone`},
		"not executable":        {in: deployer.Interpreter{Path: "/etc/passwd", Version: in.Version}, want: `"/etc/passwd" is no program`},
		"fails":                 {in: deployer.Interpreter{Path: "/bin/false", Version: in.Version}, want: `"/bin/false" does not work`},
		"the link leads nowhere": {in: in, want: `"/nowhere/python3.9", which the virtualenv runs, is gone`, harm: func(v string) {
			os.Remove(filepath.Join(v, "bin/python3"))
			os.Symlink("/nowhere/python3.9", filepath.Join(v, "bin/python3"))
		}},
		"no link": {in: in, want: "the virtualenv has no bin/python", harm: func(v string) { os.RemoveAll(filepath.Join(v, "bin")) }},
		"no venv": {in: in, want: "the virtualenv has no bin/python", harm: func(v string) { os.RemoveAll(v) }},
		"no pyvenv.cfg": {in: in, want: "lost its pyvenv.cfg", harm: func(v string) {
			os.Remove(filepath.Join(v, "pyvenv.cfg"))
		}},
		"made with another": {in: in, want: "the virtualenv was made with Python 3.4.5", harm: func(v string) {
			os.WriteFile(filepath.Join(v, "pyvenv.cfg"), []byte("home = /usr/bin\nversion = 3.4.5\n"), 0o644)
		}},
		"no home": {in: in, want: `"/nowhere", where the virtualenv's Python was, is gone`, harm: func(v string) {
			os.WriteFile(filepath.Join(v, "pyvenv.cfg"), []byte("home = /nowhere\nversion_info = "+in.Version+".final.0\n"), 0o644)
		}},
	} {
		venv := makeVenv(t, py)
		if c.harm != nil {
			c.harm(venv)
		}
		if why := changed(c.in, venv); !strings.Contains(why, c.want) || why == "" {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// An upgrade of the distribution: the same path is another Python, and is seen
// without a restart of the server.
func TestChangedByAnUpgrade(t *testing.T) {
	older, newer := pythonOfPyenv(t, "3.11"), pythonOfPyenv(t, "3.12")
	tc, run := checker(t)
	link, turn := upgradable(t)
	turn(older)
	in := deployer.Interpreter{Path: link, Version: version(t, link)}
	venv := makeVenv(t, link)
	see := func(want string) {
		t.Helper()
		why, err := tc.Changed(t.Context(), &config.App{Name: "blog"}, in, venv)
		if err != nil || !strings.Contains(why, want) || (why == "") != (want == "") {
			t.Errorf("%q %v, want %q", why, err, want)
		}
	}
	see("")
	turn(newer)
	see("was Python " + in.Version + " and is 3.12")
	turn("")
	see("is gone")
	turn(older)
	before := run.runs.Load()
	see("")
	if n := run.runs.Load(); n != before {
		t.Error("an interpreter that is known was asked again")
	}
	// The rules of a deploy find what a rebuild is to be made with.
	turn(newer)
	app := &config.App{Name: "blog", Interpreter: link, InterpreterSet: true}
	if got, err := tc.Interpreter(t.Context(), app, t.TempDir()); err != nil || !strings.HasPrefix(got.Version, "3.12.") || got.Path != link {
		t.Errorf("%+v %v", got, err)
	}
}

// The path may come from an app's own source: it never runs with root's rights, nor
// as another than the app, whose runner would not confine it.
func TestChangedIsNoWayToRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "scotch-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o777)
	evil := filepath.Join(dir, "python3.11")
	os.WriteFile(evil, []byte("#!/bin/sh\nid -u >"+dir+"/who\nexit 1\n"), 0o755)
	tc, run := checker(t)
	venv := makeVenv(t, "/usr/bin/python3")
	app := &config.App{Name: "blog", User: "daemon", Group: "daemon"}
	u, err := user.Lookup(app.User)
	if err != nil {
		t.Skip(err)
	}
	why, err := tc.Changed(t.Context(), app, deployer.Interpreter{Path: evil, Version: "3.11.2"}, venv)
	if err != nil || !strings.Contains(why, "does not work") {
		t.Errorf("%q %v", why, err)
	}
	who, err := os.ReadFile(filepath.Join(dir, "who"))
	if err != nil || strings.TrimSpace(string(who)) != u.Uid {
		t.Errorf("it ran as %q, %v", who, err)
	}
	// What is root's own is nobody's way out, and one look is enough for all apps.
	if _, err := tc.Changed(t.Context(), app, deployer.Interpreter{Path: "/usr/bin/python3", Version: version(t, "/usr/bin/python3")}, venv); err != nil {
		t.Error(err)
	}
	if last := run.last.Load(); last.User != "nobody" {
		t.Errorf("the machine's own ran as %q", last.User)
	}
}
