package deployer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Detached is a one-off command that goes on without its client, and without
// the server: <instances>/NAME/runs/N.json. Its output is in
// <logs>/NAME/run-N.log.
type Detached struct {
	Number  int `json:"run"`
	Release int `json:"release"`
	// Instance is the one that it runs in, which stays meanwhile.
	Instance string    `json:"instance"`
	By       string    `json:"by"`
	Key      string    `json:"key,omitempty"` // its fingerprint
	Started  time.Time `json:"started"`
	// Ended is when it was seen that it had; zero while it runs.
	Ended time.Time `json:"ended,omitzero"`
	// How it ended, "exited with 0".
	How     string   `json:"how,omitempty"`
	Process *Process `json:"process,omitempty"` // while it runs
}

// keepRuns is how many detached commands that have ended are remembered, with
// their logs.
const keepRuns = 20

// maxRuns is how many of an app may be under way: each has all of its [limits].
const maxRuns = 20

// detachedGrace is how long a detached command that is cancelled gets.
const detachedGrace = 10 * time.Second

func (l layout) runs() string          { return filepath.Join(l.dir, "runs") }
func (l layout) detached(n int) string { return filepath.Join(l.runs(), strconv.Itoa(n)+".json") }

func (d *Deployer) runLog(app string, n int) string {
	return filepath.Join(d.site.Paths.Logs, app, fmt.Sprintf("run-%d.log", n))
}

// Detach starts a one-off command that outlives its client and the server, and
// returns its number. Its terminal and its three streams are not used.
func (d *Deployer) Detach(o OneOff) (int, error) {
	_, leave, err := d.visit(d.ctx, o.App)
	if err != nil {
		return 0, err
	}
	defer leave()
	c, rec, err := d.oneOff(o)
	if err != nil {
		return 0, err
	}
	if err := d.begin(); err != nil {
		return 0, err
	}
	defer d.work.Done()
	d.runsLock.Lock()
	defer d.runsLock.Unlock()
	d.mu.Lock()
	underWay := len(d.state(o.App).runs)
	d.mu.Unlock()
	if underWay >= maxRuns {
		return 0, &RefusedError{
			Reason: fmt.Sprintf("%d detached commands of %q are under way, and no more may be at a time", underWay, o.App),
			Hint:   fmt.Sprintf("%s ps %s lists them, and cancel %s --run N ends one", d.SSH, o.App, o.App),
		}
	}
	l := d.layout(o.App)
	if err := d.files.MkdirAll("make-runs", l.runs(), d.site.DirMode); err != nil {
		return 0, err
	}
	numbers, err := l.runNumbers()
	if err != nil {
		return 0, err
	}
	n := 1
	if len(numbers) > 0 {
		n = numbers[len(numbers)-1] + 1
	}
	if err := d.files.MkdirAll("make-logs", filepath.Dir(d.runLog(o.App, n)), d.site.DirMode); err != nil {
		return 0, err
	}
	p := &Process{
		Name: fmt.Sprintf("%s/run-%d", o.App, n), Record: filepath.Join(l.runs(), fmt.Sprintf("%d.process", n)),
		Args: c.Args, Dir: c.Dir, Env: c.Env, User: c.User, Group: c.Group, Umask: c.Umask, Limits: c.Limits, Writes: c.Writes,
		Log: d.runLog(o.App, n), Grace: detachedGrace,
	}
	run := &Detached{Number: n, Release: rec.Release, Instance: rec.Instance, By: o.By.Name, Key: o.By.Key, Started: time.Now(), Process: p}
	// Written first: a process that no file names would be ended as a stray.
	if err := d.saveDetached(l, run); err != nil {
		return 0, err
	}
	running, err := d.Runner.Start(*p)
	if err != nil {
		return 0, errors.Join(err, d.files.Remove("forget-run", l.detached(n)))
	}
	d.watchDetached(o.App, run, running)
	d.forgetRuns(o.App, numbers)
	return n, nil
}

func (d *Deployer) saveDetached(l layout, r *Detached) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return d.files.Write("record-run", l.detached(r.Number), append(data, '\n'), 0o600)
}

func readDetached(path string) (*Detached, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Detached)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	return r, nil
}

// runNumbers lists the detached commands that are remembered, the oldest first.
func (l layout) runNumbers() ([]int, error) {
	entries, err := os.ReadDir(l.runs())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []int
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if n, err := strconv.Atoi(name); err == nil && n > 0 {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// watchDetached writes down how it ends, while the server runs.
func (d *Deployer) watchDetached(app string, r *Detached, running Running) {
	d.mu.Lock()
	s := d.state(app)
	if s.runs == nil {
		s.runs = map[int]detachedRun{}
	}
	s.runs[r.Number] = detachedRun{r, running}
	d.mu.Unlock()
	d.watchers.Go(func() {
		select {
		case <-running.Done():
		case <-d.ctx.Done():
			return
		}
		how := "exited with 0"
		if err := running.Err(); err != nil {
			how = err.Error()
		}
		if err := d.endDetached(app, r, how); err != nil {
			d.log.WithField("app", app).Warnf("recording the end of run %d: %v", r.Number, err)
		}
		d.mu.Lock()
		delete(s.runs, r.Number)
		d.mu.Unlock()
	})
}

// detachedRun is a detached command under way.
type detachedRun struct {
	*Detached
	running Running
}

func (d *Deployer) endDetached(app string, r *Detached, how string) error {
	l := d.layout(app)
	if !isThere(l.detached(r.Number)) {
		return nil // the app was destroyed
	}
	over := *r
	over.Ended, over.How, over.Process = time.Now(), how, nil // its environment holds secrets
	return errors.Join(d.files.Remove("forget-process", filepath.Join(l.runs(), fmt.Sprintf("%d.process", r.Number))), d.saveDetached(l, &over))
}

// forgetRuns removes what is left of the oldest that have ended.
func (d *Deployer) forgetRuns(app string, numbers []int) {
	l := d.layout(app)
	for _, n := range numbers[:max(0, len(numbers)-keepRuns)] {
		if r, err := readDetached(l.detached(n)); err == nil && r.Ended.IsZero() {
			continue
		}
		logs, _ := filepath.Glob(d.runLog(app, n) + "*") // and its rotated ones
		for _, path := range append(logs, l.detached(n)) {
			if err := d.files.Remove("forget-run", path); err != nil {
				d.log.WithField("app", app).Warnf("forgetting run %d: %v", n, err)
			}
		}
	}
}

// adoptRuns finds the detached commands again that an earlier server started.
func (d *Deployer) adoptRuns(names []string) (found map[string][]detachedRun) {
	found = map[string][]detachedRun{}
	for _, app := range names {
		l := d.layout(app)
		numbers, err := l.runNumbers()
		if err != nil {
			d.log.WithField("app", app).Warnf("finding its detached commands: %v", err)
		}
		for _, n := range numbers {
			r, err := readDetached(l.detached(n))
			if err != nil || r.Process == nil || !r.Ended.IsZero() {
				continue
			}
			running, err := d.Runner.Adopt(*r.Process)
			if err != nil {
				if err := d.endDetached(app, r, "ended while no server watched it"); err != nil {
					d.log.WithField("app", app).Warnf("recording the end of run %d: %v", n, err)
				}
				continue
			}
			found[app] = append(found[app], detachedRun{r, running})
		}
	}
	return found
}

// runsOf are the detached commands of an app that are under way, by number.
func (d *Deployer) runsOf(app string) []detachedRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []detachedRun
	for _, r := range d.state(app).runs {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b detachedRun) int { return a.Number - b.Number })
	return all
}

// CancelRun ends a detached command and what it started: SIGTERM, and SIGKILL
// after ten seconds.
func (d *Deployer) CancelRun(ctx context.Context, app string, n int) error {
	if _, err := d.app(app); err != nil {
		return err
	}
	for _, r := range d.runsOf(app) {
		if r.Number == n {
			return r.running.Stop(ctx)
		}
	}
	return d.noRun(app, n, "is under way")
}

// endRuns ends all detached commands of an app.
func (d *Deployer) endRuns(ctx context.Context, app string) error {
	var errs []error
	for _, r := range d.runsOf(app) {
		errs = append(errs, r.running.Stop(ctx))
	}
	return errors.Join(errs...)
}

func (d *Deployer) noRun(app string, n int, what string) error {
	hint := ""
	for _, r := range d.runsOf(app) {
		hint += fmt.Sprintf(", run %d of %s since %s", r.Number, Neutral(r.By), r.Started.Format(time.DateTime))
	}
	if hint != "" {
		hint = "under way: " + hint[2:]
	}
	if n == 0 {
		return &RefusedError{Reason: fmt.Sprintf("no detached command of %q %s", app, what), Hint: hint}
	}
	return &RefusedError{Reason: fmt.Sprintf("no run %d of %q %s", n, app, what), Hint: hint}
}

// RunLog writes the output of a detached command to out, of the last one for
// n = 0, and how it ended. With follow it stays until it ends.
func (d *Deployer) RunLog(ctx context.Context, app string, n int, follow bool, out io.Writer) error {
	if err := d.known(app); err != nil {
		return err
	}
	l := d.layout(app)
	numbers, err := l.runNumbers()
	if err != nil {
		return err
	}
	if n == 0 && len(numbers) > 0 {
		n = numbers[len(numbers)-1]
	}
	if !slices.Contains(numbers, n) {
		return d.noRun(app, n, "is known")
	}
	report := &lineWriter{r: NewReport(out)}
	path, at := d.runLog(app, n), int64(0)
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	for {
		// Looked at before the log: what it wrote last is not missed.
		r, err := readDetached(l.detached(n))
		over := err != nil || !r.Ended.IsZero()
		if fi, err := os.Stat(path); err == nil && fi.Size() < at { // rotated
			if at -= cutOff(path + ".1"); at < 0 || at > fi.Size() {
				at = 0
			}
		}
		read, err := copyFrom(report, path, at)
		at += read
		if err != nil {
			return err
		}
		switch {
		case over:
			report.Close()
			if r != nil {
				_, err = fmt.Fprintf(out, "scotch: run %d %s\n", n, Neutral(r.How))
			}
			return err
		case !follow:
			report.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.ctx.Done():
			return errFollowing
		case <-tick.C:
		}
	}
}
