package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"scotch/config"
)

// Release is one release of an app as `releases` shows it, or a deploy that failed.
type Release struct {
	Number  int       `json:"release,omitempty"` // from 1; none of a deploy that failed
	State   string    `json:"state"`             // "live", "kept", "removed"; "failed"
	Commit  string    `json:"commit"`
	Subject string    `json:"subject"`
	By      string    `json:"by"`
	When    time.Time `json:"when"`
	Seconds float64   `json:"seconds"` // from the beginning of its deploy to live
	Python  string    `json:"python"`
	From    string    `json:"dependencies,omitempty"`
	// Packages is what is installed, as Toolchain.Install returned it.
	Packages []string `json:"packages,omitempty"`
	// Undone says who took the release back, when and why.
	Undone *Undone `json:"undone,omitempty"`
	// Warning is what the watch after its switch saw of one that it left live.
	Warning string `json:"warning,omitempty"`
	// OutOfMemory says, of the live one, how many of its processes the kernel has
	// killed for want of memory, and at which limit.
	OutOfMemory string `json:"out_of_memory,omitempty"`
	// Failed is why it came to nothing.
	Failed *Failed `json:"failed,omitempty"`
}

// Failed is the end of a deploy that failed.
type Failed struct {
	Stage string `json:"stage,omitempty"` // "checkout", "register"; "" before the first
	Why   string `json:"why"`             // one line
	// Log is what DeployLog knows its log by, "" where that is gone.
	Log string `json:"log,omitempty"`
}

// Releases returns an app's newest n releases, all of them for n = 0, the newest
// first, and behind those the older ones that can still be rolled back to. Before
// them stand the last deploys that failed since the newest one. left is how many
// are left out. Its cost is that of what it returns, however many there are.
func (d *Deployer) Releases(app string, n int) (list []Release, left int, err error) {
	if err := d.known(app); err != nil {
		return nil, 0, err
	}
	l := d.layout(app)
	list, err = l.failedDeploys()
	list = append([]Release{}, list...)
	errs := []error{err}
	numbers, err := l.releaseNumbers()
	errs = append(errs, err)
	live, _ := l.live()
	shown := numbers
	if n > 0 && n < len(numbers) {
		shown = numbers[:n]
		older, err := l.present()
		errs = append(errs, err)
		for _, p := range older {
			if r := p.release.Release; r < shown[len(shown)-1] {
				shown = append(slices.Clip(shown), r)
			}
		}
	}
	for _, number := range shown {
		r, err := readRecord(l.release(number))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, d.shown(app, r, live))
	}
	return list, len(numbers) - len(shown), errors.Join(errs...)
}

// Release returns one release of an app; a *RefusedError where it has none of
// that number.
func (d *Deployer) Release(app string, n int) (Release, error) {
	if err := d.known(app); err != nil {
		return Release{}, err
	}
	l := d.layout(app)
	r, err := readRecord(l.release(n))
	if errors.Is(err, fs.ErrNotExist) {
		return Release{}, &RefusedError{Reason: fmt.Sprintf("app %q has no release v%d", app, n), Hint: fmt.Sprintf("%q lists them", "releases "+app)}
	}
	if err != nil {
		return Release{}, err
	}
	live, _ := l.live()
	return d.shown(app, r, live), nil
}

// shown is a release as `releases` shows it; live is what is live, nil where that
// is nothing or not known.
func (d *Deployer) shown(app string, r, live *Record) Release {
	rel := Release{
		Number: r.Release, State: "removed", Commit: r.Commit, Subject: Neutral(r.Subject), By: Neutral(r.By),
		When: r.firstLive(), Seconds: r.Took.Seconds(), Python: r.Interpreter.Version, From: r.Dependencies, Packages: r.Packages,
		Undone: r.Undone, Warning: Neutral(r.Warning),
	}
	switch {
	case live != nil && live.Release == r.Release:
		rel.State, rel.Undone, rel.OutOfMemory = "live", nil, d.OutOfMemory(app)
	case isThere(filepath.Join(d.layout(app).instance(r.Instance), recordName)):
		rel.State = "kept"
	}
	return rel
}

// ProcessStatus is one process of an app as `ps` shows it.
type ProcessStatus struct {
	App      string    `json:"app"`
	Release  int       `json:"release"`
	Instance string    `json:"instance"`
	State    string    `json:"state"` // "live", "warm", "retiring", "starting again"; "run 3" of a detached command
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Restarts int       `json:"restarts"`
	Memory   int64     `json:"memory,omitempty"` // bytes, resident, of all its processes
	// MemoryKills counts its processes that the kernel killed for want of memory.
	MemoryKills int   `json:"memory_kills,omitempty"`
	Requests    int64 `json:"requests"` // -1 where not known
}

// Usage is what an instance has done since its start, and takes.
type Usage struct {
	Requests int64 // answered
	Memory   int64 // bytes, resident, of all its processes
}

// Meter is an extra ability of an AppServer: the usage of an instance.
type Meter interface {
	Usage(ctx context.Context, p *Plan) (Usage, error)
}

// Processes lists the processes of an app, or of all for an empty name.
func (d *Deployer) Processes(ctx context.Context, app string) ([]ProcessStatus, error) {
	names := []string{app}
	if app == "" {
		var err error
		if names, err = d.names(); err != nil && len(names) == 0 {
			return nil, err
		}
	} else if err := d.known(app); err != nil {
		return nil, err
	}
	var list []ProcessStatus
	for _, n := range names {
		d.mu.Lock()
		s := d.state(n)
		members := make([]*member, 0, 1+len(s.retiring))
		states := make([]string, 0, cap(members))
		if s.live != nil {
			members, states = append(members, s.live), append(states, "live")
		}
		if s.vigil != nil && s.vigil.old != nil {
			members, states = append(members, s.vigil.old), append(states, "warm")
		}
		for _, m := range s.retiring {
			members, states = append(members, m), append(states, "retiring")
		}
		d.mu.Unlock()
		for i, m := range members {
			list = append(list, d.processStatus(ctx, m, states[i]))
		}
		for _, r := range d.runsOf(n) {
			list = append(list, ProcessStatus{
				App: n, Release: r.Release, Instance: r.Instance, State: fmt.Sprintf("run %d", r.Number),
				PID: r.running.PID(), Since: r.running.Since(), Requests: -1,
			})
		}
	}
	return list, nil
}

// usageTimeout keeps a process that hangs from holding up a list.
const usageTimeout = time.Second

func (d *Deployer) processStatus(ctx context.Context, m *member, state string) ProcessStatus {
	p := ProcessStatus{App: m.rec.App, Release: m.rec.Release, Instance: m.rec.Instance, State: state, Requests: -1}
	running, restarts := m.process()
	p.Restarts, p.MemoryKills = restarts, m.memoryKills()
	if running == nil {
		p.State = "starting again"
		return p
	}
	p.PID, p.Since = running.PID(), running.Since()
	if c, ok := d.AppServer.(Meter); ok && d.ours(m.rec.Plan) {
		ctx, cancel := context.WithTimeout(ctx, usageTimeout)
		defer cancel()
		if u, err := c.Usage(ctx, m.rec.Plan); err == nil {
			p.Requests, p.Memory = u.Requests, u.Memory
		}
	}
	return p
}

// URLPattern is where apps are reached, with NAME for their names.
func (d *Deployer) URLPattern() string {
	a := &config.App{Name: "NAME", URLPrefix: "/", Domains: []string{"*"}}
	if d.site.Domain != "" {
		a.Domains = []string{"NAME." + d.site.Domain}
	}
	return d.WebServer.URL(a)
}
