package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addDF(root *cobra.Command) {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "df [APP]",
		Short: "what takes the room on the disk",
		Long: `Shows what each app takes of the disk, what is kept of destroyed ones, and how much
is free. A file that several share, such as a package that uv links out of its cache,
counts where it is met first. prune frees what nothing needs.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) == 1 {
				app = args[0]
			}
			u, err := s.srv.deployer.DiskUsage(cmd.Context(), app)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.stdout, u)
			}
			return printUsage(s.stdout, u)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines; sizes in bytes")
	s.add(root, cmd, rights{verb: access.VerbDF, apps: firstApp, offline: true})
}

func printUsage(out io.Writer, u *deployer.DiskUsage) error {
	size := deployer.Size
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(u.Apps) > 0 {
		fmt.Fprintln(w, "total\trepository\tsources\tvenvs\tinstances\tlogs\tdata\tcache\t  app")
	}
	for _, a := range u.Apps {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", size(a.Total), size(a.Repository), size(a.Sources), size(a.Venvs), size(a.Instances), size(a.Logs), size(a.Data), size(a.Cache), a.App)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, other := range []struct {
		name  string
		bytes int64
	}{{"installers' caches, shared", u.Caches}, {"interpreters that were downloaded", u.Pythons}, {"audit log", u.AuditLog}} {
		if other.bytes > 0 {
			fmt.Fprintf(w, "%s\t%s\n", other.name, size(other.bytes))
		}
	}
	for _, x := range u.Destroyed {
		fmt.Fprintf(w, "destroyed %s\t%s\n", x.Stamp, size(x.Bytes))
	}
	for _, d := range u.Disks {
		line := fmt.Sprintf("disk of %s\t%s free of %s", d.Paths[0], size(d.Free), size(d.Total))
		if d.Inodes > 0 && d.FreeInodes < d.Inodes/20 {
			line += fmt.Sprintf(", only %d inodes", d.FreeInodes)
		}
		if d.Free < d.MinFree {
			line += fmt.Sprintf(": pushes are refused, [server] min_free is %s", size(d.MinFree))
		}
		fmt.Fprintln(w, line)
	}
	return w.Flush()
}
