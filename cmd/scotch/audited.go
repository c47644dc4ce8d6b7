package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"scotch/deployer"
	"scotch/gitserver/audit"
)

// describe is what the audit log says of a command: its name, the apps, the names
// of the flags that were set, and of the other words those that tells lets through.
// No value of a variable is among them, nor a word that may be one.
func describe(cmd *cobra.Command, r rights, args []string) audit.Entry {
	e := audit.Entry{Verb: strings.TrimPrefix(cmd.CommandPath(), "scotch ")}
	names := r.names(args)
	if len(names) > 0 {
		e.App, e.Args = names[0], slices.Clone(names[1:])
	}
	if r.tells != nil {
		e.Args = append(e.Args, r.tells(args)...)
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		word := "--" + f.Name
		if slices.Contains(harmlessFlags(), f.Name) {
			word += "=" + f.Value.String()
		}
		e.Args = append(e.Args, word)
	})
	return e
}

// firstWord is what the audit log says of a command that is none. A value that is
// assigned stays out.
func firstWord(word string) string {
	const most = 40 // characters; no command has as many
	word, _, _ = strings.Cut(word, "=")
	r := []rune(deployer.Neutral(word))
	if len(r) <= most {
		return string(r)
	}
	return string(r[:most]) + "…"
}

// harmlessFlags are those whose values are no secrets, nor free text.
func harmlessFlags() []string {
	return []string{"ref", "role", "apps", "release", "from", "destroyed", "lines", "run"}
}

// allWords is for commands whose words are names.
func allWords(args []string) []string { return slices.Clone(args) }

// oneBehindApp is for those that take a name behind the app's, and then free text.
func oneBehindApp(args []string) []string {
	words := wordsBehindApp(args)
	return words[:min(1, len(words))]
}

// wordsBehindApp is for those whose words are names, the first one the app's.
func wordsBehindApp(args []string) []string { return slices.Clone(args[min(1, len(args)):]) }

// namesOfEdit are the words of config and env: get, set or unset, and the names
// without their values.
func namesOfEdit(args []string) []string {
	var names []string
	words := wordsBehindApp(args)
	for i, w := range words {
		name, _, assigned := strings.Cut(w, "=")
		// A word of set without = may be the rest of a value that a shell split.
		if i == 0 || assigned || words[0] != "set" || len(words) == 2 {
			names = append(names, name)
		}
	}
	return names
}
