package systemd

import (
	"os"
	"path"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"scotch/deployer"
)

// What matches the units of blog must not match those of blog-api, and the slice
// of one must not be inside of the other's.
func TestNames(t *testing.T) {
	r, err := New("/run/scotch", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"blog/000042":     "scotch-app-blog-000042.service",
		"blog-api/000042": "scotch-app-blog.api-000042.service",
		"blog_api/000042": "scotch-app-blog_api-000042.service",
		"nginx":           "scotch-app-nginx.service",
		"a.b/é":           `scotch-app-a\x2eb-\xc3\xa9.service`,
	} {
		if got := r.instanceUnit(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, unit := range []string{r.instanceUnit("blog-api/000042"), r.instanceUnit("blog_api/1"), r.commandUnit("blog-api"), r.commandUnit("blog_api")} {
		for _, pattern := range []string{"scotch-app-blog-*.service", "scotch-run-blog-*.service"} {
			if ok, _ := path.Match(pattern, unit); ok {
				t.Errorf("%s matches %s", unit, pattern)
			}
		}
	}
	if got := r.slice("blog-api"); got != "scotch-blog.api.slice" {
		t.Error(got)
	}
	other, err := New("/run/scotch2", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range r.patterns() {
		if ok, _ := path.Match(pattern, other.instanceUnit("blog/1")); ok || other.prefix == r.prefix {
			t.Errorf("the other site's units match %s", pattern)
		}
	}
}

// In version 2 the slice still tells when the unit's own group is gone.
func TestMemoryKills(t *testing.T) {
	root := t.TempDir()
	slice := filepath.Join(root, "scotch.slice", "scotch-blog.slice")
	unit := filepath.Join(slice, "scotch-app-blog-1.service")
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(slice, "memory.events", "low 0\nhigh 0\nmax 40\noom 3\noom_kill 2\noom_group_kill 0\n")
	write(unit, "memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n")
	const group = "/scotch.slice/scotch-blog.slice/scotch-app-blog-1.service"
	m := openMemory(root, group)
	if m.grown() {
		t.Error("nothing was killed since")
	}
	write(unit, "memory.events", "oom 1\noom_kill 1\n")
	if !m.grown() {
		t.Error("one was killed")
	}
	if err := os.RemoveAll(unit); err != nil {
		t.Fatal(err)
	}
	if m.grown() {
		t.Error("the slice says nothing of it")
	}
	write(slice, "memory.events", "oom 4\noom_kill 3\n")
	if !m.grown() {
		t.Error("the slice says so")
	}
	write(filepath.Join(root, "memory", group), "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
	if m := openMemory(root, group); !m.grown() {
		t.Error("version 1 is not read")
	}
}

func TestWords(t *testing.T) {
	l := deployer.Limits{Memory: 512 << 20}
	for want, e := range map[string]ending{
		"killed: out of memory ([limits] memory = 512m)": {result: "oom-kill", code: cldKilled, status: int32(unix.SIGTERM)},
		"killed by SIGKILL": {result: "signal", code: cldKilled, status: int32(unix.SIGKILL)},
		"exited with 22":    {result: "exit-code", code: cldExited, status: 22},
	} {
		if got := e.words(l); got == nil || got.Error() != want {
			t.Errorf("%+v is %v, want %s", e, got, want)
		}
	}
	killed := ending{result: "signal", code: cldKilled, status: int32(unix.SIGKILL), memory: true}
	if err := killed.exitError("pip", deployer.Limits{Memory: 2 << 30, Prefix: "build_"}); err.Error() != "pip was killed: out of memory ([limits] build_memory = 2g)" {
		t.Error(err)
	}
	if err := (ending{result: "success", code: cldExited}).words(l); err != nil {
		t.Error(err)
	}
}
