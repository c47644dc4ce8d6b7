package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addList(root *cobra.Command) {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "the apps with their URLs, release and state",
		Long: `Lists the apps: name, state, what is live, the URLs. Below the table stands what is
being done to them now, what is wrong with those that are not well, and the next step.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := s.srv.deployer.List()
			list = slices.DeleteFunc(list, func(a deployer.Status) bool { return !access.May(s.who, access.VerbList, a.App) })
			if err != nil && s.who.Role == access.Admin {
				s.complain(err)
			}
			if asJSON {
				return printJSON(s.stdout, list)
			}
			if len(list) == 0 && !access.May(s.who, access.VerbCreate, "") {
				fmt.Fprintln(s.stderr, "no app here is yours yet; ask an admin of this server for one")
				return nil
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
			}
			if err := w.Flush(); err != nil {
				return err
			}
			s.listUnderway(list)
			s.listTroubles(list)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	s.add(root, cmd, rights{verb: access.VerbList, offline: true})
}

// listUnderway says, below the table, what is being done to whom.
func (s *session) listUnderway(list []deployer.Status) {
	for _, a := range list {
		if a.Underway == nil {
			continue
		}
		line := a.App + ": " + a.Underway.What
		if a.Underway.By != "" {
			line += " by " + a.Underway.By
		}
		line += fmt.Sprintf(", for %s", time.Since(a.Underway.Since).Round(time.Second))
		if a.Release > 0 {
			line += fmt.Sprintf("; v%d is live", a.Release)
		}
		fmt.Fprintf(s.stdout, "\n%s\n", line)
	}
}

// listTroubles says, below the table, what is wrong with whom and what to do:
// errors are long and would widen a column for all.
func (s *session) listTroubles(list []deployer.Status) {
	for _, a := range list {
		if k := a.Lock; k != nil {
			fmt.Fprintf(s.stdout, "\n%s: locked by %s since %s: %s\n", a.App, k.By, k.When.Format("2006-01-02 15:04"), deployer.Neutral(k.Reason))
		}
		if a.Detail == "" {
			continue
		}
		next := ""
		switch {
		case a.State == deployer.StateFailed:
			next = fmt.Sprintf("its log: logs %s --deploy", a.App)
		case a.State == deployer.StateOffWeb:
			next = fmt.Sprintf("set [app] domains or url_prefix of one of them, then: restart %s", a.App)
		case a.State == deployer.StateFileGone:
			next = fmt.Sprintf("put it back, or take the app away: destroy %s --force", a.App)
		case len(a.Errors) > 1:
			next = fmt.Sprintf("and %d more, with their mends: dump %s", len(a.Errors)-1, a.App)
		case len(a.Errors) == 1:
			next = fmt.Sprintf("its mend: dump %s", a.App)
		}
		what := a.State + ": " + a.Detail
		if a.State == deployer.StateFailed && strings.HasPrefix(a.Detail, "deploy failed") {
			what = "first " + a.Detail
		}
		fmt.Fprintf(s.stdout, "\n%s: %s\n", a.App, what)
		if next != "" {
			fmt.Fprintf(s.stdout, "  %s\n", next)
		}
	}
}
