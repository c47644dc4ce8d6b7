package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addRun(root *cobra.Command) {
	var release string
	var detach bool
	cmd := &cobra.Command{
		Use:   "run APP [--release vN] [--detach] -- CMD...",
		Short: "a one-off command in the app's source, virtualenv and environment",
		Long: `Runs a command in what is live, or in a release that is kept: its source, its
virtualenv, its environment, as the app's user. Its exit status is the command's.

At a terminal the command gets one too; over ssh ask for it with -t:

  ssh -t -p 2222 scotch@SERVER run blog -- python manage.py shell

It ends with its client. With --detach it goes on by itself instead, also over a
restart of scotch: "logs APP --run N -f" follows its output, "ps APP" shows it,
"cancel APP --run N" ends it.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := ownFlags(cmd, args)
			if err != nil {
				return err
			}
			if len(args) < 2 {
				return usageError{errors.New("no command to run\nusage: run APP -- CMD [ARG]")}
			}
			o := deployer.OneOff{
				App: args[0], Args: args[1:], By: s.actor(),
				Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, Terminal: s.term,
			}
			if release != "" {
				var err error
				if o.Release, err = releaseNumber(release); err != nil {
					return err
				}
			}
			if detach {
				return s.detach(o)
			}
			code, err := s.srv.deployer.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if code != 0 {
				return &exitError{code}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&release, "release", "", "run in this kept release, `vN`, not in what is live")
	cmd.Flags().BoolVar(&detach, "detach", false, "let it go on without you")
	// What comes behind the app's name is the command's: see ownFlags.
	cmd.Flags().SetInterspersed(false)
	s.add(root, cmd, rights{verb: access.VerbRun, apps: firstApp, stdin: true, terminal: true})
}

// ownFlags takes run's own flags from between the app's name and its command.
// All flags behind them, and all behind --, are the command's own.
func ownFlags(cmd *cobra.Command, args []string) ([]string, error) {
	app, rest := args[0], args[1:]
	for len(rest) > 0 {
		name, value, ok := strings.Cut(rest[0], "=")
		switch {
		case name == "--detach":
			if !ok {
				value = "true"
			}
		case name == "--release" && ok:
		case name == "--release" && len(rest) > 1:
			value, rest = rest[1], rest[1:]
		case name == "--":
			return append([]string{app}, rest[1:]...), nil
		default:
			return append([]string{app}, rest...), nil
		}
		rest = rest[1:]
		if err := cmd.Flags().Set(strings.TrimPrefix(name, "--"), value); err != nil {
			return nil, usageError{err}
		}
	}
	return []string{app}, nil
}

func (s *session) detach(o deployer.OneOff) error {
	n, err := s.srv.deployer.Detach(o)
	if err != nil {
		return err
	}
	ssh := sshCommand(s.srv.site)
	fmt.Fprintf(s.stdout, "%s: run %d goes on by itself\n  its output  %s logs %s --run %d -f\n  end it      %s cancel %s --run %d\n",
		o.App, n, ssh, o.App, n, ssh, o.App, n)
	return nil
}
