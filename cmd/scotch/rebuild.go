package main

import (
	"context"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addRebuild(root *cobra.Command) {
	var all bool
	cmd := &cobra.Command{
		Use:   "rebuild APP...",
		Short: "what is live with a fresh virtualenv, after an upgrade of Python",
		Long: `Makes a fresh virtualenv for the live release, with exactly the packages that it recorded, and
switches to a new instance with it, as a deploy does. The release stays the same.

The server does so by itself at its start for apps whose Python has changed.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.each(cmd.Context(), args, all, access.VerbRebuild, func(ctx context.Context, app string) error {
				return s.srv.deployer.Rebuild(ctx, app, s.actor(), s.stdout)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every app, one by one")
	s.add(root, cmd, rights{verb: access.VerbRebuild, apps: allApps})
}
