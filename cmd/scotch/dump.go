package main

import (
	"fmt"
	"net/url"
	"strings"

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
				for i := range entries {
					maskSecrets(&entries[i])
				}
				all[name] = entries
			}
			if asJSON {
				return printJSON(s.stdout, all)
			}
			for _, name := range args {
				if len(args) > 1 {
					fmt.Fprintf(s.stdout, "# %s\n", name)
				}
				section := ""
				for _, e := range all[name] {
					if e.Section != section {
						fmt.Fprintf(s.stdout, "[%s]\n", e.Section)
						section = e.Section
					}
					// Lines after the first are indented, as in a file.
					fmt.Fprintf(s.stdout, "%s = %s", e.Key, strings.ReplaceAll(e.Value, "\n", "\n    "))
					if origin {
						fmt.Fprintf(s.stdout, "  ; %s", e.Origin)
					}
					fmt.Fprintln(s.stdout)
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

// maskSecrets takes out of a value what may be a secret: all of [env] and
// [build_env], what refers to them, and who reads a source and by which
// password or token.
func maskSecrets(e *config.Entry) {
	switch {
	case e.Section == "env" || e.Section == "build_env":
		e.Value, e.Raw = masked, masked
	case strings.Contains(e.Raw, "${env:") || strings.Contains(e.Raw, "${build_env:"):
		e.Value = masked
	case e.Section == "app" && e.Key == "src":
		if u, err := url.Parse(e.Value); err == nil && u.User != nil && u.Scheme != "ssh" {
			u.User = nil
			e.Value = strings.Replace(u.String(), "://", "://"+masked+"@", 1)
			e.Raw = e.Value
		}
	}
}
