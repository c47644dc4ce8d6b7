package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addCancel(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "cancel APP",
		Short: "end the deploy under way",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.srv.deployer.Cancel(args[0], s.who.Name); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "cancelled; %s serves what it served before\n", args[0])
			return nil
		},
	}
	s.add(root, cmd, rights{verb: access.VerbCancel, apps: firstApp})
}
