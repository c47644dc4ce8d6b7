package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"scotch/deployer"
)

// Name is a command as a person knows it.
func Name(args []string) string {
	if len(args) == 0 {
		return "no command"
	}
	return args[0][strings.LastIndexByte(args[0], '/')+1:]
}

// LookPath finds a program as execvp(3) would with env, but for empty and
// relative entries of PATH, which are passed over.
func LookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			abs, err := filepath.Abs(filepath.Join(dir, name))
			if err != nil {
				return "", err
			}
			name = abs
		}
		return name, executable(name)
	}
	var path string
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, d := range filepath.SplitList(path) {
		if p := filepath.Join(d, name); filepath.IsAbs(d) && executable(p) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: %q is in no directory of PATH %q", deployer.ErrNoProgram, name, path)
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %q", deployer.ErrNoProgram, path)
	case err != nil:
		return fmt.Errorf("%w: %w", deployer.ErrNotExecutable, err)
	case info.IsDir():
		return fmt.Errorf("%w: %q is a directory", deployer.ErrNotExecutable, path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%w: %q", deployer.ErrNotExecutable, path)
	}
	return nil
}
