package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

func (s *session) addDestroy(root *cobra.Command) {
	var force, purge bool
	cmd := &cobra.Command{
		Use:   "destroy APP --force",
		Short: "take an app away",
		Long: `Ends an app's processes, one-off commands too, and takes it off the web. Its
file, repository, data, instances and logs are renamed into folders "destroyed"
beside where they were; with --purge they are removed for good.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !force {
				return usageError{fmt.Errorf("destroying %q needs --force\nit ends the app; nothing was done", args[0])}
			}
			done, err := s.srv.deployer.Destroy(cmd.Context(), args[0], purge)
			if err != nil {
				return err
			}
			switch {
			case purge:
				fmt.Fprintf(s.stdout, "destroyed %s, nothing of it is kept\n", args[0])
			case done.File == "":
				fmt.Fprintf(s.stdout, "destroyed %s; what it was is kept, but for its file, which was gone\n", args[0])
			default:
				fmt.Fprintf(s.stdout, "destroyed %s; what it was is kept, its file as %s\n`create %s --from` brings it back\n", args[0], done.File, args[0])
			}
			if done.Left != "" {
				fmt.Fprintf(s.stdout, "its data in %s stays there: that may be others' too\n", done.Left)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "yes, destroy it")
	cmd.Flags().BoolVar(&purge, "purge", false, "keep nothing")
	s.add(root, cmd, rights{verb: access.VerbDestroy, apps: firstApp})
}
