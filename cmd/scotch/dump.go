package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scotch/config"
	"scotch/gitserver/access"
)

func (s *session) addDump(root *cobra.Command) {
	var asJSON, origin bool
	cmd := &cobra.Command{
		Use:   "dump APP...",
		Short: "the merged configuration of apps",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all := map[string][]config.Entry{}
			for _, name := range args {
				entries, err := s.srv.deployer.Configuration(name)
				if err != nil {
					return err
				}
				for i, e := range entries {
					if e.Section == "env" || e.Section == "build_env" {
						entries[i].Value, entries[i].Raw = masked, masked
					}
				}
				all[name] = entries
			}
			if asJSON {
				return printJSON(s.stdout, all)
			}
			for _, name := range args {
				section := ""
				for _, e := range all[name] {
					if e.Section != section {
						fmt.Fprintf(s.stdout, "[%s]\n", e.Section)
						section = e.Section
					}
					if origin {
						fmt.Fprintf(s.stdout, "%s = %s  ; %s\n", e.Key, e.Value, e.Origin)
					} else {
						fmt.Fprintf(s.stdout, "%s = %s\n", e.Key, e.Value)
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	cmd.Flags().BoolVar(&origin, "origin", false, "name the file and line that each value comes from")
	s.add(root, cmd, rights{verb: access.VerbDump, apps: allApps, offline: true})
}

// masked stands for a value that may be a secret.
const masked = "********"
