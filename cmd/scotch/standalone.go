package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"scotch/config"
	"scotch/deployer"
)

// standaloneOptions are the flags of serve --standalone.
type standaloneOptions struct {
	dir, listen, http  string
	listenSet, httpSet bool
}

// standaloneFile is the site file in the directory of a standalone server.
const standaloneFile = "scotch.cfg"

// prepare makes the directory and writes its site file, once.
func (o standaloneOptions) prepare(out io.Writer) (file string, err error) {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return "", err
	}
	for _, addr := range []string{o.listen, o.http} {
		if _, port, err := net.SplitHostPort(addr); err != nil {
			return "", usageError{fmt.Errorf("%q is no address: write HOST:PORT", addr)}
		} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "", usageError{fmt.Errorf("%q names no port: write HOST:PORT", addr)}
		}
	}
	if err := config.CheckSocketPath(filepath.Join(dir, "instances", "an-app-with-a-name", "000001", "run", "uwsgi.sock")); err != nil {
		return "", fmt.Errorf("%w\nchoose a directory with a shorter path than %q", err, dir)
	}
	file = filepath.Join(dir, standaloneFile)
	if _, err := os.Stat(file); err == nil {
		return file, o.agrees(file)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// Its own would have other paths for the same apps.
	if _, err := os.Lstat(filepath.Join(dir, "host_key")); err == nil {
		return "", fmt.Errorf("%q is the configuration of a server already (it has a host_key), and has no %s\nstart that server by its own site files, scotch -c FILE serve; or put %s back", dir, standaloneFile, standaloneFile)
	}
	// The flags are written once, so not with an address that can't be had.
	if err := o.free(); err != nil {
		return "", err
	}
	if err := makePrivate(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(dir, "apps-enabled"), 0o755); err != nil {
		return "", err
	}
	text := config.StandaloneSite(config.StandaloneOptions{Dir: dir, Listen: o.listen, HTTP: o.http, BuildEnv: installerVars()})
	if err := new(deployer.Files).Write("write-site", file, text, 0o600); err != nil {
		return "", err
	}
	fmt.Fprintf(out, "wrote %s\n", file)
	return file, nil
}

// makePrivate makes the directory for its owner alone: what is below it is open
// to others of the machine by its own modes, as in system mode. One that is there
// keeps its mode, and the start tells.
func makePrivate(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// free tells whether both addresses can be listened at.
func (o standaloneOptions) free() error {
	for _, door := range []struct{ what, flag, addr string }{{"ssh", "--listen", o.listen}, {"http", "--http", o.http}} {
		l, err := net.Listen("tcp", door.addr)
		if err != nil {
			return fmt.Errorf("listening for %s at %q: %w\nanother program has that address, or it is not this machine's; give another one by %s HOST:PORT",
				door.what, door.addr, err, door.flag)
		}
		defer l.Close() // with the function: both may name one address
	}
	return nil
}

// agrees refuses flags that say something else than the site file that is there.
func (o standaloneOptions) agrees(file string) error {
	site, err := openSite([]string{file})
	if err != nil {
		return err
	}
	if o.listenSet && site.Server.Listen != o.listen {
		return usageError{fmt.Errorf("--listen is %q, but %s says [server] listen = %s\nchange it there", o.listen, file, site.Server.Listen)}
	}
	if have, err := site.Get("nginx", "listen"); err == nil && o.httpSet && have != o.http {
		return usageError{fmt.Errorf("--http is %q, but %s says [nginx] listen = %s\nchange it there", o.http, file, have)}
	}
	return nil
}

// installerVars are the caller's settings for installers: a proxy, a private
// index, a trust store. They go into the site file, in the open, because
// nothing of the server's own environment reaches a build.
func installerVars() []config.Var {
	var vars []config.Var
	for _, name := range []string{
		"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT",
		"UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_HTTP_TIMEOUT",
	} {
		if v := os.Getenv(name); v != "" {
			vars = append(vars, config.Var{Name: name, Value: v})
		}
	}
	return vars
}

// ownKeys are the public keys that are admins' without being listed: the
// caller's, in standalone mode.
func ownKeys(site *config.Site) []string {
	home, err := os.UserHomeDir()
	if site.Mode != "standalone" || err != nil {
		return nil
	}
	return []string{filepath.Join(home, ".ssh", "*.pub")}
}
