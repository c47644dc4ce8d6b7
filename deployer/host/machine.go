package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// Runner runs a program and waits for its end.
type Runner interface {
	Run(ctx context.Context, c deployer.Command) error
}

// Keys are who may connect to the server.
type Keys interface {
	// Admins counts the keys that may do everything.
	Admins() (int, error)
	// AddAdmin lets a public key in, one line as in a .pub file.
	AddAdmin(name, line string) error
}

// Machine is the computer that this program runs on, with the site that it
// serves or is to serve.
type Machine struct {
	Site *config.Site
	Run  Runner
	// Files writes; nil is the plain one.
	Files *deployer.Files
	Keys  Keys
	// Program is the scotch that the server is to run: this one.
	Program string
	// HostKey returns the fingerprint of the host key, which it makes where there is none.
	HostKey func(path string) (fingerprint string, err error)
}

// The places that setup knows of besides those of the configuration.
const (
	siteFile     = "/etc/scotch.cfg"
	stateFile    = "/var/lib/scotch/setup.json"
	gitHome      = "/var/lib/scotch/home"
	uvDir        = "/var/lib/scotch/uv"
	uvLink       = "/usr/local/bin/uv"
	unitFile     = "/etc/systemd/system/" + unitName
	unitName     = "scotch.service"
	sliceName    = "scotch.slice"
	ownProgram   = "/usr/local/bin/scotch"
	searchPath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	systemPython = "/usr/bin/python3"
)

// packagedUnits is where a package's own unit lies, by release of Debian.
func packagedUnits() []string {
	return []string{"/usr/lib/systemd/system/" + unitName, "/lib/systemd/system/" + unitName}
}

// command is a program with an environment of its own.
func command(args ...string) deployer.Command {
	return deployer.Command{Args: args, Dir: "/", Env: []string{"PATH=" + searchPath, "LANG=C.UTF-8", "HOME=/root"}, Timeout: time.Minute}
}

// output runs a program and returns what it wrote on its standard output. The
// error has the last line of its standard error.
func (m *Machine) output(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	c := command(args...)
	c.Stdout, c.Stderr = &out, &errs
	err := m.Run.Run(ctx, c)
	if last := lastLine(errs.String()); err != nil && last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return strings.TrimSpace(out.String()), err
}

// shown runs a program whose output a person sees as it comes.
func (m *Machine) shown(ctx context.Context, out io.Writer, c deployer.Command) error {
	c.Stdout, c.Stderr = out, out
	return m.Run.Run(ctx, c)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return deployer.Neutral(strings.TrimSpace(lines[len(lines)-1]))
}

func (m *Machine) files() *deployer.Files {
	if m.Files == nil {
		return new(deployer.Files)
	}
	return m.Files
}

// has tells whether a program is in the PATH of services.
func has(program string) bool { return find(program) != "" }

func find(program string) string {
	if filepath.IsAbs(program) {
		if isProgram(program) {
			return program
		}
		return ""
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		if path := filepath.Join(dir, program); isProgram(path) {
			return path
		}
	}
	return ""
}

func isProgram(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// systemd tells whether systemd is the first process (sd_booted(3)).
func systemd() bool {
	fi, err := os.Lstat("/run/systemd/system")
	return err == nil && fi.IsDir()
}

// release is what /etc/os-release says (os-release(5)).
type release struct{ id, like, version, name string }

func readRelease() (release, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return release{}, fmt.Errorf("finding out which system this is: %w", err)
	}
	var r release
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			r.id = value
		case "ID_LIKE":
			r.like = value
		case "VERSION_ID":
			r.version = value
		case "PRETTY_NAME":
			r.name = value
		}
	}
	return r, nil
}

// debian tells whether apt and Debian's packages are to be had.
func (r release) debian() bool {
	for _, id := range append(strings.Fields(r.like), r.id) {
		if id == "debian" || id == "ubuntu" {
			return true
		}
	}
	return false
}

// firstExisting is path, or the nearest directory above it that is there.
func firstExisting(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}
