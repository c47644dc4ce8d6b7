package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is the version of this program, set by the build.
const release = "0.4.0-dev"

func version() string {
	v := release
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v += " " + s.Value[:min(7, len(s.Value))]
			}
		}
	}
	return v
}

func (s *session) addVersion(root *cobra.Command) {
	root.AddCommand(&cobra.Command{
		Use: "version", Short: "the version of this program", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.stdout, "scotch "+version())
			return err
		},
	})
}
