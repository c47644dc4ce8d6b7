package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"scotch/config"
	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addConfig(root *cobra.Command) {
	var e edits
	cmd := &cobra.Command{
		Use:   "config APP [get KEY | set KEY=VALUE... | set KEY | unset KEY...]",
		Short: "an app's configuration: list, get, set, unset",
		Long: `What an app's own file and the scotch.cfg of its source say; dump shows the defaults
too. KEY is SECTION:KEY, or a key of [app].

A change is one of the app's file on the server. It keeps the file's comments, is
checked before it is saved, and is live when a new instance with it is healthy; if
that fails it is undone, and the exit status is 1. --no-restart only saves it.

A value counts as it is written, "$" too. With --raw ${KEY} and ${SECTION:KEY} in it
stand for other values. set KEY takes the value from the input. Over ssh the shell
here and the server take off one pair of quotes each, so what has spaces needs two:

  ssh -p 2222 scotch@SERVER config APP set 'build="make static"'

Those who push set what scotch.cfg may set, [env] and [build_env]; the rest, such as
domains, users and limits, is an admin's.`,
		Example: "  scotch config blog set workers=4 health:path=/alive/",
		Args:    checkEdit,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, app := cmd.Context(), args[0]
			if len(args) == 1 {
				return s.listConfig(cmd.Context(), app, e.asJSON)
			}
			words := args[2:]
			switch args[1] {
			case "get":
				return s.printConfig(cmd.Context(), app, words[0])
			case "unset":
				return s.change(ctx, app, unsetting(words, configKey), &e, showKey)
			}
			if len(words) == 0 {
				return usageError{errors.New("set takes KEY=VALUE\nfor the environment from a file: env APP set < .env")}
			}
			changes, err := s.assignments(ctx, words, &e, configKey)
			if err != nil {
				return err
			}
			return s.change(ctx, app, changes, &e, showKey)
		},
	}
	cmd.Flags().BoolVar(&e.noRestart, "no-restart", false, "save it, for the next restart or deploy")
	cmd.Flags().BoolVar(&e.asJSON, "json", false, "for machines")
	cmd.Flags().BoolVar(&e.raw, "raw", false, "interpolate ${…} in the values")
	s.add(root, cmd, rights{verb: access.VerbConfig, apps: firstApp, stdin: true, tells: namesOfEdit})
	if s.srv == nil {
		s.inputHere(cmd, &e)
	}
}

// configKey reads SECTION:KEY, or a key of [app].
func configKey(word string) (section, key string) {
	if section, key, ok := strings.Cut(word, ":"); ok {
		return section, key
	}
	return "app", word
}

func showKey(c config.Change) string { return keyWord(c.Section, c.Key) }

// keyWord is how a person names a key.
func keyWord(section, key string) string {
	if section == "app" {
		return key
	}
	return section + ":" + key
}

// printConfig prints the value that counts, whichever layer says it.
func (s *session) printConfig(ctx context.Context, app, word string) error {
	entries, err := s.srv.deployer.Configuration(ctx, app)
	if err != nil {
		return err
	}
	section, key := configKey(word)
	// Of the rest dump shows as much.
	if !isVariable(section) && !access.May(s.who, access.VerbOperator, app) {
		maskSecrets(entries)
	}
	for _, e := range entries {
		if e.Section != section || e.Key != key && (isVariable(section) || e.Key != strings.ToLower(key)) {
			continue
		}
		s.printValue(e.Value)
		return nil
	}
	return fmt.Errorf("%s is not set for %q\n%q lists what is", word, app, "dump "+app)
}

// isVariable tells whether a section holds environment variables, which those
// who push can read by a push anyway.
func isVariable(section string) bool { return section == "env" || section == "build_env" }

// listConfig shows what is the app's own, not what a server gives to every app.
func (s *session) listConfig(ctx context.Context, app string, asJSON bool) error {
	all, err := s.srv.deployer.Configuration(ctx, app)
	if err != nil {
		return err
	}
	maskSecrets(all)
	entries := []deployer.Setting{}
	for _, e := range all {
		if l := e.Origin.Layer; l == config.LayerApp || l == config.LayerSource {
			entries = append(entries, e)
		}
	}
	if asJSON {
		return printJSON(s.stdout, entries)
	}
	for _, e := range entries {
		from := ""
		if e.Origin.Layer != config.LayerApp {
			from = "  ; " + where(e.Origin)
		}
		fmt.Fprintf(s.stdout, "%s = %s%s\n", keyWord(e.Section, e.Key), shownValue(e.Value), from)
	}
	return nil
}
