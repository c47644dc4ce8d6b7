package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addRun(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "run APP -- CMD...",
		Short: "a one-off command in the app's source, virtualenv and environment",
		Long: `Runs a command in what is live: its source, its virtualenv, its environment, as
the app's user. Its exit status is the command's. It ends with its client.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "--" {
				args = slices.Delete(args, 1, 2)
			}
			if len(args) < 2 {
				return usageError{errors.New("no command to run\nusage: run APP -- CMD [ARG]")}
			}
			code, err := s.srv.deployer.Exec(cmd.Context(), args[0], args[1:], s.stdin, s.stdout, s.stderr)
			if err != nil {
				return err
			}
			if code != 0 {
				return &exitError{code}
			}
			return nil
		},
	}
	// The command's own flags are its own.
	cmd.Flags().SetInterspersed(false)
	s.add(root, cmd, rights{verb: access.VerbRun, apps: firstApp, stdin: true})
}
