package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scotch/config"
	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addPrune(root *cobra.Command) {
	var o deployer.PruneOptions
	var age string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prune [APP] [--destroyed AGE] [--caches]",
		Short: "free the room that nothing needs",
		Long: `Removes instances, sources and virtualenvs that no kept release needs, the logs of
failed deploys and of instances that are gone, all rotated logs but the last one, and
packs repositories anew where that is due. It works on a full disk.

--destroyed AGE removes for good what was destroyed that long ago or longer, such as
30d or 12h; 0 is all of it. --caches removes the installers' caches: the next install
downloads anew.`,
		Example: "  scotch prune --destroyed 30d --caches --dry-run",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.App = args[0]
			}
			if cmd.Flags().Changed("destroyed") {
				d, err := config.ParseDuration(age)
				if err != nil {
					return usageError{fmt.Errorf("--destroyed %w", err)}
				}
				o.Destroyed = &d
			}
			freed := []deployer.Freed{}
			err := s.srv.deployer.Prune(cmd.Context(), o, func(f deployer.Freed) { freed = append(freed, f) })
			if asJSON {
				if jsonErr := printJSON(s.stdout, freed); jsonErr != nil {
					return jsonErr
				}
				return err
			}
			if printErr := s.printFreed(freed, o.DryRun); printErr != nil {
				return printErr
			}
			return err
		},
	}
	cmd.Flags().StringVar(&age, "destroyed", "", "what was destroyed at least `AGE` ago, too")
	cmd.Flags().BoolVar(&o.Caches, "caches", false, "the installers' caches, too")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be freed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines; sizes in bytes")
	s.add(root, cmd, rights{verb: access.VerbPrune, apps: firstApp})
}

func (s *session) printFreed(freed []deployer.Freed, dry bool) error {
	var total int64
	w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	for _, f := range freed {
		total += f.Bytes
		name := f.App
		if name == "" {
			name = "all apps"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, f.What, deployer.Size(f.Bytes))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	word := "freed"
	if dry {
		word = "would free"
	}
	_, err := fmt.Fprintf(s.stdout, "%s %s\n", word, deployer.Size(total))
	return err
}
