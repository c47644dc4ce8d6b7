package deployer

import (
	"errors"
	"path/filepath"
	"sync"
	"time"
)

// found is a process of an earlier server that still runs, nil where that cannot
// be told.
type found struct {
	rec     *Record
	running Running
}

// Looks for a process of an earlier server are repeated where they fail: a service
// manager may be slow to answer.
const (
	adoptTries = 5
	adoptPause = 500 * time.Millisecond
)

// find is the process of an earlier server, or ErrNotRunning. Any other error says
// that it may run all the same.
func (d *Deployer) find(p Process) (running Running, err error) {
	for n := range adoptTries {
		if running, err = d.Runner.Adopt(p); err == nil || errors.Is(err, ErrNotRunning) {
			return running, err
		}
		if n < adoptTries-1 {
			select {
			case <-time.After(adoptPause):
			case <-d.ctx.Done():
				return nil, err
			}
		}
	}
	return nil, err
}

// adopt finds what still runs: the instances that are live, and others that an
// earlier server was draining. Of unknown ones that cannot be told: they are left
// alone, and nothing is started beside them.
func (d *Deployer) adopt(names []string, lives map[string]*Record) (live, others, unknown []found) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	limit := make(chan struct{}, 8)
	for _, name := range names {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			l := d.layout(name)
			ids, err := l.instanceIDs()
			if err != nil {
				return
			}
			current := l.liveID()
			for _, id := range ids {
				rec := lives[name]
				if rec == nil || id != current || id != rec.Instance {
					if rec, err = readRecord(filepath.Join(l.instance(id), recordName)); err != nil {
						continue
					}
				}
				if !rec.Plan.runs() {
					continue
				}
				// A release that never went live has no right to go on.
				if id != current && !isThere(l.release(rec.Release)) {
					continue
				}
				running, err := d.find(rec.Plan.Process)
				if errors.Is(err, ErrNotRunning) {
					continue
				}
				mu.Lock()
				if err != nil {
					d.log.WithField("app", name).Errorf("whether v%d runs is not known, and it is left alone: %v; restart %s makes a new instance", rec.Release, err, name)
					unknown = append(unknown, found{rec: rec})
				} else if id == current && !l.isStopped() {
					live = append(live, found{rec, running})
				} else {
					others = append(others, found{rec, running})
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return live, others, unknown
}
