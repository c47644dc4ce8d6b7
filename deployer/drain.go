package deployer

import (
	"context"
	"time"
)

// Drainer is an extra ability of a WebServer or an AppServer: it counts the
// requests that an instance's socket still has, under way or waiting to be
// accepted.
type Drainer interface {
	Pending(ctx context.Context, socket string) (int, error)
}

const (
	drainPoll = 50 * time.Millisecond
	// drainQuiet is how many looks in a row must find nothing: a connection
	// that the web server is just making shows in the second.
	drainQuiet = 2
)

// retire lets an instance that is no longer named by current finish its
// requests and then ends it, in the background. A server that stops meanwhile
// leaves it to the next one.
func (d *Deployer) retire(app string, m *member) {
	d.mu.Lock()
	d.state(app).retiring[m.rec.Instance] = m
	d.mu.Unlock()
	m.letGo()
	d.watchers.Add(1)
	go func() {
		defer d.watchers.Done()
		d.drain(d.ctx, m)
		if d.ctx.Err() != nil {
			return
		}
		if err := m.end(d.ctx); err != nil {
			d.log.WithField("process", m.name).Warnf("ending it: %v", err)
		}
		d.mu.Lock()
		delete(d.state(app).retiring, m.rec.Instance)
		d.mu.Unlock()
		d.sweep(app)
	}()
}

// drain waits until the instance has no request any more, its grace is over,
// its process is gone, or ctx is done.
func (d *Deployer) drain(ctx context.Context, m *member) {
	dr, ok := d.WebServer.(Drainer)
	if !ok {
		dr, ok = d.AppServer.(Drainer)
		ok = ok && d.ours(m.rec.Plan)
	}
	running, _ := m.process()
	if !ok || running == nil || m.rec.Plan == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.rec.Grace)
	defer cancel()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for quiet := 0; quiet < drainQuiet; {
		n, err := dr.Pending(ctx, m.rec.Plan.Socket)
		switch {
		case err != nil:
			d.log.WithField("process", m.name).Warnf("counting its requests: %v", err)
			return
		case n == 0:
			quiet++
		default:
			quiet = 0
		}
		select {
		case <-tick.C:
		case <-running.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}
