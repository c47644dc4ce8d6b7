package deployer

import "context"

// What works on an app without its turn, a one-off command or what writes into the
// app's directory, is a guest of the app: a destroy lets none in once its plan is
// written, ends those that are there and waits until they have left. So nothing of a
// destroyed app runs on, and nobody makes its directory anew.

// guest is one of them.
type guest struct {
	end  context.CancelCauseFunc
	left chan struct{} // closed when it has
}

// visit lets a guest in. What it does ends with the returned context, and it calls
// leave then. It looks at the app after this: before, a destroy may come between.
func (d *Deployer) visit(ctx context.Context, app string) (visiting context.Context, leave func(), err error) {
	g := &guest{left: make(chan struct{})}
	visiting, g.end = context.WithCancelCause(ctx)
	d.mu.Lock()
	s := d.state(app)
	if s.guests == nil {
		s.guests = map[*guest]bool{}
	}
	s.guests[g] = true
	d.mu.Unlock()
	leave = func() {
		d.mu.Lock()
		delete(s.guests, g)
		d.mu.Unlock()
		g.end(nil)
		close(g.left)
	}
	// Only now: of this and endGuests one sees the other.
	if err := d.spared(app); err != nil {
		leave()
		return nil, nil, err
	}
	return visiting, leave, nil
}

// endGuests ends what works on an app whose destruction is written, and waits for it.
func (d *Deployer) endGuests(app string) {
	d.mu.Lock()
	var all []*guest
	for g := range d.state(app).guests {
		all = append(all, g)
	}
	d.mu.Unlock()
	for _, g := range all {
		g.end(&destroyingError{app: app})
	}
	for _, g := range all {
		<-g.left
	}
}
