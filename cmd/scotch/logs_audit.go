package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
	"scotch/gitserver/audit"
)

// addAudit makes a command that shows an app's log show the audit log with --audit.
func (s *session) addAudit(cmd *cobra.Command, n *int) {
	var ofAudit, asJSON bool
	check, work := cmd.Args, cmd.RunE
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if ofAudit {
			return cobra.NoArgs(cmd, args)
		}
		return check(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if ofAudit {
			return s.auditLog(cmd, *n, asJSON)
		}
		if asJSON {
			return usageError{errors.New("--json goes with --audit: an app's log has lines of its own")}
		}
		return work(cmd, args)
	}
	cmd.Flags().BoolVar(&ofAudit, "audit", false, "who did what on this server, for admins")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines, with --audit: a line each, as in the file")
}

// auditLog shows the audit log to those who may see it.
func (s *session) auditLog(cmd *cobra.Command, n int, asJSON bool) error {
	flags := cmd.Flags()
	for _, other := range []string{"deploy", "run"} {
		if flags.Changed(other) {
			return usageError{fmt.Errorf("--audit and --%s are two logs: ask for one", other)}
		}
	}
	follow, err := flags.GetBool("follow")
	if err != nil {
		return err
	}
	if n < 0 {
		return usageError{fmt.Errorf("-n is a number of lines, not %d", n)}
	}
	if !access.May(s.who, access.VerbAudit, "") {
		err := errors.New("your key may not see the audit log\nask an admin of this server")
		s.did.Result, s.did.Reason = audit.Denied, err.Error()
		return err
	}
	return s.srv.seen.audit.Read(cmd.Context(), n, follow, func(line []byte) error {
		var e audit.Entry
		if json.Unmarshal(line, &e) != nil {
			return nil // a full disk cut it off
		}
		text := string(deployer.NeutralJSON(line))
		if !asJSON {
			text = deployer.Neutral(e.String())
		}
		_, err := io.WriteString(s.stdout, text+"\n")
		return err
	})
}
