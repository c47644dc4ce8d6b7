package deployer

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// member is a process that the server keeps running: an instance of an app, or
// the web server. When it ends without having been told to, it is started
// again, after a pause that grows while it keeps ending.
type member struct {
	d     *Deployer
	name  string
	rec   *Record // nil for the web server
	proc  Process
	ready string // removed before each start

	mu       sync.Mutex
	running  Running // nil while it waits to be started again
	ending   bool
	restarts int
	killed   int           // processes that the kernel killed for want of memory, of starts that are over
	ended    chan struct{} // closed when it was told to end and is gone, or the server closes
	tenure   tenure
}

// tenure is since when a member serves without a break, and how many requests
// it had answered by then: health requests, and those of an earlier tenure.
type tenure struct {
	since    time.Time
	answered int64
}

func (m *member) serves() tenure {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tenure
}

func (m *member) setServes(t tenure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tenure = t
}

const (
	firstPause = time.Second
	longPause  = time.Minute
	// steady is how long a process must have run for its pauses to start anew.
	steady = time.Minute
)

// watch takes over a process that runs already.
func (d *Deployer) watch(name string, proc Process, ready string, rec *Record, running Running) *member {
	m := &member{d: d, name: name, proc: proc, ready: ready, rec: rec, running: running, ended: make(chan struct{})}
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		m.keep()
	}()
	return m
}

// endedMember is an instance whose process is gone, and that nothing starts again.
func (d *Deployer) endedMember(rec *Record) *member {
	m := &member{d: d, name: rec.Plan.Process.Name, proc: rec.Plan.Process, rec: rec, ending: true, ended: make(chan struct{})}
	close(m.ended)
	m.setServes(tenure{since: rec.Live})
	return m
}

func (m *member) keep() {
	defer close(m.ended)
	pause := firstPause
	for {
		m.mu.Lock()
		running := m.running
		m.mu.Unlock()
		if running != nil {
			select {
			case <-running.Done():
			case <-m.d.ctx.Done():
				return // the process goes on without us
			}
			m.mu.Lock()
			m.running = nil
			ending := m.ending
			if errors.As(running.Err(), new(*MemoryError)) {
				m.killed++
			}
			m.mu.Unlock()
			if ending {
				return
			}
			if time.Since(running.Since()) > steady {
				pause = firstPause
			}
			m.d.log.WithFields(map[string]any{"process": m.name, "pid": running.PID(), "error": running.Err()}).
				Warnf("ended by itself, starting it again in %s", pause)
		}
		select {
		case <-time.After(pause):
		case <-m.d.ctx.Done():
			return
		}
		pause = min(2*pause, longPause)
		m.mu.Lock()
		if m.ending {
			m.mu.Unlock()
			return
		}
		if m.ready != "" {
			os.Remove(m.ready)
		}
		started, err := m.d.Runner.Start(m.proc)
		if err == nil {
			m.running = started
			m.restarts++
			if m.rec != nil {
				m.d.restarts.Add(1)
			}
		}
		m.mu.Unlock()
		if err != nil {
			m.d.log.WithField("process", m.name).Errorf("cannot start it again: %v", err)
		}
	}
}

// end stops the process for good and returns when it is gone.
func (m *member) end(ctx context.Context) error {
	m.mu.Lock()
	m.ending = true
	running := m.running
	m.mu.Unlock()
	if running == nil {
		return nil
	}
	return running.Stop(ctx)
}

// process is the process as it runs now, nil while there is none.
func (m *member) process() (Running, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running, m.restarts
}

// memoryKills is how many of its processes the kernel has killed for want of
// memory, so far as that is known: since the server's or the instance's start.
func (m *member) memoryKills() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.killed
	if v, ok := m.running.(MemoryVictim); ok {
		if now, err := v.MemoryKills(); err == nil {
			n += now
		}
	}
	return n
}

// letGo says that the process is not to be started again when it ends.
func (m *member) letGo() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ending = true
}
