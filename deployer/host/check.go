package host

import (
	"context"
	"fmt"
	"strings"

	"scotch/deployer"
)

// Finding is what a check found.
type Finding struct {
	// Check is what was looked at: "packages", "nginx", "app blog".
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Problem is what is wrong, Mend what to do about it; empty where all is well.
	Problem string `json:"problem,omitempty"`
	Mend    string `json:"mend,omitempty"`
}

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK    Level = "ok"
	Note  Level = "note"  // works, and a person should know
	Wrong Level = "wrong" // does not work, or soon will not
)

// Apps is what the server knows of its apps.
type Apps interface {
	List() ([]deployer.Status, error)
	// Outdated says why the virtualenv of what is live can't be relied on any more.
	Outdated(ctx context.Context, app string) string
	// OutOfMemory says that processes of what is live were killed for want of memory.
	OutOfMemory(app string) string
}

// CheckOptions are what Check can't find out by itself.
type CheckOptions struct {
	Apps Apps
	// KeysError is what is wrong with the file of keys, nil for nothing.
	KeysError error
	// Server is what is wrong with the running server, nil where it answers.
	Server error
	// Start is how a standalone server is started.
	Start string
}

// findings collects what one check finds.
type findings struct {
	check string
	list  []Finding
}

func (f *findings) wrong(mend, problem string, a ...any) {
	f.list = append(f.list, Finding{f.check, Wrong, fmt.Sprintf(problem, a...), mend})
}

func (f *findings) note(mend, problem string, a ...any) {
	f.list = append(f.list, Finding{f.check, Note, fmt.Sprintf(problem, a...), mend})
}

// Check looks at everything that a server stands on. It changes nothing. Each
// check that finds nothing is in the answer too, as OK.
func (m *Machine) Check(ctx context.Context, o CheckOptions) []Finding {
	system := m.Site.Mode != "standalone"
	var all []Finding
	run := func(name string, check func(ctx context.Context, f *findings)) {
		if ctx.Err() != nil {
			return
		}
		f := &findings{check: name}
		check(ctx, f)
		if len(f.list) == 0 {
			f.list = []Finding{{Check: name, Level: OK}}
		}
		all = append(all, f.list...)
	}
	run("server", func(ctx context.Context, f *findings) { m.checkServer(ctx, f, o) })
	run("packages", m.checkPackages)
	run("git", m.checkGit)
	if m.uses("uwsgi") {
		run("uwsgi", m.checkUWSGI)
	}
	if system {
		run("unit", m.checkUnit)
		run("users", m.checkUsers)
		run("permissions", m.checkPermissions)
		if m.uses("nginx") {
			run("nginx", m.checkNginx)
		}
	} else {
		run("permissions", m.checkPrivate)
	}
	run("ports", func(ctx context.Context, f *findings) { m.checkPorts(f, o.Server == nil) })
	run("disk", m.checkDisk)
	run("clock", m.checkClock)
	run("locale", m.checkLocale)
	run("keys", func(_ context.Context, f *findings) { m.checkKeys(f, o.KeysError) })
	run("apps", func(ctx context.Context, f *findings) { m.checkApps(ctx, f, o) })
	return all
}

func (m *Machine) checkKeys(f *findings, bad error) {
	if bad != nil {
		problem, mend, _ := strings.Cut(bad.Error(), "\n")
		if mend == "" {
			mend = "mend that line of " + m.Site.Server.AuthorizedKeys
		}
		f.wrong(mend, "%s", problem)
	}
	if n, err := m.Keys.Admins(); err == nil && n == 0 {
		f.wrong("keys add NAME FILE --role admin", "no admin may connect")
	}
}

func (m *Machine) checkApps(ctx context.Context, f *findings, o CheckOptions) {
	list, err := o.Apps.List()
	if err != nil {
		f.wrong("rename or remove that file", "%s", deployer.FirstLine(err.Error()))
	}
	for _, a := range list {
		f.check = "app " + a.App
		// Without a server nothing is known to run that a service manager runs.
		switch {
		case a.State == deployer.StateMistaken:
			f.wrong("mend its file; dump "+a.App+" lists all that is wrong", "%s", a.Detail)
		case a.State == deployer.StateDoomed && a.Detail != "":
			f.wrong("mend what the server's log says is in its way, then destroy it again", "%s", a.Detail)
		case a.State == deployer.StateOffWeb:
			f.wrong("set [app] domains or url_prefix of one of them, then restart "+a.App, "it is not on the web: %s", a.Detail)
		case a.State == deployer.StateFileGone:
			f.wrong(fmt.Sprintf("put it back, or take the app away: destroy %s --force", a.App), "its file is gone: %s", a.Detail)
		case a.State == deployer.StateDown && o.Server == nil:
			f.wrong(fmt.Sprintf("restart %s; logs %s says why it ended", a.App, a.App), "it is to run, and does not")
		case a.State == deployer.StateFailed:
			f.note(fmt.Sprintf("logs %s --deploy", a.App), "its first deploy failed: %s", a.Detail)
		}
		if what := o.Apps.OutOfMemory(a.App); what != "" {
			f.wrong(fmt.Sprintf("give it more (config %[1]s set limits:memory=…), or fewer workers, or find what takes it (logs %[1]s); counted until the next deploy or restart %[1]s", a.App), "%s", what)
		}
		if why := o.Apps.Outdated(ctx, a.App); why != "" {
			f.wrong("rebuild "+a.App, "its Python has changed: %s", why)
		}
	}
	f.check = "apps"
}
