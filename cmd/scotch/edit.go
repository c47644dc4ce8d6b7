package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"scotch/config"
	"scotch/deployer"
	"scotch/gitserver/access"
)

// edits are the flags of the commands that change an app's file.
type edits struct {
	noRestart bool
	asJSON    bool
	raw       bool
	file      string
}

// editVerbs are the words behind the app's name.
func editVerbs() []string { return []string{"get", "set", "unset"} }

// checkEdit checks the words of config and env.
func checkEdit(cmd *cobra.Command, args []string) error {
	command := strings.Fields(cmd.Use)[0]
	switch {
	case len(args) == 0:
		return errors.New("the name of an app is missing")
	case len(args) == 1:
		return nil
	case !slices.Contains(editVerbs(), args[1]) && slices.Contains(editVerbs(), args[0]):
		return fmt.Errorf("the app comes first: %s APP %s …", command, args[0])
	case !slices.Contains(editVerbs(), args[1]):
		// The word may be half of a secret: it is not repeated.
		return fmt.Errorf("behind the app comes get, set or unset")
	case args[1] == "get" && len(args) != 3:
		return errors.New("get takes one name")
	case args[1] == "unset" && len(args) < 3:
		return errors.New("unset takes the names of what to remove")
	}
	return nil
}

// takesInput tells whether the words leave values to the input.
func takesInput(args []string) bool {
	return len(args) >= 2 && args[1] == "set" && (len(args) == 2 || len(args) == 3 && !strings.Contains(args[2], "="))
}

// inputHere makes the program that a person starts look after the input: it
// opens --file itself, and leaves alone an input that is not for this command.
func (s *session) inputHere(cmd *cobra.Command, e *edits) {
	forward := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch f, isFile := s.stdin.(*os.File); {
		case !takesInput(args):
			s.stdin = strings.NewReader("")
		case e.file != "" && e.file != "-":
			f, err := os.Open(e.file)
			if err != nil {
				return err
			}
			defer f.Close()
			s.stdin = f
			if err := cmd.Flags().Set("file", "-"); err != nil {
				return err
			}
		case isFile && isTerminal(f):
			return usageError{errors.New("there are no values\nwrite NAME=VALUE, or send them on the input: … < FILE")}
		}
		return forward(cmd, args)
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// maxInput is what an app's file takes at most, bytes.
const maxInput = 1 << 20

// input reads the whole input. A person who forgot it is told what it waits for.
func (s *session) input(ctx context.Context, waitsFor string) ([]byte, error) {
	done, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			fmt.Fprintf(s.stderr, "waiting for %s on the input, until its end (Ctrl-D)\n", waitsFor)
		}
	}()
	data, err := io.ReadAll(io.LimitReader(s.stdin, maxInput+1))
	close(done)
	<-told
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the input: %w", err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx) // the end of a client is no end of its input
	case len(data) > maxInput:
		return nil, fmt.Errorf("the input is longer than %d bytes", maxInput)
	}
	return data, nil
}

// oneValue is the input as one value: a line end at its end was put there by
// echo or an editor and does not count.
func (s *session) oneValue(ctx context.Context, name string) (string, error) {
	data, err := s.input(ctx, "the value of "+name)
	if err != nil {
		return "", err
	}
	if len(data) == 0 {
		return "", usageError{fmt.Errorf("no value of %s came on the input\nfor an empty one: set %s=", name, name)}
	}
	value := strings.TrimSuffix(string(data), "\n")
	return strings.TrimSuffix(value, "\r"), nil
}

// assignments are the changes that the words NAME=VALUE ask for, or one NAME
// with its value on the input.
func (s *session) assignments(ctx context.Context, words []string, e *edits, key func(string) (section, name string)) ([]config.Change, error) {
	if len(words) == 1 && !strings.Contains(words[0], "=") {
		section, name := key(words[0])
		value, err := s.oneValue(ctx, words[0])
		return []config.Change{{Section: section, Key: name, Value: value, Raw: e.raw}}, err
	}
	var changes []config.Change
	for i, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("word %d is no NAME=VALUE\nssh takes quotes off, so a value with spaces needs two pairs: 'NAME=\"a b\"'\nor send the value on the input: … set NAME < FILE", i+1)}
		}
		section, key := key(name)
		changes = append(changes, config.Change{Section: section, Key: key, Value: value, Raw: e.raw})
	}
	return changes, nil
}

// changed is what came of a change, for machines.
type changed struct {
	App    string           `json:"app"`
	Set    []string         `json:"set,omitempty"`
	Unset  []string         `json:"unset,omitempty"`
	Result deployer.Outcome `json:"result"`
}

// change makes changes of an app's file. show is how a key is named.
func (s *session) change(ctx context.Context, app string, changes []config.Change, e *edits, show func(config.Change) string) error {
	for _, c := range changes {
		if err := s.maySet(app, c, show(c)); err != nil {
			return err
		}
	}
	res := changed{App: app}
	later := true // nothing of it is read before the next deploy
	var waits []string
	for _, c := range changes {
		if c.Unset {
			res.Unset = append(res.Unset, show(c))
		} else {
			res.Set = append(res.Set, show(c))
		}
		if nextDeploy(c) {
			waits = append(waits, show(c))
		} else {
			later = false
		}
	}
	var what []string
	if len(res.Set) > 0 {
		what = append(what, "setting "+strings.Join(res.Set, ", "))
	}
	if len(res.Unset) > 0 {
		what = append(what, "removing "+strings.Join(res.Unset, ", "))
	}
	report := s.stdout
	if e.asJSON {
		report = s.stderr
	}
	var absent []string
	outcome, err := s.srv.deployer.Change(ctx, deployer.Edit{
		App: app, By: s.actor(), What: strings.Join(what, ", "), Restart: !e.noRestart && !later,
		Apply: func(file string, data []byte) ([]byte, error) {
			absent = nil
			for _, c := range config.Absent(data, changes) {
				absent = append(absent, show(c))
			}
			return config.Edit(file, data, changes)
		},
	}, report)
	if err != nil {
		return err
	}
	for _, name := range absent {
		fmt.Fprintf(s.stderr, "%s is not set in the file of %s\n", name, app)
	}
	s.tellStillSet(ctx, app, changes, show)
	res.Result = outcome
	if e.asJSON {
		return printJSON(s.stdout, res)
	}
	done := fmt.Sprintf("%s: saved (%s)", app, strings.Join(what, ", "))
	switch {
	case outcome == deployer.Unchanged:
		fmt.Fprintf(s.stdout, "%s: nothing changes\n", app)
	case outcome == deployer.SavedUndeployed:
		fmt.Fprintf(s.stdout, "%s; it counts from the first deploy on\n", done)
	case outcome == deployer.SavedStopped:
		fmt.Fprintf(s.stdout, "%s; the app is stopped: `start %s` starts it with that\n", done, app)
	case outcome == deployer.Saved && !later:
		fmt.Fprintf(s.stdout, "%s; `restart %s` makes it live\n", done, app)
	case outcome == deployer.Saved:
		fmt.Fprintln(s.stdout, done)
	}
	if len(waits) > 0 && (outcome == deployer.Live || outcome == deployer.Saved) {
		fmt.Fprintf(s.stdout, "%s: %s from the next deploy on\n", app, strings.Join(waits, ", "))
	}
	return nil
}

// tellStillSet names the keys that another file, or [DEFAULT], gives a value, now
// that the app's own says nothing of them.
func (s *session) tellStillSet(ctx context.Context, app string, changes []config.Change, show func(config.Change) string) {
	entries, err := s.srv.deployer.Configuration(ctx, app)
	if err != nil {
		return // it was good a moment ago, and is no longer what was changed here
	}
	for _, c := range changes {
		for _, e := range entries {
			if !c.Unset || e.Section != c.Section || e.Key != c.Key {
				continue
			}
			switch e.Origin.Layer {
			case config.LayerSource, config.LayerSite:
				fmt.Fprintf(s.stderr, "%s still has a value, from %s\n", show(c), where(e.Origin))
			case config.LayerApp: // its own line is gone
				fmt.Fprintf(s.stderr, "%s still has a value, from [DEFAULT] in the app's file\n", show(c))
			}
		}
	}
}

// nextDeploy tells whether a key is read by deploys alone: a restart shares the
// source, the virtualenv and the entry point of its release.
func nextDeploy(c config.Change) bool {
	switch c.Section {
	case "build_env", "deploy":
		return true
	case "limits":
		return strings.HasPrefix(strings.ToLower(c.Key), "build_")
	case "health":
		return strings.EqualFold(c.Key, "watch")
	case "app":
		return slices.Contains([]string{"src", "root", "interpreter", "entry_point", "build", "release", "persist"}, strings.ToLower(c.Key))
	}
	return false
}

// maySet asks the one place that decides. What an app's source could say as
// well, and the environment of the app and of its builds, is for those who push;
// all else an operator's. So is what refers to other values.
func (s *session) maySet(app string, c config.Change, name string) error {
	verb := access.VerbOperator
	switch {
	case c.Raw:
	case c.Section == "env" || c.Section == "build_env":
		verb = access.VerbEnv
	case s.setInSource(c.Section, c.Key):
		verb = access.VerbConfig
	}
	if access.May(s.who, verb, app) {
		return nil
	}
	return fmt.Errorf("your key (%s) may not change %s of %q\nit is an operator's: ask an admin of this server", s.who.Name, name, app)
}

// setInSource tells whether the app's own source may set a key.
func (s *session) setInSource(section, key string) bool {
	plugins, _ := pluginDefaults()
	for _, k := range config.Schema(plugins) {
		if k.Section == section && (k.Any || k.Name == strings.ToLower(key)) && k.Set == config.SetInSource {
			return true
		}
	}
	return false
}
