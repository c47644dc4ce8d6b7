package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// completeApps lets a shell complete the names of apps, from the files that
// there are: completing must not wait for a server. Over ssh nothing is
// completed, and asking for it would tell names.
func (s *session) completeApps(cmd *cobra.Command, which appArgs) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if which == noApp || which == firstApp && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		site, err := openSite(s.files)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		apps, _ := site.Apps()
		var fit []cobra.Completion
		for _, app := range apps {
			if strings.HasPrefix(app, typed) {
				fit = append(fit, app)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp
	}
}

// isCompletion tells whether a command is what the completion script of a shell
// asks, which cobra puts into each tree by itself.
func isCompletion(args []string) bool {
	return len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd)
}
