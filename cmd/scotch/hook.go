package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// addHook lists the hook command in the tree; run answers it before a tree is made.
func (s *session) addHook(root *cobra.Command) {
	cmd := &cobra.Command{
		Use: "hook pre-receive|proc-receive|post-receive", Hidden: true,
		Short: "what git runs in a push", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return usageError{fmt.Errorf("there is no hook %q: git runs pre-receive, proc-receive and post-receive", args[0])}
		},
	}
	s.add(root, cmd, rights{here: true})
}
