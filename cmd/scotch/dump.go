package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addDump(root *cobra.Command) {
	var asJSON, origin bool
	cmd := &cobra.Command{
		Use:   "dump APP...",
		Short: "the merged configuration of apps",
		Long: `Shows each value of an app's merged configuration as it counts: where the files
leave it to scotch, what scotch found out; where that can't be known yet, the
rule in words. --origin names the file and line of each, or says why it counts. What
[DEFAULT] says is shown as written, and once more in each section that takes it.
Of several apps the others are shown when one has mistakes; the exit status is 1 then.

The values of [env] and [build_env], those that refer to them, and the name and
password in a source's URL may be secrets: ` + masked + ` stands for each.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			args = once(args)
			all := map[string][]deployer.Setting{}
			err := s.each(cmd.Context(), args, false, access.VerbDump, func(ctx context.Context, app string) error {
				settings, err := s.srv.deployer.Configuration(ctx, app)
				if err != nil {
					return err
				}
				maskSecrets(settings)
				all[app] = settings
				if asJSON {
					return nil
				}
				if len(args) > 1 {
					fmt.Fprintf(s.stdout, "# %s\n", app)
				}
				s.printSettings(settings, origin)
				return nil
			})
			if asJSON && len(all) > 0 {
				return errors.Join(printJSON(s.stdout, all), err)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	cmd.Flags().BoolVar(&origin, "origin", false, "name the file and line that each value comes from")
	s.add(root, cmd, rights{verb: access.VerbDump, apps: allApps, offline: true})
}

// printSettings prints an app's configuration, as a file would have it.
func (s *session) printSettings(settings []deployer.Setting, origin bool) {
	section := ""
	for _, e := range settings {
		if e.Section != section {
			fmt.Fprintf(s.stdout, "[%s]\n", e.Section)
			section = e.Section
		}
		fmt.Fprintf(s.stdout, "%s = %s", e.Key, shownValue(e.Value))
		if origin {
			fmt.Fprintf(s.stdout, "  ; %s", deployer.Neutral(e.From()))
		}
		fmt.Fprintln(s.stdout)
	}
}

// shownValue is a value as it is listed, which a source may have set: harmless on a
// terminal, its lines after the first indented as in a file.
func shownValue(value string) string {
	lines := strings.Split(value, "\n")
	for i := range lines {
		lines[i] = deployer.Neutral(lines[i])
	}
	return strings.Join(lines, "\n    ")
}

// masked stands for a value that may be a secret.
const masked = "********"

// maskSecrets takes out of values what may be a secret: all of [env] and
// [build_env], what refers to them, directly or by way of another value, and
// who reads a source and by which password or token.
func maskSecrets(all []deployer.Setting) {
	secret := map[string]bool{}
	for grew := true; grew; {
		grew = false
		for _, e := range all {
			name := e.Section + ":" + e.Key
			if secret[name] || !isSecret(e, secret) {
				continue
			}
			secret[name], grew = true, true
		}
	}
	for i := range all {
		e := &all[i]
		switch {
		case holdsVariables(e.Section):
			e.Value, e.Raw = masked, masked
		case secret[e.Section+":"+e.Key]:
			e.Value = masked // as written it is a name
		case isNotify(e.Section, e.Key) && e.Value != "":
			e.Value, e.Raw = masked, masked // the URL of a chat's hook holds a token
		case (e.Section == "app" || e.Section == "DEFAULT") && e.Key == "src":
			e.Value, e.Raw = withoutUser(e.Value), withoutUser(e.Raw)
		}
	}
}

// isNotify tells whether a key says who is told, itself or by way of [DEFAULT].
func isNotify(section, key string) bool {
	return (section == "notify" || section == "DEFAULT") && (key == "command" || key == "url")
}

func holdsVariables(section string) bool { return section == "env" || section == "build_env" }

// reference is ${key} or ${section:key}, as configparser's extended
// interpolation has it. That $${ is none of them does not matter here.
var reference = pattern(`\$\{([^}]*)\}`)

func isSecret(e deployer.Setting, secret map[string]bool) bool {
	if holdsVariables(e.Section) {
		return true
	}
	for _, m := range reference().FindAllStringSubmatch(e.Raw, -1) {
		section, key, ok := strings.Cut(m[1], ":")
		if !ok {
			section, key = e.Section, m[1]
		}
		if holdsVariables(section) || secret[section+":"+strings.ToLower(key)] || secret["DEFAULT:"+strings.ToLower(key)] {
			return true
		}
	}
	return false
}

// withoutUser masks the user and the password of a source's URL, of ssh's the
// password alone: its user is no secret.
func withoutUser(source string) string {
	u, err := url.Parse(source)
	if err != nil || u.User == nil {
		return source
	}
	as := masked
	if _, password := u.User.Password(); u.Scheme == "ssh" && !password {
		return source
	} else if u.Scheme == "ssh" {
		as = url.User(u.User.Username()).String() + ":" + masked
	}
	u.User = nil
	return strings.Replace(u.String(), "://", "://"+as+"@", 1)
}
