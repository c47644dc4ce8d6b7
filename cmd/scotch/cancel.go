package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addCancel(root *cobra.Command) {
	var run int
	cmd := &cobra.Command{
		Use:   "cancel APP [--run N]",
		Short: "end the deploy under way, or a detached command",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("run") {
				if run < 1 {
					return usageError{fmt.Errorf("--run is the number of a run, not %d", run)}
				}
				if err := s.srv.deployer.CancelRun(cmd.Context(), args[0], run); err != nil {
					return err
				}
				fmt.Fprintf(s.stdout, "ended run %d of %s\n", run, args[0])
				return nil
			}
			if err := s.srv.deployer.Cancel(cmd.Context(), args[0], s.who.Name); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "cancelled; %s serves what it served before\n", args[0])
			return nil
		},
	}
	cmd.Flags().Var(&number{at: &run}, "run", "end the detached command `N`, not a deploy")
	s.add(root, cmd, rights{verb: access.VerbCancel, apps: firstApp})
}
