package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/control"
)

const socketName = "control.sock"

// forward hands a command on to the server that runs on this machine. -c only
// finds it: what counts are the files that the server was started with.
// Commands that read files alone do without a server.
func (s *session) forward(cmd *cobra.Command, args []string, r rights, work func(*cobra.Command, []string) error) error {
	site, err := openSite(s.files)
	if err != nil {
		return err
	}
	out, isFile := s.stdout.(*os.File)
	call := control.Call{Args: serverArgs(cmd, args), Stdin: r.stdin, Screen: isFile && isTerminal(out), Version: version()}
	if len(s.files) > 0 {
		call.Files = site.Files
	}
	var term *control.Terminal
	if r.terminal {
		var done func()
		term, done = s.localTerminal()
		defer done()
	}
	code, err := control.Do(cmd.Context(), filepath.Join(site.Paths.Run, socketName), call, s.stdin, s.stdout, s.stderr, term)
	switch {
	case errors.Is(err, control.ErrNoServer) && len(site.Files) == 0 && !isDir(site.Paths.AppsEnabled):
		return fmt.Errorf("no site file (/etc/scotch.cfg, ~/.scotch.cfg or ./scotch.cfg) and no server at %s\nfor a standalone server: scotch -c DIR/scotch.cfg %s",
			filepath.Join(site.Paths.Run, socketName), cmd.Name())
	// -c "is helpful for non-root testing": beside a server that is somebody else's.
	case r.offline && (errors.Is(err, control.ErrNoServer) || len(s.files) > 0 && errors.As(err, new(*control.ForbiddenError))):
		srv, err := offline(site)
		if err != nil {
			return err
		}
		s.srv = srv
		defer func() { s.srv = nil }()
		return work(cmd, args)
	case errors.Is(err, control.ErrNoServer) && isServing(site):
		return fmt.Errorf("the server is stopping or starting: nothing answers at %s\na stop finishes the deploys under way first, for %s at most ([server] stop_timeout); try again in a moment",
			filepath.Join(site.Paths.Run, socketName), site.Server.StopTimeout)
	case errors.Is(err, control.ErrNoServer):
		return fmt.Errorf("%w at %s\nstart it: %s", err, filepath.Join(site.Paths.Run, socketName), howToStart(site))
	case err != nil && cmd.Context().Err() != nil:
		return unlessFollowing(cmd, context.Cause(cmd.Context()))
	case err != nil:
		return err
	case code != 0:
		return &exitError{code}
	}
	return nil
}

// unlessFollowing is the error of a command that was interrupted. Ctrl-C is how one
// that follows a log is ended, and no failure, over ssh neither.
func unlessFollowing(cmd *cobra.Command, cause error) error {
	i, ok := errors.AsType[*interrupted](cause)
	if f := cmd.Flags().Lookup("follow"); ok && i.signal == os.Interrupt && f != nil && f.Value.String() == "true" {
		return nil
	}
	return cause
}

// localCommand is how a person on this machine reaches the server's commands.
func localCommand(site *config.Site) string {
	command := "scotch"
	if site.Named {
		for _, f := range site.Files {
			command += " -c " + f
		}
	}
	return command
}

// howToStart is how the server of these site files is started.
func howToStart(site *config.Site) string {
	dir := site.Paths.Configuration
	switch {
	case site.Mode != "standalone" && !site.Named:
		return "systemctl start scotch, or scotch serve"
	case site.Mode == "standalone" && slices.Equal(site.Files, []string{filepath.Join(dir, standaloneFile)}):
		return "scotch serve --standalone " + dir
	}
	return localCommand(site) + " serve"
}

// serverArgs is the command as the server is to run it: its path, the flags
// that were set, its arguments. -c stays here.
func serverArgs(cmd *cobra.Command, args []string) []string {
	var words []string
	for c := cmd; c.HasParent(); c = c.Parent() {
		words = append([]string{c.Name()}, words...)
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		if v, ok := f.Value.(pflag.SliceValue); ok {
			for _, one := range v.GetSlice() {
				words = append(words, "--"+f.Name+"="+one)
			}
			return
		}
		words = append(words, "--"+f.Name+"="+f.Value.String())
	})
	return append(append(words, "--"), args...)
}

// offline is what commands that only read work on where no server runs.
func offline(site *config.Site) (*server, error) {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	log.SetLevel(logrus.ErrorLevel)
	p, err := newPlugins(site, log)
	if err != nil {
		return nil, err
	}
	return &server{site: site, deployer: deployer.New(p.options(site, log)), log: log}, nil
}

// otherFiles warns of site files that a command was given and that are not
// those of the server that it found: they count for nothing. Empty where they
// are the same files, by whatever names.
func otherFiles(given, counts []string) string {
	if len(given) == 0 || slices.EqualFunc(given, counts, sameFile) {
		return ""
	}
	return deployer.Neutral(fmt.Sprintf("scotch: -c %s is not what this server was started with, and does not count: that is %s",
		quoted(given), quoted(counts)))
}

func quoted(files []string) string {
	if len(files) == 0 {
		return "no site file"
	}
	all := make([]string, 0, len(files))
	for _, f := range files {
		all = append(all, strconv.Quote(f))
	}
	return strings.Join(all, ", ")
}

func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}
