package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/deployer/control"
	"scotch/deployer/host"
	"scotch/gitserver/access"
)

func (s *session) addDoctor(root *cobra.Command) {
	var asJSON bool
	var hangs error
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "what is missing or wrong on this server, each with its mend",
		Long: `Looks at what the server stands on: packages, uWSGI's plugin and the Pythons, the
systemd unit, users and permissions, nginx's configuration, ports, room on the
disks, the clock, keys, apps that don't run. It changes nothing.

It exits with 1 where something is wrong. What is just worth knowing is a note.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.doctor(cmd.Context(), hangs, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	s.add(root, cmd, rights{verb: access.VerbDoctor, offline: true})
	if s.srv != nil {
		return
	}
	// A server that hangs would keep its doctor waiting: then this program looks.
	forward := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		site, err := openSite(s.files)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
		defer cancel()
		if err := answers(ctx, filepath.Join(site.Paths.Run, socketName)); !errors.Is(err, context.DeadlineExceeded) {
			return forward(cmd, args)
		}
		hangs = context.DeadlineExceeded
		if s.srv, err = offline(site); err != nil {
			return err
		}
		return s.doctor(cmd.Context(), hangs, asJSON)
	}
}

func (s *session) doctor(ctx context.Context, hangs error, asJSON bool) error {
	site := s.srv.site
	m, err := machine(site)
	if err != nil {
		return err
	}
	o := host.CheckOptions{Apps: s.srv.deployer, Server: hangs, Start: howToStart(site)}
	keys := s.srv.keys
	if keys == nil { // read here, without a server
		keys = access.OpenKeyring(site.Server.AuthorizedKeys, ownKeys(site)...)
		if hangs == nil {
			o.Server = control.ErrNoServer
		}
	}
	_, o.KeysError = keys.List()
	found := m.Check(ctx, o)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	wrong := 0
	for _, f := range found {
		if f.Level == host.Wrong {
			wrong++
		}
	}
	if asJSON {
		err = printJSON(s.stdout, found)
	} else {
		printFindings(s.stdout, found, wrong)
	}
	if err == nil && wrong > 0 {
		err = &exitError{exitFailed}
	}
	return err
}

// printFindings writes what is wrong first, then what is worth knowing.
func printFindings(w io.Writer, found []host.Finding, wrong int) {
	var well []string
	for _, level := range []host.Level{host.Wrong, host.Note, host.OK} {
		for _, f := range found {
			switch {
			case f.Level != level:
			case level == host.OK:
				well = append(well, f.Check)
			default:
				fmt.Fprintf(w, "%-6s %s: %s\n", level, f.Check, deployer.Neutral(f.Problem))
				if f.Mend != "" {
					fmt.Fprintf(w, "       → %s\n", deployer.Neutral(f.Mend))
				}
			}
		}
	}
	if len(well) > 0 {
		fmt.Fprintf(w, "%-6s %s\n", host.OK, strings.Join(well, ", "))
	}
	switch wrong {
	case 0:
		fmt.Fprintln(w, "nothing is wrong")
	case 1:
		fmt.Fprintln(w, "one thing is wrong")
	default:
		fmt.Fprintf(w, "%d things are wrong\n", wrong)
	}
}
