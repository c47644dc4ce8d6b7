package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addCreate(root *cobra.Command) {
	var from string
	cmd := &cobra.Command{
		Use:   "create APP [--from[=NAME]]",
		Short: "make an app, or bring a destroyed one back",
		Long: `Makes an app: its file, from a commented template, and its repository.

--from brings a destroyed app back instead, with its data and releases, and starts
what was live. Of several with that name it is the last one; --from=NAME takes the
one that df lists as destroyed NAME.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from != "" {
				return s.restore(cmd.Context(), args[0], from)
			}
			if err := s.srv.deployer.Create(cmd.Context(), args[0], true); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "created %s; in your project:\n\n  git remote add scotch %s\n  git push scotch main\n", args[0], s.srv.remote(args[0]))
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "bring back what was destroyed")
	cmd.Flags().Lookup("from").NoOptDefVal = lastDestroyed
	s.add(root, cmd, rights{verb: access.VerbCreate, apps: firstApp})
}

// lastDestroyed is what --from without a name stands for: no app is called so.
const lastDestroyed = "last"

// restore brings a destroyed app back.
func (s *session) restore(ctx context.Context, app, from string) error {
	if from == lastDestroyed {
		from = ""
	}
	if err := s.srv.deployer.Restore(ctx, app, from, s.actor(), s.stdout); err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "%s is back\n", app)
	return nil
}
