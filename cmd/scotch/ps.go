package main

import (
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addPS(root *cobra.Command) {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps [APP]",
		Short: "processes: pid, uptime, memory, requests",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) == 1 {
				app = args[0]
			}
			list, err := s.srv.deployer.Processes(cmd.Context(), app)
			if err != nil {
				return err
			}
			list = slices.DeleteFunc(list, func(p deployer.ProcessStatus) bool { return !access.May(s.who, access.VerbPS, p.App) })
			if asJSON {
				return printJSON(s.stdout, list)
			}
			w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "APP\tRELEASE\tSTATE\tPID\tUP\tMEMORY\tREQUESTS\tRESTARTS")
			for _, p := range list {
				up, memory, requests := "-", "-", "-"
				if !p.Since.IsZero() {
					up = time.Since(p.Since).Round(time.Second).String()
				}
				if p.Memory > 0 {
					memory = fmt.Sprintf("%.0f MB", float64(p.Memory)/1e6)
				}
				if p.Requests >= 0 {
					requests = fmt.Sprint(p.Requests)
				}
				fmt.Fprintf(w, "%s\tv%d\t%s\t%d\t%s\t%s\t%s\t%d\n", p.App, p.Release, p.State, p.PID, up, memory, requests, p.Restarts)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			for _, p := range list {
				if p.MemoryKills > 0 {
					fmt.Fprintf(s.stdout, "%s v%d: %d killed by the kernel for want of memory; doctor says more\n", p.App, p.Release, p.MemoryKills)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	s.add(root, cmd, rights{verb: access.VerbPS, apps: firstApp})
}
