// Command scotch is a deploy server for Python web apps and the program that
// talks to it: `git push scotch main` makes a commit live.
//
// This package wires the others together and decides nothing: main turns
// signals into a cancelled context and an error into an exit status; serve.go
// is the only place that knows all packages; root.go makes the command tree,
// the same one for a person on the server and for an ssh session.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"scotch/deployer/direct"
	"scotch/deployer/python"
	"scotch/deployer/systemd"
	"scotch/hooks"
)

// Exit statuses: 0 done, 1 failed, 2 wrong use. `run` exits as its command did.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	os.Exit(run(os.Args))
}

func run(argv []string) int {
	// git runs its hooks by their names, which are links to this program.
	if name := filepath.Base(argv[0]); isHook(name) {
		// Nothing to tidy up, and the race detector's exit would take a second.
		syscall.Exit(hook(name))
	}
	// What was pushed is read by a process of its own.
	if len(argv) == 2 && argv[1] == python.Arg {
		syscall.Exit(python.Main(os.Stdin, os.Stdout, os.Stderr))
	}
	// A child of git needs no more than this, and it is on the way of each push.
	if len(argv) == 3 && argv[1] == "hook" && isHook(argv[2]) {
		return hook(argv[2])
	}
	// What systemd starts becomes the program of an app.
	if len(argv) == 2 && argv[1] == systemd.Arg {
		return systemd.Child()
	}
	// As does what bubblewrap starts elsewhere.
	if len(argv) == 2 && argv[1] == direct.Arg {
		return direct.Child()
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	s := &session{who: local(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, local: true}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		stop(&interrupted{<-signals})
		<-signals // who asks twice does not want to wait
		if words := s.lastWords.Load(); words != nil {
			fmt.Fprintln(os.Stderr, *words)
		}
		os.Exit(exitFailed)
	}()
	return s.execute(ctx, argv[1:])
}

// interrupted is the cause of a context that a signal cancelled.
type interrupted struct{ signal os.Signal }

func (i *interrupted) Error() string {
	if s, ok := i.signal.(syscall.Signal); ok && s != syscall.SIGINT {
		return "interrupted by " + unix.SignalName(s)
	}
	return "interrupted"
}

func isHook(name string) bool {
	return name == "pre-receive" || name == "proc-receive" || name == "post-receive"
}

func hook(name string) int {
	return hooks.Main(name, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}

// exitError is an error that has been told already, or needs no words.
type exitError struct{ status int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// usageError is a command that was used wrongly.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// status is the exit status that an error stands for.
func status(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.status
	case errors.As(err, new(usageError)):
		return exitUsage
	}
	return exitFailed
}
