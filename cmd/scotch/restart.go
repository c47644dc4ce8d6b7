package main

import (
	"context"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addRestart(root *cobra.Command) {
	var all bool
	cmd := &cobra.Command{
		Use:   "restart APP...",
		Short: "a new instance of what is live, switched to as by a deploy",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.each(cmd.Context(), args, all, access.VerbRestart, func(ctx context.Context, app string) error {
				return s.srv.deployer.Restart(ctx, app, s.actor(), s.stdout)
			})
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&all, "all", false, "every app, one by one")
	s.add(root, cmd, rights{verb: access.VerbRestart, apps: allApps})
}
