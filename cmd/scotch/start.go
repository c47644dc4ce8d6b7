package main

import (
	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addStart(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "start APP",
		Short: "start a stopped app",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.srv.deployer.StartApp(cmd.Context(), args[0], s.actor(), s.stdout)
		},
	}
	s.add(root, cmd, rights{verb: access.VerbStart, apps: firstApp})
}
