package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"scotch/deployer"
)

// running is an instance's process.
type running struct {
	*started
	r      *Runner
	title  string
	limits deployer.Limits
	grace  time.Duration
	record string

	done chan struct{}
	err  error // set before done is closed

}

// record says which unit a start gave. It is written before the unit is made,
// and names nothing that is not there: a unit's name is its instance's.
type record struct {
	Unit string `json:"unit"`
}

func readRecord(path string) (rec record, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(b, &rec); err != nil || rec.Unit == "" {
		return rec, fmt.Errorf("read %q: it names no unit: %w", path, errors.Join(err, fs.ErrInvalid))
	}
	return rec, nil
}

// Start implements deployer.Runner. The process must stay in the foreground:
// when it ends, what it left running is ended too. Its log is opened by the
// server and is made with mode 0640.
func (r *Runner) Start(p deployer.Process) (deployer.Running, error) {
	if !filepath.IsAbs(p.Record) {
		return nil, fmt.Errorf("start %s: the record %q is no absolute path", p.Name, p.Record)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer null.Close()
	// O_NOFOLLOW: root must not be sent to a file of an app's choice.
	log, err := os.OpenFile(p.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	defer log.Close()
	if p.Grace == 0 {
		p.Grace = r.opts.Grace
	}
	name := r.instanceUnit(p.Name)
	b, err := json.Marshal(record{name})
	if err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(p.Record, append(b, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(p.Record))); err != nil {
		return nil, fmt.Errorf("record the process of %s: %w", p.Name, err)
	}
	title := p.Name
	if app, instance, ok := strings.Cut(p.Name, "/"); ok {
		title = fmt.Sprintf("%s, instance %s", app, instance)
	}
	s, err := r.start(context.Background(), unit{
		name: name, title: title, app: appOf(p.Name),
		args: p.Args, dir: p.Dir, env: p.Env, user: p.User, group: p.Group, umask: p.Umask,
		limits: p.Limits, kill: "mixed", grace: p.Grace, oom: "continue", writes: p.Writes,
	}, []*os.File{null, log, log})
	if err != nil {
		os.Remove(p.Record)
		return nil, err
	}
	return r.watch(p, s), nil
}

// Adopt implements deployer.Runner. A record that is missing, or whose unit has
// no process any more, is deployer.ErrNotRunning; the words say how it ended.
func (r *Runner) Adopt(p deployer.Process) (deployer.Running, error) {
	rec, err := readRecord(p.Record)
	if errors.As(err, new(*fs.PathError)) && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find %s again: %w", p.Name, err)
	} else if err != nil {
		return nil, fmt.Errorf("find %s again: %w: %w", p.Name, deployer.ErrNotRunning, err)
	}
	if rec.Unit != r.instanceUnit(p.Name) {
		return nil, fmt.Errorf("find %s again: %w: its record names the unit %q", p.Name, deployer.ErrNotRunning, rec.Unit)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s, err := r.bus.state(ctx, rec.Unit)
	if err != nil {
		return nil, fmt.Errorf("find %s again: %w", p.Name, err)
	}
	if !s.runs() {
		err := fmt.Errorf("find %s again: unit %s: %w", p.Name, rec.Unit, deployer.ErrNotRunning)
		if e, eerr := r.ended(ctx, rec.Unit); eerr == nil && !s.gone() && e.words(p.Limits) != nil {
			err = fmt.Errorf("%w: it %w", err, e.words(p.Limits))
		}
		return nil, err
	}
	found, err := r.find(ctx, rec.Unit)
	if err != nil {
		return nil, fmt.Errorf("find %s again: %w", p.Name, err)
	}
	if p.Grace == 0 {
		p.Grace = r.opts.Grace
	}
	r.mu.Lock()
	r.mine[rec.Unit] = true
	r.mu.Unlock()
	return r.watch(p, found), nil
}

// watch starts the goroutine that waits for the end of the process. It ends
// with the process and takes no thread.
func (r *Runner) watch(p deployer.Process, s *started) *running {
	run := &running{
		started: s, r: r, title: p.Name, limits: p.Limits, grace: p.Grace, record: p.Record, done: make(chan struct{}),
	}
	go func() {
		defer close(run.done)
		s.wait()
		// What it left gets its own grace, and then the kernel its time.
		e, err := r.finish(context.Background(), s, p.Grace+killed)
		if err != nil {
			run.err = fmt.Errorf("ended; how is not known: %w", err)
		} else {
			run.err = e.words(p.Limits)
		}
		// A start that came meanwhile has written the same.
		if err == nil {
			run.forget()
		}
	}()
	return run
}

// forget removes the record. Whoever starts the instance again does so after
// done, and writes a new one.
func (p *running) forget() {
	if rec, err := readRecord(p.record); err == nil && rec.Unit == p.name {
		os.Remove(p.record)
	}
}

func (p *running) PID() int              { return p.pid }
func (p *running) Since() time.Time      { return p.since }
func (p *running) Done() <-chan struct{} { return p.done }

func (p *running) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// MemoryKills implements deployer.MemoryVictim. It fails once the process has ended.
func (p *running) MemoryKills() (int, error) {
	if p.memory == nil {
		return 0, fs.ErrNotExist
	}
	return memoryKills(p.memory.own)
}

// Signal returns os.ErrProcessDone when the process has ended.
func (p *running) Signal(sig int) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
	}
	err := p.pidfd.Signal(unix.Signal(sig))
	if errors.Is(err, fs.ErrClosed) {
		return os.ErrProcessDone
	}
	return err
}

// Stop has systemd stop the unit.
func (p *running) Stop(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	call := context.WithoutCancel(ctx)
	if err := p.r.bus.stop(call, p.name); err != nil {
		return fmt.Errorf("stop %s: %w", p.title, err)
	}
	t := time.NewTimer(p.grace + time.Second)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
	case <-ctx.Done():
	}
	if err := p.r.bus.kill(call, p.name, int32(unix.SIGKILL)); err != nil {
		return fmt.Errorf("stop %s: %w", p.title, err)
	}
	t.Reset(killed + time.Second)
	select {
	case <-p.done:
		return nil
	case <-t.C:
		return fmt.Errorf("stop %s: process %d does not end, not even by SIGKILL: it waits for a device or a file server", p.title, p.pid)
	}
}

var _ deployer.MemoryVictim = (*running)(nil)
