package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addLogs(root *cobra.Command) {
	var follow, deploy bool
	var n int
	cmd := &cobra.Command{
		Use:   "logs APP [--deploy [vN]]",
		Short: "the app's log, or the log of a deploy",
		Long: `Shows the last lines of what an app's processes wrote. -f goes on with what comes,
across restarts and releases, until you end it.

--deploy shows the log of a deploy instead: of the last one, or of release vN;
with -f of the one under way, until it ends.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch lines := cmd.Flags().Changed("lines"); {
			case len(args) == 2 && !deploy:
				return usageError{fmt.Errorf("%q goes with --deploy", args[1])}
			case deploy && lines:
				return usageError{errors.New("-n does not go with --deploy, which shows the whole log of a deploy")}
			case n < 0:
				return usageError{fmt.Errorf("-n is a number of lines, not %d", n)}
			}
			if deploy {
				release := 0
				if len(args) == 2 {
					var err error
					if release, err = releaseNumber(args[1]); err != nil {
						return err
					}
				}
				return s.srv.deployer.DeployLog(cmd.Context(), args[0], release, follow, s.stdout)
			}
			return s.srv.deployer.Logs(cmd.Context(), args[0], n, follow, s.stdout)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().IntVarP(&n, "lines", "n", 100, "how many lines")
	cmd.Flags().BoolVar(&deploy, "deploy", false, "the log of a deploy")
	s.add(root, cmd, rights{verb: access.VerbLogs, apps: firstApp})
}
