package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addLogs(root *cobra.Command) {
	var follow, deploy, run bool
	var n int
	cmd := &cobra.Command{
		Use:   "logs APP [--deploy [vN] | --run [N]] | logs --audit",
		Short: "the app's log, or the log of a deploy",
		Long: `Shows the last lines of what an app's processes wrote. -f goes on with what comes,
across restarts and releases, until you end it by Ctrl-C; its exit status is 0 then.

--deploy shows the log of a deploy instead: of the last one, or of release vN; with
-f of the one under way, until it ends. Of deploys that failed "releases APP" tells
the number of the log, as in --deploy 000042.

--run shows what a command of "run --detach" writes: the last one's, or that of
run N; with -f until it ends.

--audit shows who did what on this server: connections that were refused, pushes,
commands, switches.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch lines := cmd.Flags().Changed("lines"); {
			case deploy && run:
				return usageError{errors.New("--deploy and --run are two logs: ask for one")}
			case len(args) == 2 && !deploy && !run:
				return usageError{fmt.Errorf("%q goes with --deploy or --run", args[1])}
			case (deploy || run) && lines:
				return usageError{errors.New("-n does not go with --deploy and --run, which show a whole log")}
			case n < 0:
				return usageError{fmt.Errorf("-n is a number of lines, not %d", n)}
			}
			if run {
				number := 0
				if len(args) == 2 {
					var err error
					if number, err = strconv.Atoi(args[1]); err != nil || number < 1 {
						return usageError{fmt.Errorf("%q is no run: write its number, as in --run 3", args[1])}
					}
				}
				return s.srv.deployer.RunLog(cmd.Context(), args[0], number, follow, s.stdout)
			}
			if deploy {
				release, failed := 0, ""
				if len(args) == 2 && strings.Trim(args[1], "0123456789") == "" {
					failed = args[1]
				} else if len(args) == 2 {
					var err error
					if release, err = releaseNumber(args[1]); err != nil {
						return err
					}
				}
				return s.srv.deployer.DeployLog(cmd.Context(), args[0], release, failed, follow, s.stdout)
			}
			return s.srv.deployer.Logs(cmd.Context(), args[0], n, follow, s.stdout)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	n = 100
	cmd.Flags().VarP(&number{at: &n}, "lines", "n", "how many lines")
	cmd.Flags().BoolVar(&run, "run", false, "the output of a detached command")
	cmd.Flags().BoolVar(&deploy, "deploy", false, "the log of a deploy")
	s.addAudit(cmd, &n)
	s.add(root, cmd, rights{verb: access.VerbLogs, apps: firstApp})
}
