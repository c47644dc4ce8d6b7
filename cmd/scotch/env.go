package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scotch/config"
	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addEnv(root *cobra.Command) {
	var e edits
	cmd := &cobra.Command{
		Use:   "env APP [get NAME | set NAME=VALUE... | set NAME | set | unset NAME...]",
		Short: "an app's environment: list, get, set, unset",
		Long: `The environment of an app, [env] in its file. A change keeps the file's comments, is
checked before it is saved, and is live when a new instance with it is healthy; if
that fails it is undone, and the exit status is 1. --no-restart only saves it.

Secrets stay out of the shell's history and of process lists on the input:

  scotch env APP set < .env              NAME=VALUE lines
  scotch env APP set SECRET_KEY < FILE   one value, without its last line end
  scotch env APP set --file .env         the same from a file

.env files are read literally: comments, export, '…' and "…" (also over several
lines, \n in the second), and "$" is a dollar sign.

As words they are NAME=VALUE. Over ssh the shell here and the server take off one
pair of quotes each, so what has spaces, "$" or quotes needs two pairs:

  ssh -p 2222 scotch@SERVER env APP set 'GREETING="hello world"'

The list shows names alone; get prints a value, and on a terminal shows what
could steer that as \x1b and the like.`,
		Example: "  scotch env blog set DEBUG=0 LANGUAGE=de",
		Args:    checkEdit,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, app := cmd.Context(), args[0]
			if len(args) == 1 {
				return s.listEnv(cmd.Context(), app, e.asJSON)
			}
			words := args[2:]
			inEnv := func(name string) (string, string) { return "env", name }
			show := func(c config.Change) string { return c.Key }
			switch args[1] {
			case "get":
				return s.printEnv(cmd.Context(), app, words[0])
			case "unset":
				return s.change(ctx, app, unsetting(words, inEnv), &e, show)
			}
			var changes []config.Change
			var err error
			switch {
			case e.file != "" && len(words) > 1, e.file != "" && len(words) == 1 && !takesInput(args):
				return usageError{errors.New("--file and NAME=VALUE are two ways: choose one")}
			case e.file != "" && e.file != "-":
				return usageError{errors.New("a file on this side cannot be read from there\nsend it on the input: … env APP set < FILE")}
			case len(words) == 0:
				changes, err = s.dotenv(ctx)
			default:
				changes, err = s.assignments(ctx, words, &e, inEnv)
			}
			if err != nil {
				return err
			}
			for _, c := range changes {
				if err := config.ValidEnvName(c.Key); err != nil {
					return usageError{err}
				}
			}
			if err := s.change(ctx, app, changes, &e, show); err != nil {
				return err
			}
			s.tellSetTwice(changes)
			return nil
		},
	}
	cmd.Flags().BoolVar(&e.noRestart, "no-restart", false, "save it, for the next restart or deploy")
	cmd.Flags().BoolVar(&e.asJSON, "json", false, "for machines")
	cmd.Flags().StringVar(&e.file, "file", "", "read the values from this `FILE`, - for the input")
	s.add(root, cmd, rights{verb: access.VerbEnv, apps: firstApp, stdin: true, tells: namesOfEdit})
	if s.srv == nil {
		s.inputHere(cmd, &e)
	}
}

// tellSetTwice says which value counts where scotch sets a variable too.
func (s *session) tellSetTwice(changes []config.Change) {
	for _, c := range changes {
		if which := deployer.SetTwice(c.Key); which != "" {
			fmt.Fprintf(s.stderr, "%s: %s\n", c.Key, which)
		}
	}
}

// dotenv reads the input as a .env file.
func (s *session) dotenv(ctx context.Context) ([]config.Change, error) {
	data, err := s.input(ctx, "NAME=VALUE lines")
	if err != nil {
		return nil, err
	}
	vars, err := config.ParseDotenv(data)
	if err != nil {
		return nil, fmt.Errorf("nothing is changed: the input, %w", err)
	}
	if len(vars) == 0 {
		return nil, usageError{errors.New("no NAME=VALUE came on the input\nsend some: … env APP set < .env")}
	}
	var changes []config.Change
	for _, v := range vars {
		changes = append(changes, config.Set("env", v.Name, v.Value))
	}
	return changes, nil
}

// unsetting are the changes that remove keys.
func unsetting(words []string, key func(string) (section, name string)) []config.Change {
	var changes []config.Change
	for _, w := range words {
		changes = append(changes, config.Unset(key(w)))
	}
	return changes
}

// printEnv prints the value of one variable.
func (s *session) printEnv(ctx context.Context, app, name string) error {
	entries, err := s.srv.deployer.Configuration(ctx, app)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Section == "env" && e.Key == name {
			s.printValue(e.Value)
			return nil
		}
	}
	return fmt.Errorf("%s is not set in the environment of %q\n%q lists what is", name, app, "env "+app)
}

// variable is one of the environment as env --json shows it.
type variable struct {
	Name   string        `json:"name"`
	Value  string        `json:"value"` // masked
	Origin config.Origin `json:"origin"`
}

func (s *session) listEnv(ctx context.Context, app string, asJSON bool) error {
	entries, err := s.srv.deployer.Configuration(ctx, app)
	if err != nil {
		return err
	}
	vars := []variable{}
	for _, e := range entries {
		if e.Section == "env" {
			vars = append(vars, variable{e.Key, masked, e.Origin})
		}
	}
	if asJSON {
		return printJSON(s.stdout, vars)
	}
	w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	for _, v := range vars {
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, v.Value, where(v.Origin))
	}
	return w.Flush()
}

// where names the layer of a value in words.
func where(o config.Origin) string {
	switch o.Layer {
	case config.LayerApp:
		return "the app's file"
	case config.LayerSource:
		return "scotch.cfg in the source"
	}
	return o.String()
}
