package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addLock(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "lock APP REASON...",
		Short: "refuse an app's deploys, with your reason, until it is unlocked",
		Long: `Refuses pushes to the app's branch and deploys of it; whoever tries reads who locked
it, when and why. restart, rollback, stop and start go on working.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			reason := strings.Join(args[1:], " ")
			was, err := s.srv.deployer.LockApp(cmd.Context(), args[0], reason, s.who.Name)
			if err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "locked %s: deploys are refused until `unlock %s`\n", args[0], args[0])
			if was != nil {
				fmt.Fprintf(s.stdout, "this takes the place of its lock %s\n", was)
			}
			return nil
		},
	}
	s.add(root, cmd, rights{verb: access.VerbLock, apps: firstApp})
}

func (s *session) addUnlock(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "unlock APP",
		Short: "let a locked app be deployed again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			was, err := s.srv.deployer.UnlockApp(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !was {
				fmt.Fprintf(s.stdout, "%s was not locked\n", args[0])
				return nil
			}
			fmt.Fprintf(s.stdout, "unlocked %s\n", args[0])
			return nil
		},
	}
	s.add(root, cmd, rights{verb: access.VerbUnlock, apps: firstApp})
}
