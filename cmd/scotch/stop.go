package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addStop(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "stop APP",
		Short: "end an app's processes; it answers 503 until it is started",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.srv.deployer.StopApp(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "stopped %s; it answers 503 until `start %s`; restart, rebuild, rollback, deploy and a push start it too\n", args[0], args[0])
			return nil
		},
	}
	s.add(root, cmd, rights{verb: access.VerbStop, apps: firstApp})
}
