package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addCreate(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "create APP",
		Short: "make an app: its file and its repository",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.srv.deployer.Create(cmd.Context(), args[0], true); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "created %s; in your project:\n\n  git remote add scotch %s\n  git push scotch main\n", args[0], s.srv.remote(args[0]))
			return nil
		},
	}
	s.add(root, cmd, rights{verb: access.VerbCreate, apps: firstApp})
}
