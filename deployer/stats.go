package deployer

// Stats are numbers of a running server.
type Stats struct {
	Apps     map[string]int // by state, as List has it, without a look at their files
	Waiting  int            // operations that wait for their app's turn or a deploy slot
	Running  int            // operations under way
	Restarts int64          // of apps' processes that ended by themselves, since the server's start
}

// Stats counts what the server knows. With 500 apps it reads one directory and
// looks at two names for each that does not run: no configuration, and no records
// but of those that are down.
func (d *Deployer) Stats() Stats {
	s := Stats{Apps: map[string]int{}, Restarts: d.restarts.Load()}
	for _, state := range []string{StateRunning, StateStarting, StateStopped, StateDown, StateNever} {
		s.Apps[state] = 0
	}
	names, _ := d.names() // a file of a wrong name is told of elsewhere
	for _, app := range names {
		l := d.layout(app)
		d.mu.Lock()
		var m *member
		starting := false
		if state := d.apps[app]; state != nil {
			m, starting = state.live, state.starting
		}
		d.mu.Unlock()
		var running Running
		if m != nil {
			running, _ = m.process()
		}
		switch {
		case running != nil:
			s.Apps[StateRunning]++
		case starting:
			s.Apps[StateStarting]++
		case l.liveID() == "":
			s.Apps[StateNever]++
		case l.isStopped():
			s.Apps[StateStopped]++
		default:
			state := StateDown
			if live, err := l.live(); err == nil && live.Plan != nil && !live.Plan.runs() {
				state = StateNotRun
			}
			s.Apps[state]++
		}
	}
	s.Waiting, s.Running = d.queue.count()
	return s
}

// count is how many operations of people wait, and how many are under way.
func (q *queue) count() (waiting, running int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, line := range q.lines {
		for i, t := range line {
			switch {
			case t.quiet:
			case i == 0:
				running++
			default:
				waiting++
			}
		}
	}
	return waiting, running
}
