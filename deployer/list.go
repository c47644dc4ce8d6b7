package deployer

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"scotch/config"
)

// Status is an app as a list shows it.
type Status struct {
	App     string `json:"app"`
	State   string `json:"state"` // one of the states below
	Release int    `json:"release,omitempty"`
	Commit  string `json:"commit,omitempty"`
	Subject string `json:"subject,omitempty"`
	URL     string `json:"url,omitempty"`
	// URLs are one for each of its domains, URL the first of them.
	URLs []string `json:"urls,omitempty"`
	// Underway is what is being done to it now, nil for nothing, and without a
	// running server.
	Underway *Underway `json:"underway,omitempty"`
	// Detail is why it is in its state, in one line, where that is trouble.
	Detail string `json:"detail,omitempty"`
	// Lock keeps deploys out, nil where they are let in.
	Lock *Lock `json:"lock,omitempty"`
	// Errors are all mistakes in its configuration, a line each.
	Errors []string `json:"errors,omitempty"`
}

// Underway is an operation under way on an app: a deploy, a restart.
type Underway struct {
	What  string    `json:"what"` // "deploying 3f2c1ab", "a restart"
	By    string    `json:"by,omitempty"`
	Since time.Time `json:"since"`
}

// The states of an app in a list.
const (
	StateRunning  = "running"
	StateStarting = "starting" // after the server's own start
	StateStopped  = "stopped"
	StateDown     = "down"                 // it should run and does not
	StateNotRun   = "not run by scotch"    // [plugins] had no application server when it was deployed
	StateNever    = "never deployed"       // nor tried
	StateFirst    = "being deployed"       // for the first time
	StateFailed   = "first deploy failed"  // and none after it
	StateMistaken = "broken configuration" // what is live serves on
	StateFileGone = "file is gone"         // what is live, if anything, serves on
	StateDamaged  = "damaged"              // what is live cannot be told
	StateOffWeb   = "not on the web"       // another app has its place
	StateDoomed   = "being destroyed"      // or a destroy of it has failed
)

// List returns the apps, in the order of their names. It reads files only;
// whether processes run it knows of a started server, and elsewhere from what
// the runner recorded.
func (d *Deployer) List() ([]Status, error) {
	names, err := d.names()
	list := make([]Status, len(names))
	var each errgroup.Group
	each.SetLimit(runtime.NumCPU())
	for i, n := range names {
		each.Go(func() error {
			list[i] = d.status(n)
			return nil
		})
	}
	return list, errors.Join(err, each.Wait())
}

func (d *Deployer) status(app string) Status {
	s := Status{App: app}
	l := d.layout(app)
	now, err := d.listed(app, l)
	if doomed, ok := errors.AsType[*destroyingError](d.spared(app)); ok {
		s.State = StateDoomed
		if !d.queue.busy(app, destroyingIt) {
			s.Detail = "a destroy of it is not finished: " + doomed.next()
		}
	} else if gone, ok := errors.AsType[*fileGoneError](now.err); ok {
		s.State, s.Detail = StateFileGone, fmt.Sprintf("%s; %s", gone.file, gone.state())
	} else if now.err != nil {
		s.State, s.Detail = StateMistaken, FirstLine(now.err.Error())
		if all, ok := errors.AsType[config.Errors](now.err); ok {
			for _, one := range all {
				s.Errors = append(s.Errors, FirstLine(one.Error()))
			}
		}
	}
	s.URL, s.URLs = now.url, now.urls
	s.Lock, s.Underway = l.lock(), d.underway(app)
	live := now.live
	if err != nil {
		if damage := d.damaged(app, err); s.State == "" && damage != nil {
			s.State, s.Detail = StateDamaged, FirstLine(damage.Error())
		} else if s.State == "" {
			s.State, s.Detail = d.firstDeploy(app, l)
		}
		return s
	}
	s.Release, s.Commit, s.Subject = live.Release, live.Commit, Neutral(live.Subject)
	if live.URL != "" {
		s.URL, s.URLs = live.URL, d.urls(app, live.Domains, live.URLPrefix)
		if !slices.Contains(s.URLs, live.URL) {
			// Another web server, or none, was on when it went live.
			s.URLs = []string{live.URL}
		}
	}
	d.mu.Lock()
	displaced := d.state(app).displaced
	d.mu.Unlock()
	switch {
	case s.State != "":
	case displaced != "":
		s.State, s.Detail = StateOffWeb, displaced
	case l.isStopped():
		s.State = StateStopped
	case live.Plan != nil && !live.Plan.runs():
		s.State = StateNotRun
	case d.runs(app, live):
		s.State = StateRunning
	case d.isStarting(app):
		s.State = StateStarting
	default:
		s.State = StateDown
	}
	return s
}

// Asked is something under way that a key has asked for.
type Asked struct {
	App   string
	What  string // "deploying 3f2c1ab"; "" for a detached command
	Run   int    // number of a detached command, 0 for others
	Since time.Time
}

// AskedBy lists what one of the keys has under way, by their fingerprints:
// operations whose turn has come, and detached commands.
func (d *Deployer) AskedBy(keys []string) []Asked {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Asked
	for app, s := range d.apps {
		if s.op != nil && slices.Contains(keys, s.op.by.Key) {
			all = append(all, Asked{App: app, What: Neutral(s.op.title), Since: s.op.started})
		}
		for n, r := range s.runs {
			if slices.Contains(keys, r.Key) {
				all = append(all, Asked{App: app, Run: n, Since: r.Started})
			}
		}
	}
	slices.SortFunc(all, func(a, b Asked) int { return cmp.Or(strings.Compare(a.App, b.App), a.Run-b.Run) })
	return all
}

func (d *Deployer) underway(app string) *Underway {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := d.state(app).op
	if op == nil {
		return nil
	}
	return &Underway{What: Neutral(op.title), By: Neutral(op.by.Name), Since: op.started}
}

// firstDeploy is the state of an app that nothing is live of, and why.
func (d *Deployer) firstDeploy(app string, l layout) (state, why string) {
	if d.underway(app) != nil {
		return StateFirst, ""
	}
	ids, err := l.instanceIDs()
	if err != nil || len(ids) == 0 {
		return StateNever, ""
	}
	lines, err := tail(filepath.Join(l.instance(ids[len(ids)-1]), "deploy.log"), 100)
	if err != nil {
		return StateNever, ""
	}
	for _, line := range slices.Backward(lines) {
		// As Report.Fail writes it.
		if reason, ok := strings.CutPrefix(line, " !     "+app+": "); ok {
			return StateFailed, Neutral(reason)
		}
	}
	return StateFailed, "it was cut off"
}

// urls are where an app is reached, by each of its domains, the best one first.
func (d *Deployer) urls(app string, domains []string, prefix string) []string {
	urls := []string{d.WebServer.URL(&config.App{Name: app, Domains: domains, URLPrefix: prefix})}
	for _, dom := range domains {
		if u := d.WebServer.URL(&config.App{Name: app, Domains: []string{dom}, URLPrefix: prefix}); !slices.Contains(urls, u) {
			urls = append(urls, u)
		}
	}
	return urls
}

func (d *Deployer) isStarting(app string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state(app).starting
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (d *Deployer) runs(app string, live *Record) bool {
	d.mu.Lock()
	started, m := d.started, d.state(app).live
	d.mu.Unlock()
	if started {
		if m == nil {
			return false
		}
		r, _ := m.process()
		return r != nil
	}
	if live.Plan == nil {
		return false
	}
	_, err := d.Runner.Adopt(live.Plan.Process)
	return err == nil
}
