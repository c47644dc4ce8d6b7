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

// Outdated says why the virtualenv of what is live of an app can't be relied on
// any more, "" where it can or nothing is live: its Python has changed.
func (d *Deployer) Outdated(ctx context.Context, app string) string {
	live, err := d.layout(app).live()
	if err != nil {
		return ""
	}
	return d.pythonChanged(ctx, live)
}
