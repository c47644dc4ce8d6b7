package python_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/python"
)

// shared is what tests have together, for the time of one run: virtualenvs with pip,
// which cost four seconds of processor time each to make, and the installers' caches.
type sharing struct {
	dir string

	mu    sync.Mutex
	seeds map[string]func() (string, error) // by interpreter
}

var shared sharing

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == python.Arg {
		syscall.Exit(python.Main(os.Stdin, os.Stdout, os.Stderr)) // at once, with the race detector too
	}
	dir, err := os.MkdirTemp("", "scotch-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared = sharing{dir: dir, seeds: map[string]func() (string, error){}}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// seed is a virtualenv of that interpreter with pip, to copy.
func (s *sharing) seed(interpreter string) (string, error) {
	s.mu.Lock()
	once, ok := s.seeds[interpreter]
	if !ok {
		dir := filepath.Join(s.dir, fmt.Sprint("seed", len(s.seeds)))
		once = sync.OnceValues(func() (string, error) {
			b, err := exec.Command(interpreter, "-I", "-m", "venv", dir).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, b)
			}
			return dir, err
		})
		s.seeds[interpreter] = once
	}
	s.mu.Unlock()
	return once()
}

// seeded runs programs, but for "python -m venv": it copies one. TestInstall and
// TestInstallAsUser have each of theirs made.
type seeded struct{ deployer.Runner }

func (s seeded) Run(ctx context.Context, c deployer.Command) error {
	if len(c.Args) != 5 || !slices.Equal(c.Args[1:4], []string{"-I", "-m", "venv"}) || c.User != "" {
		return s.Runner.Run(ctx, c)
	}
	seed, err := shared.seed(c.Args[0])
	if err != nil {
		return err
	}
	// With its times, which say that bytecode is of its source.
	c.Args = []string{"cp", "-a", "--", seed, c.Args[4]}
	return s.Runner.Run(ctx, c)
}

// toolchain copies virtualenvs, and has caches that the other tests fill.
func toolchain(t *testing.T, path string) *python.Toolchain {
	t.Helper()
	cache := filepath.Join(shared.dir, "cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	return toolchainWith(t, path, seeded{newRunner(t)}, cache)
}

// freshToolchain copies virtualenvs, and has empty caches.
func freshToolchain(t *testing.T, path string) *python.Toolchain {
	return toolchainWith(t, path, seeded{newRunner(t)}, t.TempDir())
}

// plainToolchain is as the server's.
func plainToolchain(t *testing.T, path string) *python.Toolchain {
	return toolchainWith(t, path, newRunner(t), t.TempDir())
}

func toolchainWith(t *testing.T, path string, run deployer.Runner, cache string) *python.Toolchain {
	t.Helper()
	return python.New(run, python.Options{
		Path: path, Home: os.Getenv("HOME"), Cache: func(*config.App) string { return cache },
	})
}

// backendFile is a build backend (https://peps.python.org/pep-0517/, pep-0660) that
// needs nothing: an index has no part in what these tests show, and setuptools takes seconds.
const backendFile = `import os, zipfile

def make(dir, files):
    info = "NAME-1.dist-info/"
    files = files + [
        (info + "METADATA", "Metadata-Version: 2.1\nName: NAME\nVersion: 1\n"),
        (info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ]
    files.append((info + "RECORD", "".join(f + ",,\n" for f, _ in files) + info + "RECORD,,\n"))
    with zipfile.ZipFile(os.path.join(dir, "NAME-1-py3-none-any.whl"), "w") as z:
        for name, text in files:
            z.writestr(name, text)
    return "NAME-1-py3-none-any.whl"

def build_wheel(dir, config_settings=None, metadata_directory=None):
    return make(dir, [("NAME.py", open("NAME.py").read())])

def build_editable(dir, config_settings=None, metadata_directory=None):
    return make(dir, [("NAME.pth", os.getcwd() + "\n")])
`

const projectFile = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n[project]\nname = 'NAME'\nversion = '1'\n"

// project is the files of a package below dir, as tree takes them.
func project(dir, name, module string) []string {
	named := func(s string) string { return strings.ReplaceAll(s, "NAME", name) }
	return []string{
		filepath.Join(dir, "pyproject.toml"), named(projectFile),
		filepath.Join(dir, "backend.py"), named(backendFile),
		filepath.Join(dir, name+".py"), module,
	}
}

// buildGo makes a program: not a script, whose interpreter would have to be there too.
func buildGo(t *testing.T, file, source string) {
	t.Helper()
	main := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(main, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "build", "-o", file, main)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
}
