package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// project is a person's repository of an app, with the server as its remote scotch.
type project struct {
	w        *world
	app, dir string
}

func (w *world) project(ctx context.Context, app string) (*project, error) {
	p := &project{w, app, filepath.Join(w.home, "projects", app)}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := p.git(ctx, "init", "-q"); err != nil {
		return nil, err
	}
	_, err := p.git(ctx, "remote", "add", "scotch", w.remote(app))
	return p, err
}

func (w *world) remote(app string) string {
	return fmt.Sprintf("ssh://scotch@127.0.0.1:%d/%s", w.ssh, app)
}

func (p *project) git(ctx context.Context, args ...string) (string, error) {
	out, err := p.w.run(ctx, p.dir, "git", args...)
	return strings.TrimSpace(out), err
}

// commit writes files and commits all that is there.
func (p *project) commit(ctx context.Context, message string, files map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o644); err != nil {
			return err
		}
	}
	if _, err := p.git(ctx, "add", "-A"); err != nil {
		return err
	}
	_, err := p.git(ctx, "commit", "-q", "--allow-empty", "-m", message)
	return err
}

// line is something that a push said, and when, counted from the push's begin.
type line struct {
	at   time.Duration
	text string
}

// pushed is what came of a push.
type pushed struct {
	begin time.Time
	took  time.Duration
	lines []line
}

func (p pushed) String() string {
	var b strings.Builder
	for _, l := range p.lines {
		fmt.Fprintf(&b, "%7.3fs %s\n", l.at.Seconds(), l.text)
	}
	return b.String()
}

// find is when the first line came that has a text, and whether there was one.
func (p pushed) find(text string) (time.Duration, bool) {
	for _, l := range p.lines {
		if strings.Contains(l.text, text) {
			return l.at, true
		}
	}
	return 0, false
}

// push pushes what is checked out to a branch. It fails where the push is refused.
func (p *project) push(ctx context.Context, branch string, args ...string) (pushed, error) {
	to := &timedLines{begin: time.Now()}
	args = append(append([]string{"push"}, args...), "scotch", "HEAD:refs/heads/"+branch)
	err := p.w.runTo(ctx, to, p.dir, "git", args...)
	return pushed{begin: to.begin, took: time.Since(to.begin), lines: to.lines}, err
}

// timedLines notes when each line comes.
type timedLines struct {
	begin time.Time
	mu    sync.Mutex
	part  string
	lines []line
}

func (t *timedLines) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := time.Since(t.begin)
	t.part += string(b)
	for {
		text, rest, whole := strings.Cut(t.part, "\n")
		if !whole {
			return len(b), nil
		}
		t.part = rest
		t.lines = append(t.lines, line{at, text})
	}
}

// status is a process of an app, as ps --json tells it.
type status struct {
	App, State string
	PID        int
	Memory     int64
}

func (w *world) ps(ctx context.Context, app ...string) (list []status, err error) {
	out, err := w.scotch(ctx, append([]string{"ps", "--json"}, app...)...)
	if err != nil {
		return nil, err
	}
	return list, json.Unmarshal([]byte(out), &list)
}

// settle waits until nothing of an app runs but its live instance: no watch,
// nothing that is drained.
func (w *world) settle(ctx context.Context, app string) error {
	deadline := time.Now().Add(time.Minute)
	for {
		list, err := w.ps(ctx, app)
		if err != nil {
			return err
		}
		if len(list) == 1 && list[0].State == "live" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not settle: %+v", app, list)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// liveInstance is the directory of what an app serves.
func (w *world) liveInstance(app string) (string, error) {
	return filepath.EvalSymlinks(filepath.Join(w.dir, "instances", app, "current"))
}
