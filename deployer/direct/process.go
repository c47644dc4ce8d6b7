package direct

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
	"scotch/deployer/process"
)

// running is a process that outlives the server.
type running struct {
	r     *Runner
	rec   record
	name  string
	grace time.Duration
	child *child // nil where an earlier server started it
	pidfd *process.PIDFD
	path  string // of the record
	note  string

	done  chan struct{}
	err   error         // set before done is closed
	hurry chan struct{} // closed when nothing is waited for any more
	once  sync.Once
}

// Start implements deployer.Runner. The process must stay in the foreground:
// when it ends, what it left running is ended too. Its log is opened before
// privileges are dropped and is made with mode 0640.
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
	ch, err := r.spawn(spawn{
		args: p.Args, dir: p.Dir, env: p.Env, user: p.User, group: p.Group, umask: p.Umask,
		record: p.Record, files: []*os.File{null, log, log}, app: true, writes: p.Writes,
	})
	if err != nil {
		return nil, err
	}
	if err := ch.record.write(p.Record); err != nil {
		ch.family.signal(unix.SIGKILL)
		r.end(ch.family, 0, nil)
		ch.process.Wait()
		os.RemoveAll(ch.record.Private)
		ch.release()
		return nil, fmt.Errorf("record the process of %s: %w", p.Name, err)
	}
	return r.watch(&running{
		rec: ch.record, name: process.Name(p.Args), grace: p.Grace, child: ch, pidfd: ch.pidfd, path: p.Record, note: ch.note,
	}), nil
}

// Adopt implements deployer.Runner. A record that is missing, of another boot,
// or of a process that is gone is deployer.ErrNotRunning.
func (r *Runner) Adopt(p deployer.Process) (deployer.Running, error) {
	rec, err := readRecord(p.Record)
	if errors.As(err, new(*fs.PathError)) && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find %s again: %w", p.Name, err)
	} else if err != nil {
		return nil, fmt.Errorf("find %s again: %w: %w", p.Name, deployer.ErrNotRunning, err)
	}
	gone := fmt.Errorf("find %s again: process %d: %w", p.Name, rec.PID, deployer.ErrNotRunning)
	if !rec.alive() {
		return nil, gone
	}
	fd, err := process.OpenPIDFD(rec.PID)
	if errors.Is(err, unix.ESRCH) {
		return nil, gone
	} else if err != nil {
		return nil, fmt.Errorf("find %s again: %w", p.Name, err)
	}
	if !rec.alive() { // the number may have changed hands before the hold
		fd.Close()
		return nil, gone
	}
	r.stamps.keep(rec.Stamp)
	return r.watch(&running{
		rec: rec, name: process.Name(rec.Args), grace: p.Grace, pidfd: fd, path: p.Record,
		note: filepath.Join(r.site, "sessions", rec.Run+".json"),
	}), nil
}

// watch starts the goroutine that waits for the end of the process. It ends
// with the process and takes no thread.
func (r *Runner) watch(p *running) *running {
	p.r = r
	if p.grace == 0 {
		p.grace = r.opts.Grace
	}
	p.done, p.hurry = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.done)
		err := p.pidfd.Wait(time.Time{})
		// Before the leader is reaped: until then its number is nobody else's.
		left := r.end(r.family(p.rec), r.opts.Terminate, p.hurry)
		r.stamps.drop(p.rec.Stamp)
		if p.child != nil {
			var state *os.ProcessState
			if state, err = p.child.process.Wait(); err == nil {
				err = endedIn(state, p.child.box != nil)
			}
		} else if err == nil {
			err = errors.New("ended; how is not known, an earlier server started it")
		}
		if left != nil {
			err = errors.Join(err, left)
		}
		p.err = err
		p.rec.remove(p.path)
		os.Remove(p.note)
		if p.rec.Private != "" {
			os.RemoveAll(p.rec.Private) // what fails is swept by the next server
		}
		p.pidfd.Close()
	}()
	return p
}

func endedIn(state *os.ProcessState, boxed bool) error {
	err := exitError("", state, boxed)
	var exit *deployer.ExitError
	switch {
	case !errors.As(err, &exit):
		return err
	case exit.Signal != "":
		return fmt.Errorf("killed by %s", exit.Signal)
	}
	return fmt.Errorf("exited with %d", exit.Status)
}

func (p *running) PID() int              { return p.rec.PID }
func (p *running) Since() time.Time      { return p.rec.When }
func (p *running) Done() <-chan struct{} { return p.done }

func (p *running) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal returns os.ErrProcessDone when the process has ended.
func (p *running) Signal(sig int) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
	}
	err := p.pidfd.Signal(unix.Signal(sig))
	if errors.Is(err, os.ErrClosed) || errors.Is(err, fs.ErrClosed) {
		return os.ErrProcessDone
	}
	return err
}

// Stop sends SIGTERM to the process alone: it knows how to end its workers, and
// uWSGI's would drop their requests. What remains of the family when it has
// ended is ended by whoever watches it.
func (p *running) Stop(ctx context.Context) error {
	if err := p.Signal(int(unix.SIGTERM)); err == nil {
		p.Signal(int(unix.SIGCONT))
	} else if !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	t := time.NewTimer(p.grace)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
	case <-ctx.Done():
	}
	p.once.Do(func() { close(p.hurry) })
	if p.Signal(0) == nil { // not reaped, and so the group is ours
		p.r.family(p.rec).signal(unix.SIGKILL)
	}
	t.Reset(killed + time.Second)
	select {
	case <-p.done:
		return nil
	case <-t.C:
		return fmt.Errorf("stop %s: process %d does not end, not even by SIGKILL: it waits for a device or a file server", p.name, p.rec.PID)
	}
}
