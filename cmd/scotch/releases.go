package main

import (
	"cmp"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addReleases(root *cobra.Command) {
	var asJSON bool
	n := 20
	cmd := &cobra.Command{
		Use:   "releases APP [vN]",
		Short: "number, state, commit, when, by whom, how long",
		Long: `Lists an app's last releases, the newest first, and the older ones that can still be
rolled back to. -n 0 lists all that there ever were. With vN it shows all of one, the
exact packages too.

Above them stand the last deploys that failed since: they have no number, and served nothing.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch lines := cmd.Flags().Changed("lines"); {
			case len(args) == 2 && lines:
				return usageError{errors.New("-n does not go with a release, of which all is shown")}
			case len(args) == 2:
				return s.showRelease(args[0], args[1], asJSON)
			case n < 0:
				return usageError{fmt.Errorf("-n is a number of releases, not %d", n)}
			}
			list, left, err := s.srv.deployer.Releases(args[0], n)
			if err != nil {
				return err
			}
			if left > 0 {
				defer fmt.Fprintf(s.stderr, "%d more, no longer kept: releases %s -n 0\n", left, args[0])
			}
			if asJSON {
				return printJSON(s.stdout, list)
			}
			if len(list) == 0 {
				fmt.Fprintf(s.stderr, "no releases yet; `logs %s --deploy` shows the last attempt\n", args[0])
				return nil
			}
			w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
			for _, r := range list {
				fmt.Fprintf(w, "%s\t%s\t%.7s\t%s\t%s\t%.2fs\t%s\n", numbered(r), r.State, cmp.Or(r.Commit, "-"), r.When.Format(time.DateTime), r.By, r.Seconds, r.Subject)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			for _, r := range list {
				if r.Failed != nil {
					fmt.Fprint(s.stdout, failure(args[0], r))
				} else if line := fate(r); line != "" {
					fmt.Fprintf(s.stdout, "v%d %s", r.Number, line)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	cmd.Flags().VarP(&number{at: &n}, "lines", "n", "how many, 0 for all")
	s.add(root, cmd, rights{verb: access.VerbReleases, apps: firstApp, tells: wordsBehindApp, offline: true})
}

func (s *session) showRelease(app, name string, asJSON bool) error {
	n, err := releaseNumber(name)
	if err != nil {
		return err
	}
	r, err := s.srv.deployer.Release(app, n)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(s.stdout, r)
	}
	fmt.Fprintf(s.stdout, "v%d of %s, %s\ncommit  %s %s\nwhen    %s by %s, in %.2fs\npython  %s\n", r.Number, app, r.State,
		r.Commit, r.Subject, r.When.Format(time.RFC3339), r.By, r.Seconds, r.Python)
	if line := fate(r); line != "" {
		fmt.Fprintf(s.stdout, "it %s", line)
	}
	if r.From != "" {
		fmt.Fprintf(s.stdout, "from    %s\n", deployer.Neutral(r.From))
	}
	for _, p := range r.Packages {
		fmt.Fprintln(s.stdout, "  "+deployer.Neutral(p))
	}
	return nil
}

// numbered is a release's name; a deploy that failed has none.
func numbered(r deployer.Release) string {
	if r.Failed != nil {
		return "-"
	}
	return fmt.Sprintf("v%d", r.Number)
}

// failure tells why a deploy failed, and where to read on.
func failure(app string, r deployer.Release) string {
	line := "a deploy"
	if r.Commit != "" {
		line = fmt.Sprintf("%.7s", r.Commit)
	}
	line += " failed"
	if r.Failed.Stage != "" {
		line += " in " + r.Failed.Stage
	}
	line += ": " + r.Failed.Why
	if r.Failed.Log != "" {
		line += fmt.Sprintf(" (logs %s --deploy %s)", app, r.Failed.Log)
	}
	return line + "\n"
}

// fate is what became of a release after its switch, "" for nothing special.
func fate(r deployer.Release) string {
	switch {
	case r.OutOfMemory != "":
		return "has trouble: " + r.OutOfMemory + "\n"
	case r.Undone != nil:
		return fmt.Sprintf("was taken back by %s at %s: %s\n", r.Undone.By, r.Undone.When.Format(time.DateTime), deployer.Neutral(r.Undone.Why))
	case r.Warning != "":
		return "did not do well in its watch: " + r.Warning + "\n"
	}
	return ""
}

func releaseNumber(s string) (int, error) {
	var n int
	if _, err := fmt.Sscanf(s, "v%d", &n); err != nil || n < 1 || fmt.Sprintf("v%d", n) != s {
		return 0, usageError{fmt.Errorf("%q is no release: write v and its number, as in v13", s)}
	}
	return n, nil
}
