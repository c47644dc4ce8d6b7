package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"scotch/gitserver/access"
)

// decision is what is expected of a command: who may, and with which arguments
// it is tried. They let whoever may do it change nothing that matters.
type decision struct {
	least access.Role
	kind  scope
	args  string // APP stands for the app's name
}

type scope int

const (
	anApp    scope = iota // about one app: the role, on that app
	overview              // shows everybody their own
	theSite               // about all: the role, on all apps
	open                  // tells nothing of this server
	here                  // not over ssh at all
)

// decisions has a row for each command of the tree. A command that is not here
// fails the test: decide who may run it, add it here, and give it its verb.
func decisions() map[string]decision {
	return map[string]decision{
		"list":     {access.Read, overview, ""},
		"ps":       {access.Read, anApp, "APP"},
		"releases": {access.Read, anApp, "APP"},
		"logs":     {access.Read, anApp, "APP"},

		"dump":     {access.Push, anApp, "APP"},
		"deploy":   {access.Push, anApp, "APP --ref none"},
		"cancel":   {access.Push, anApp, "APP"},
		"rollback": {access.Push, anApp, "APP"},
		"lock":     {access.Push, anApp, "APP a reason"},
		"unlock":   {access.Push, anApp, "APP"},
		"restart":  {access.Push, anApp, "APP"},
		"stop":     {access.Push, anApp, "APP"},
		"start":    {access.Push, anApp, "APP"},
		"rebuild":  {access.Push, anApp, "APP"},
		"run":      {access.Push, anApp, "APP -- true"},
		"env":      {access.Push, anApp, "APP"},
		"config":   {access.Push, anApp, "APP"},
		"key":      {access.Push, anApp, "APP"},

		"create":      {access.Admin, anApp, "APP"},
		"destroy":     {access.Admin, anApp, "APP"}, // without --force it is wrong use
		"keys add":    {access.Admin, theSite, "somebody"},
		"keys list":   {access.Admin, theSite, ""},
		"keys remove": {access.Admin, theSite, "nobody"},
		"doctor":      {access.Admin, theSite, ""},
		"df":          {access.Admin, theSite, ""},
		"prune":       {access.Admin, theSite, ""},

		"help": {"", open, ""}, "version": {"", open, ""}, "keys": {"", open, ""},

		"serve": {"", here, ""}, "setup": {"", here, ""}, "hook": {"", here, "pre-receive"},
		"completion": {"", here, "bash"}, "man": {"", here, "."},
		"__complete": {"", here, "logs ''"}, "__completeNoDesc": {"", here, "logs ''"},
	}
}

// commandsOf lists the commands that can be run, each by the words that name it.
func commandsOf(parent *cobra.Command, above string) []string {
	var all []string
	for _, c := range parent.Commands() {
		name := strings.TrimSpace(above + " " + c.Name())
		if c.Runnable() {
			all = append(all, name)
		}
		if c.Name() != "completion" {
			all = append(all, commandsOf(c, name)...)
		}
	}
	return all
}

// TestRights tries each command of the tree as each kind of key, on an app that
// is theirs, on one that isn't and on one that is not there, over ssh.
func TestRights(t *testing.T) {
	expected := decisions()
	known := (&session{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, local: true}).tree()
	known.InitDefaultHelpCmd()
	known.InitDefaultCompletionCmd()
	commands := commandsOf(known, "")
	for _, name := range commands {
		if _, ok := expected[name]; !ok {
			t.Errorf("nothing is decided about who may run %q: add it to decisions", name)
		}
	}
	w := newStandaloneWorld(t)
	w.must("create", "blog")
	w.must("create", "shop")
	people := map[string]access.Identity{
		"reader":   {Role: access.Read, Apps: []string{"blog"}},
		"pusher":   {Role: access.Push, Apps: []string{"blog"}},
		"readall":  {Role: access.Read},
		"pushall":  {Role: access.Push},
		"operator": {Role: access.Admin},
	}
	for name, who := range people {
		who.Name = name
		p := w.newPerson(t, who)
		for command, d := range expected {
			if !slices.Contains(commands, command) && d.kind != here && d.kind != open {
				continue
			}
			p.try(command, d)
		}
		p.tryGit("git-upload-pack", access.VerbFetch)
		p.tryGit("git-receive-pack", access.VerbPush)
	}
	// A key that nobody knows gets no session at all.
	stranger := w.newPerson(t, access.Identity{Name: "stranger"})
	if out, status := stranger.ssh("list"); status != 255 || !strings.Contains(out, "Permission denied") {
		t.Errorf("a stranger's list exits with %d\n%s", status, out)
	}
}

// person is somebody with a key, who runs ssh.
type person struct {
	t    *testing.T
	who  access.Identity
	args []string
}

// newPerson makes a key, lets it in where it has a role, and opens one
// connection for all that the person does.
func (s *standaloneWorld) newPerson(t *testing.T, who access.Identity) *person {
	t.Helper()
	key := filepath.Join(filepath.Dir(s.dir), who.Name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", who.Name, "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	p := &person{t: t, who: who, args: []string{"-F", "/dev/null", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile=" + filepath.Join(filepath.Dir(s.dir), "known_hosts"), "-o", "StrictHostKeyChecking=accept-new",
		"-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ControlPath=" + key + ".ctl", "-p", fmt.Sprint(s.ssh)}}
	if who.Role == "" {
		return p
	}
	args := []string{"keys", "add", who.Name, key + ".pub", "--role", string(who.Role)}
	if who.Apps != nil {
		args = append(args, "--apps", strings.Join(who.Apps, ","))
	}
	s.must(args...)
	master := exec.Command("ssh", append(slices.Clone(p.args), "-M", "-N", "x@127.0.0.1")...)
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Process.Kill(); master.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(key + ".ctl"); err == nil {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no connection", who.Name)
		}
	}
}

func (p *person) ssh(command string) (string, int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", append(slices.Clone(p.args), "x@127.0.0.1", command)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		p.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// may is this test's own word on who may do what.
func (p *person) may(least access.Role, app string) bool {
	order := []access.Role{access.Read, access.Push, access.Admin}
	return slices.Index(order, p.who.Role) >= slices.Index(order, least) &&
		(p.who.Role == access.Admin || p.who.Apps == nil || slices.Contains(p.who.Apps, app))
}

// The three refusals.
const (
	notYours  = `there is no app "APP" here that is yours`
	notEnough = `"APP" and not do this`
	notYou    = "may not do this: its role is"
)

func (p *person) try(command string, d decision) {
	p.t.Helper()
	answers := map[string]string{}
	for _, app := range []string{"blog", "shop", "ghost"} {
		line := strings.TrimSpace(command + " " + strings.ReplaceAll(d.args, "APP", app))
		out, status := p.ssh(line)
		named := func(s string) string { return strings.ReplaceAll(s, "APP", app) }
		refusal := ""
		switch {
		case d.kind == anApp && !p.may(access.Read, app):
			refusal = named(notYours)
			if command == "create" { // there or not, what is wanting is the role
				refusal = notYou
			}
			answers[app] = strings.ReplaceAll(out, app, "APP")
		case d.kind == anApp && !p.may(d.least, app) && app == "ghost" && command == "create":
			refusal = notYou
		case d.kind == anApp && !p.may(d.least, app) && app == "ghost":
			refusal = named(notYours)
		case d.kind == anApp && !p.may(d.least, app):
			refusal = named(notEnough)
		case d.kind == theSite && !p.may(d.least, ""):
			refusal = notYou
		case d.kind == here:
			refusal = "there is no command"
		}
		switch {
		case refusal != "" && (status == 0 || !strings.Contains(out, refusal)):
			p.t.Errorf("%s: %s exits with %d, is to be refused by %q\n%s", p.who.Name, line, status, refusal, out)
		case refusal == "" && (status == 255 || strings.Contains(out, named(notYours)) || strings.Contains(out, named(notEnough)) || strings.Contains(out, notYou)):
			p.t.Errorf("%s: %s exits with %d, and is theirs to do\n%s", p.who.Name, line, status, out)
		}
		if d.kind == overview && p.who.Apps != nil && strings.Contains(out, "shop") {
			p.t.Errorf("%s: %s shows what is not theirs\n%s", p.who.Name, line, out)
		}
		if command == "create" && app == "ghost" && status == 0 {
			p.ssh("destroy ghost --force --purge")
		}
		if d.kind != anApp {
			return // the app is not in it
		}
	}
	p.same(command, answers)
}

func (p *person) tryGit(service string, verb access.Verb) {
	p.t.Helper()
	least := map[access.Verb]access.Role{access.VerbFetch: access.Read, access.VerbPush: access.Push}[verb]
	answers := map[string]string{}
	for _, app := range []string{"blog", "shop", "ghost"} {
		out, status := p.ssh(service + " '" + app + "'")
		refusal := ""
		switch {
		case !p.may(access.Read, app):
			refusal = fmt.Sprintf("there is no app %q that your key may use", app)
			answers[app] = strings.ReplaceAll(out, app, "APP")
		case app == "ghost" && p.who.Role != access.Admin:
			refusal = fmt.Sprintf("there is no app %q that your key may use", app)
		case app == "ghost":
			continue // told how to make it, or shown the refs of an empty repository
		case !p.may(least, app):
			refusal = fmt.Sprintf("your key may read %q and not push to it", app)
		}
		if refused := strings.Contains(out, "scotch: "); refused != (refusal != "") || !strings.Contains(out, refusal) {
			p.t.Errorf("%s: %s %s exits with %d, want the refusal %q\n%s", p.who.Name, service, app, status, refusal, out)
		}
	}
	p.same(service, answers)
}

// same holds the answer about an app that is not theirs against that about one
// that is not there: nobody is to learn which there are.
func (p *person) same(what string, answers map[string]string) {
	p.t.Helper()
	if answers["shop"] != answers["ghost"] {
		p.t.Errorf("%s: %s tells another's app from none:\n%s\n%s", p.who.Name, what, answers["shop"], answers["ghost"])
	}
}
