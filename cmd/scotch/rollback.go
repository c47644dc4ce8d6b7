package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addRollback(root *cobra.Command) {
	var hold string
	cmd := &cobra.Command{
		Use:   "rollback APP [vN]",
		Short: "switch back to a kept release, by default the one before",
		Long: `Switches an app back to a release that is kept: nothing is installed, and it must be
healthy first. The branch follows, so that what the repository says is what serves.

The release runs with the [env] of today. --hold REASON locks the app as well, so
that a colleague's next push does not undo it; unlock lets pushes in again.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if hold != "" {
				return cobra.MinimumNArgs(1)(cmd, args)
			}
			return cobra.RangeArgs(1, 2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("hold") && hold == "" {
				return usageError{errors.New("--hold needs a reason, for whoever pushes next")}
			}
			n, words := 0, args[1:]
			if len(words) > 0 {
				var err error
				if n, err = releaseNumber(words[0]); err == nil {
					words = words[1:]
				} else if hold == "" {
					return err
				}
			}
			// ssh takes the quotes off: the reason's other words are arguments.
			hold = strings.Join(append([]string{hold}, words...), " ")
			_, err := s.srv.deployer.Rollback(cmd.Context(), args[0], n, hold, s.actor(), s.stdout)
			return err
		},
	}
	cmd.Flags().StringVar(&hold, "hold", "", "lock the app too, for this `REASON`")
	s.add(root, cmd, rights{verb: access.VerbRollback, apps: firstApp, tells: oneBehindApp})
}
