package deployer

import (
	"context"
	"fmt"
)

// Alive returns nil once the deployer's state could be had, which takes no time
// unless something holds it for good: the sign of life that a watchdog waits for.
func (d *Deployer) Alive(ctx context.Context) error {
	got := make(chan struct{})
	go func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		close(got)
	}()
	select {
	case <-got:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the deployer's state can't be had: %w", context.Cause(ctx))
	}
}

// OutOfMemory says how many processes of what is live the kernel has killed for
// want of memory, and at which limit; "" where none, or where nothing is known,
// as without a running server.
func (d *Deployer) OutOfMemory(app string) string {
	d.mu.Lock()
	m := d.state(app).live
	d.mu.Unlock()
	if m == nil {
		return ""
	}
	n := m.memoryKills()
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s killed: %s", pluralKilled(n), m.proc.Limits.OutOfMemory())
}

func pluralKilled(n int) string {
	if n == 1 {
		return "one of its processes was"
	}
	return fmt.Sprintf("%d of its processes were", n)
}

// Outdated says why the virtualenv of what is live of an app can't be relied on
// any more, "" where it can or nothing is live: its Python has changed.
func (d *Deployer) Outdated(ctx context.Context, app string) string {
	live, err := d.layout(app).live()
	if err != nil {
		return ""
	}
	return d.pythonChanged(ctx, live)
}
