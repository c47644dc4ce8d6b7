package main

import (
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addList(root *cobra.Command) {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "the apps with their URLs, release and state",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := s.srv.deployer.List()
			list = slices.DeleteFunc(list, func(a deployer.Status) bool { return !access.May(s.who, access.VerbList, a.App) })
			if err != nil && s.who.Role == access.Admin {
				s.complain(err)
			}
			if asJSON {
				return printJSON(s.stdout, list)
			}
			if len(list) == 0 {
				fmt.Fprintf(s.stderr, "no apps yet; the first push makes one: git remote add scotch %s\n", s.srv.remote("NAME"))
				return nil
			}
			w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
			for _, a := range list {
				release := "-"
				if a.Release > 0 {
					release = fmt.Sprintf("v%d %.7s", a.Release, a.Commit)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.App, a.State, release, a.URL)
				for _, u := range a.URLs {
					if u != a.URL {
						fmt.Fprintf(w, "\t\t\t%s\n", u)
					}
				}
				if a.Detail != "" {
					fmt.Fprintf(w, "\t%s\t\t\n", a.Detail)
				}
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	s.add(root, cmd, rights{verb: access.VerbList, offline: true})
}
