package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addKey(root *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "key APP",
		Short: "an app's deploy key, for private repositories",
		Long: `Prints the public half of the app's deploy key, which is made at its first use.
A private repository that lets this key read can be the app's [app] src, and its
dependencies can come from there (git+ssh://). On GitHub and GitLab it is added
in the repository's settings, as a deploy key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			public, err := s.srv.deployer.DeployKey(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.stdout, public)
			return err
		},
	}
	s.add(root, cmd, rights{verb: access.VerbKey, apps: firstApp})
}
