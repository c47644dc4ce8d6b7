package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"scotch/deployer"
	"scotch/gitserver/access"
)

func (s *session) addKeys(root *cobra.Command) {
	keys := &cobra.Command{
		Use:   "keys",
		Short: "who may connect",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{unknownCommand(cmd, args[0])}
			}
			return nil
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
	}
	s.addKeysAdd(keys)
	s.addKeysList(keys)
	s.addKeysRemove(keys)
	root.AddCommand(keys)
}

// maxKey bounds a public key on the input, in bytes.
const maxKey = 64 << 10

func (s *session) addKeysAdd(parent *cobra.Command) {
	var role string
	var apps []string
	cmd := &cobra.Command{
		Use:   "add NAME [FILE | KEY...]",
		Short: "let a key in, from a file, the input, or as you paste it",
		Long: `Lets a public key in, from a file, from the input, or pasted behind the name:

  scotch keys add bob bob.pub --role push --apps blog,shop
  ssh -p 2222 scotch@SERVER keys add bob --role push < bob.pub
  ssh -p 2222 scotch@SERVER keys add bob ssh-ed25519 AAAAC3Nza...

Without --role the role is push, without --apps it holds for all apps.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 2 && isKeyType(args[1]) {
				return nil // a comment may have spaces
			}
			return cobra.RangeArgs(1, 2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !access.Role(role).Valid() {
				return usageError{fmt.Errorf("there is no role %q\nit is read, push or admin", role)}
			}
			if len(args) > 1 && isKeyType(args[1]) {
				return s.admit(args[0], access.Role(role), apps, strings.Join(args[1:], " "))
			}
			if len(args) == 2 {
				return usageError{errors.New("a file on this side cannot be read from there\nsend the key on the input: … keys add NAME < FILE")}
			}
			data, err := io.ReadAll(io.LimitReader(s.stdin, maxKey))
			if err != nil {
				return fmt.Errorf("reading the key from the input: %w", err)
			}
			if strings.TrimSpace(string(data)) == "" {
				return usageError{errors.New("no key came on the input\nsend it: … keys add NAME < bob.pub")}
			}
			return s.admit(args[0], access.Role(role), apps, string(data))
		},
	}
	cmd.Flags().StringVar(&role, "role", string(access.Push), "read, push or admin")
	cmd.Flags().StringSliceVar(&apps, "apps", nil, "the apps that the role holds for (default: all)")
	s.add(parent, cmd, rights{verb: access.VerbKeys, stdin: true, tells: allWords})
	if s.srv == nil {
		s.readFileHere(cmd)
	}
}

func (s *session) admit(name string, role access.Role, apps []string, key string) error {
	if err := s.srv.keys.Add(name, role, apps, strings.TrimSpace(key)); err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "%s may connect now, role %s\n", name, role)
	for _, app := range once(apps) {
		if !s.srv.hasApp(app) {
			fmt.Fprintf(s.stderr, "there is no app %q yet; the role holds for it once there is: create %s\n", app, app)
		}
	}
	return nil
}

// isKeyType tells a pasted key from the name of a file: "ssh-ed25519 AAAA…", in
// one word or in several.
func isKeyType(word string) bool {
	kind, _, pasted := strings.Cut(word, " ")
	known := slices.Contains([]string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, "ssh-dss",
	}, kind)
	return known || pasted && strings.Contains(word, " AAAA")
}

// readFileHere makes the program that a person starts read FILE itself and
// send its contents as the input.
func (s *session) readFileHere(cmd *cobra.Command) {
	forward := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 && !isKeyType(args[1]) {
			f, err := os.Open(args[1])
			if err != nil {
				return fmt.Errorf("%w\ngive the file of a public key, such as %s.pub, or the key itself as it stands there", err, args[0])
			}
			defer f.Close()
			s.stdin, args = f, args[:1]
		}
		return forward(cmd, args)
	}
}

// keyEntry is a key as keys list --json shows it. What is not set is left out:
// without apps the role holds for all.
type keyEntry struct {
	Name        string      `json:"name"`
	Role        access.Role `json:"role"`
	Apps        []string    `json:"apps,omitzero"`
	Type        string      `json:"type"`
	Fingerprint string      `json:"fingerprint"`
	From        string      `json:"from,omitzero"`
	Expires     time.Time   `json:"expires,omitzero"`
	Source      string      `json:"source"`
}

func (s *session) addKeysList(parent *cobra.Command) {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "the keys that are let in",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := s.srv.keys.List()
			if err != nil {
				s.complain(err)
			}
			if asJSON {
				keys := make([]keyEntry, len(list))
				for i, k := range list {
					keys[i] = keyEntry{k.Name, k.Role, k.Apps, k.Type, k.Fingerprint, k.From, k.Expires, k.Source}
				}
				return printJSON(s.stdout, keys)
			}
			w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
			for _, k := range list {
				apps := "all apps"
				if k.Apps != nil {
					apps = strings.Join(k.Apps, ",")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\n", k.Name, k.Role, apps, k.Fingerprint, conditions(k.From, k.Expires))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	s.add(parent, cmd, rights{verb: access.VerbKeys})
}

// conditions are under which a key is let in, beside being the right one: a cell
// of a table, "" for none.
func conditions(from string, expires time.Time) string {
	var all []string
	if from != "" {
		all = append(all, "from "+deployer.Neutral(from))
	}
	if word := "expires"; !expires.IsZero() {
		if !time.Now().Before(expires) {
			word = "EXPIRED"
		}
		all = append(all, word+" "+expires.Format("2006-01-02 15:04"))
	}
	if len(all) == 0 {
		return ""
	}
	return "\t" + strings.Join(all, ", ")
}

func (s *session) addKeysRemove(parent *cobra.Command) {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "let a key in no more, at once",
		Long: `Takes out all keys of that name, at once: what they have open is ended, and a deploy
that one of them has begun does not go live. What they have under way is listed. A
detached command goes on, because it may be in the middle of something: the list
says how to end it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			had := s.fingerprints(args[0])
			n, err := s.srv.keys.Remove(args[0])
			if n > 0 {
				fmt.Fprintf(s.stdout, "removed %d of %s's keys\n", n, args[0])
				stay := s.fingerprints(args[0])
				s.tellAsked(slices.DeleteFunc(had, func(f string) bool { return slices.Contains(stay, f) }))
			}
			if err == nil && n == 0 {
				err = fmt.Errorf("there is no key %q\n%q lists them", args[0], "keys list")
			}
			return err
		},
	}
	s.add(parent, cmd, rights{verb: access.VerbKeys, tells: allWords})
}

// fingerprints are those of the keys with a name.
func (s *session) fingerprints(name string) (all []string) {
	list, _ := s.srv.keys.List() // what is wrong with the file is no matter here
	for _, k := range list {
		if k.Name == name {
			all = append(all, k.Fingerprint)
		}
	}
	return all
}

// tellAsked says what keys that were removed have under way. What would go live is
// refused before it does (stillMay); a detached command may be in the middle of a
// company's data, and whether it is ended is a person's to say.
func (s *session) tellAsked(keys []string) {
	ssh := sshCommand(s.srv.site)
	for _, a := range s.srv.deployer.AskedBy(keys) {
		since := time.Since(a.Since).Round(time.Second)
		if a.Run > 0 {
			fmt.Fprintf(s.stdout, "  %s: run %d, since %s, goes on; to end it: %s cancel %s --run %d\n", a.App, a.Run, since, ssh, a.App, a.Run)
			continue
		}
		fmt.Fprintf(s.stdout, "  %s: %s, since %s, is refused before it goes live; to end it now: %s cancel %s\n", a.App, a.What, since, ssh, a.App)
	}
}

// stillMay asks anew, for what a key has asked for, whether it may have that.
func stillMay(keys *access.Keyring) func(by deployer.Actor, app string) error {
	return func(by deployer.Actor, app string) error {
		who, err := keys.Again(by.Key, by.From, time.Now())
		if err == nil && !access.May(who, access.VerbDeploy, app) {
			err = fmt.Errorf("may not deploy %q any more", app)
		}
		if err != nil {
			return fmt.Errorf("the key %q, which asked for this, %w\nwhat served before serves on; who may deploy it begins it anew", by.Name, err)
		}
		return nil
	}
}
