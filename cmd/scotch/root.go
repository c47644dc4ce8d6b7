package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"scotch/config"
	"scotch/deployer"
	"scotch/gitserver/access"
	"scotch/gitserver/audit"
)

// session is one run of the command tree: who runs it, where its words go, and
// what it works on.
type session struct {
	who    access.Identity
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	// term is the terminal of the session's person, where the command runs on the
	// server and they have one.
	term *deployer.Terminal

	// screen tells that stdout is shown on a terminal.
	screen bool

	// srv is the running server; nil in the program that a person starts,
	// which hands its commands on to the server.
	srv *server
	// local tells that the files of this session's person can be opened.
	local bool

	// did is what the audit log says of the command.
	did audit.Entry

	files []string // -c
	debug bool     // -d

	// lastWords is said when a second signal ends the program at once.
	lastWords atomic.Pointer[string]
}

// rights says what a command is for the one place that decides (access.May).
type rights struct {
	verb access.Verb
	apps appArgs
	// offline commands read files and need no server.
	offline bool
	// here tells that the command is this program's own: never over ssh, never
	// handed on to a server.
	here bool
	// stdin tells that the command reads its input.
	stdin bool
	// terminal tells that it has use for a terminal.
	terminal bool
	// tells returns the words that the audit log may name, besides the apps. nil: none.
	tells func(args []string) []string
}

// appArgs says which arguments of a command are names of apps.
type appArgs int

const (
	noApp    appArgs = iota // about the server, or filtered by the command itself
	firstApp                // the first argument, if there is one
	allApps                 // each argument
)

func local() access.Identity {
	id := access.Identity{Name: "local", Role: access.Admin, Local: true}
	if u, err := user.Current(); err == nil {
		id.Name = u.Username
	}
	return id
}

// execute runs one command and returns its exit status. args is what stands
// behind the program's name; nil is no command, which shows the help.
func (s *session) execute(ctx context.Context, args []string) int {
	if args == nil {
		args = []string{} // cobra takes nil for the arguments of this process
	}
	root := s.tree()
	if s.srv != nil && isCompletion(args) {
		args = append([]string{"--"}, args...)
	}
	root.SetArgs(args)
	begin := time.Now()
	cmd, err := root.ExecuteContextC(ctx)
	if s.did.Verb == "" { // wrong use, or the help
		s.did.Verb = strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), "scotch"))
	}
	if s.did.Verb == "" && len(args) > 0 {
		s.did.Verb = firstWord(args[0])
	}
	s.record(begin, status(err))
	if err != nil && !errors.As(err, new(*exitError)) {
		s.complain(err)
	}
	return status(err)
}

func (s *session) complain(err error) {
	text := strings.TrimSpace(err.Error())
	// The text of a StageError is one line, for git: its cause says the next step.
	if stage, ok := errors.AsType[*deployer.StageError](err); ok {
		if _, next, ok := strings.Cut(strings.TrimSpace(stage.Err.Error()), "\n"); ok {
			text += "\n" + next
		}
	}
	if hint := hintOf(err); hint != "" {
		text += "\n" + hint
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = deployer.Neutral(strings.TrimRight(l, "\r"))
	}
	fmt.Fprintf(s.stderr, "scotch: %s\n", strings.Join(lines, "\n        "))
}

func hintOf(err error) string {
	var refused *deployer.RefusedError
	if errors.As(err, &refused) {
		return refused.Hint
	}
	return ""
}

// tree makes a fresh command tree. Nothing of it is kept between sessions.
func (s *session) tree() *cobra.Command {
	root := &cobra.Command{
		Use:   "scotch",
		Short: "push-to-deploy for Python web apps on a server of your own",
		Long: `scotch is push-to-deploy for Python web apps, on a server of your own:

  git remote add scotch ssh://scotch@SERVER:2222/APP
  git push scotch main

Every command but serve and setup works here and over ssh, with the same words:

  scotch list
  ssh -p 2222 scotch@SERVER list`,
		Version:                    version(),
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usageError{unknownCommand(cmd, args[0])}
		},
	}
	fitHelp(root, s.srv.address)
	root.SetHelpCommand(helpCommand())
	root.SetVersionTemplate("scotch {{.Version}}\n") // as the command version
	root.SetIn(s.stdin)
	root.SetOut(s.stdout)
	root.SetErr(s.stderr)
	root.CompletionOptions.DisableDefaultCmd = s.srv != nil
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// cobra takes a word that is no command for an argument, and its flags for the
		// parent's: the word is what is wrong.
		if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
			return usageError{unknownCommand(cmd, words[0])}
		}
		return usageError{fmt.Errorf("%w\n%q shows how it is used", err, "scotch help"+strings.TrimPrefix(cmd.CommandPath(), "scotch"))}
	})
	if s.local && s.srv == nil {
		root.PersistentFlags().StringArrayVarP(&s.files, "config", "c", nil, "site `file` to read instead of the standard ones (repeatable)")
	}
	root.PersistentFlags().BoolVarP(&s.debug, "debug", "d", false, "tell more")
	for _, add := range []func(*cobra.Command){
		s.addServe, s.addSetup, s.addDoctor, s.addList, s.addDump, s.addCreate, s.addDestroy, s.addDeploy, s.addCancel, s.addReleases, s.addRollback, s.addRebuild, s.addLock, s.addUnlock,
		s.addLogs, s.addPS, s.addRestart, s.addStop, s.addStart, s.addRun, s.addKey, s.addDF, s.addPrune, s.addConfig, s.addEnv, s.addKeys, s.addVersion, s.addMan, s.addHook,
	} {
		add(root)
	}
	return root
}

// unknownCommand tells of a word that is no command of parent.
func unknownCommand(parent *cobra.Command, name string) error {
	of := strings.TrimPrefix(parent.CommandPath(), "scotch")
	text := fmt.Sprintf("there is no command %q", strings.TrimSpace(of+" "+name))
	// Of three letters two wrong ones are another word: "scp" is no slip of "stop".
	parent.SuggestionsMinimumDistance = min(2, max(1, len(name)/2))
	if near := parent.SuggestionsFor(name); len(near) > 0 {
		text += fmt.Sprintf("\ndid you mean %q?", strings.TrimSpace(of+" "+near[0]))
	}
	return fmt.Errorf("%s\n%q lists the commands", text, "scotch help"+of)
}

// noArguments is cobra.NoArgs, which would call "blog" in "list blog" an unknown
// command.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q takes flags only, not %q", strings.TrimPrefix(cmd.CommandPath(), "scotch "), args[0])
	}
	return nil
}

// add puts a command into the tree, behind the check of who may run it. In a
// person's own program the command is handed on to the server.
func (s *session) add(parent, cmd *cobra.Command, r rights) {
	if s.srv != nil && r.here {
		return
	}
	work, check := cmd.RunE, cmd.Args
	if check == nil {
		check = noArguments
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())}
		}
		for _, app := range r.names(args) {
			if err := config.ValidName(app); err != nil {
				return usageError{err}
			}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if s.srv == nil && !r.here {
			return s.forward(cmd, args, r, work)
		}
		if !r.here {
			s.did = describe(cmd, r, args)
			if err := s.allow(r, args); err != nil {
				s.did.Result, s.did.Reason = audit.Denied, err.Error()
				return err
			}
		}
		return work(cmd, args)
	}
	if s.srv == nil && !r.here {
		s.completeApps(cmd, r.apps)
	}
	parent.AddCommand(cmd)
}

func (r rights) names(args []string) []string {
	switch {
	case r.apps == allApps:
		return args
	case r.apps == firstApp && len(args) > 0:
		return args[:1]
	}
	return nil
}

// allow asks the one place that decides. For an app that is not theirs and for
// one that does not exist people get one and the same answer; of an app that
// they can list they are told that their role does not do.
func (s *session) allow(r rights, args []string) error {
	names := r.names(args)
	for _, app := range names {
		switch {
		case access.May(s.who, r.verb, app):
		case access.May(s.who, access.VerbList, app) && s.srv.hasApp(app):
			can := "read"
			if access.May(s.who, access.VerbPush, app) {
				can = "push to"
			}
			return fmt.Errorf("your key may %s %q and not do this\nask an admin of this server", can, app)
		case r.verb == access.VerbCreate: // said of an app that is there and of one that is not
			return s.notForRole()
		default:
			return noSuchApp(app)
		}
	}
	if len(names) > 0 || access.May(s.who, r.verb, "") {
		return nil
	}
	// --all is about the apps that the key holds for: each finds them.
	someApp := func(app string) bool { return access.May(s.who, r.verb, app) }
	if r.apps != allApps || !slices.ContainsFunc(s.who.Apps, someApp) {
		return s.notForRole()
	}
	return nil
}

func (s *session) notForRole() error {
	return fmt.Errorf("your key (%s) may not do this: its role is %q\nask an admin of this server", s.who.Name, s.who.Role)
}

// hasApp tells whether an app has a file, also one with mistakes in it.
func (s *server) hasApp(app string) bool {
	_, err := s.site.App(app, config.AppOptions{})
	return !errors.As(err, new(*config.NoAppError))
}

func noSuchApp(app string) error {
	return fmt.Errorf("there is no app %q here that is yours\n%q lists those that are", app, "list")
}

// printValue prints a value as it is, for scripts; at a terminal, which it could
// steer, made harmless. Its lines stay lines.
func (s *session) printValue(value string) {
	if s.screen {
		lines := strings.Split(value, "\n")
		for i, l := range lines {
			lines[i] = deployer.Neutral(l)
		}
		value = strings.Join(lines, "\n")
	}
	fmt.Fprintln(s.stdout, value)
}

// printJSON writes a value for machines.
func printJSON(w io.Writer, v any) error {
	doc, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(deployer.NeutralJSON(doc), '\n'))
	return err
}
