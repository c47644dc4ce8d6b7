package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addDeploy(root *cobra.Command) {
	var ref string
	var all, clean, wait bool
	cmd := &cobra.Command{
		Use:   "deploy APP...",
		Short: "checkout and register, from [app] src or the app's own repository",
		Long: `Deploys what [app] src names, or the app's branch as it is in its own repository.
Of several apps the others go on when one fails; the exit status is 1 then.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("ref") && strings.TrimSpace(ref) == "" {
				return usageError{errors.New("--ref is empty\nname a branch, a tag or a commit, or leave it out for the app's branch")}
			}
			return s.each(cmd.Context(), args, all, access.VerbDeploy, func(ctx context.Context, app string) error {
				_, err := s.srv.deployer.DeployRef(ctx, deployer.Request{App: app, Ref: ref, By: s.actor(), Clean: clean, Wait: wait}, s.stdout)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&ref, "ref", "", "branch, tag or commit to deploy")
	cmd.Flags().BoolVar(&all, "all", false, "every app")
	cmd.Flags().BoolVar(&clean, "clean", false, "build the virtualenv from nothing")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when the watch after the switch is over")
	s.add(root, cmd, rights{verb: access.VerbDeploy, apps: allApps})
}

// once leaves out what was named before.
func once(names []string) []string {
	var all []string
	for _, n := range names {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

// each runs work on the named apps, or on all of them, one after the other.
// When one fails, the others go on.
func (s *session) each(ctx context.Context, names []string, all bool, verb access.Verb, work func(context.Context, string) error) error {
	if all == (len(names) > 0) {
		return usageError{fmt.Errorf("name the apps, or say --all")}
	}
	if all {
		list, err := s.srv.site.Apps()
		if err != nil {
			s.complain(err)
		}
		for _, n := range list {
			if access.May(s.who, verb, n) {
				names = append(names, n)
			}
		}
	}
	names = once(names)
	if len(names) == 1 {
		return work(ctx, names[0])
	}
	failed := 0
	for _, n := range names {
		if err := work(ctx, n); err != nil {
			s.complain(fmt.Errorf("%s: %w", n, err))
			failed++
		}
	}
	if failed > 0 {
		fmt.Fprintf(s.stderr, "scotch: %d of %d failed\n", failed, len(names))
		return &exitError{exitFailed}
	}
	return nil
}
