package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
)

// Strays implements deployer.Runner. It never touches what this runner started
// or adopted itself, or a unit of another site. What it returns counts units,
// and the processes of the server's own commands. When ctx is done it kills at
// once what it would have asked to end.
func (r *Runner) Strays(ctx context.Context, keep []string) (int, error) {
	n := 0
	var errs []error
	if r.opts.Own != nil {
		own, err := r.opts.Own.Strays(ctx, keep)
		n, errs = own, append(errs, err)
	}
	mine, err := r.strays(ctx, keep)
	if err != nil {
		err = fmt.Errorf("end what an earlier server left running: %w", err)
	}
	return n + mine, errors.Join(append(errs, err)...)
}

func (r *Runner) strays(ctx context.Context, keep []string) (int, error) {
	kept := map[string]bool{}
	for _, path := range keep {
		if rec, err := readRecord(path); err == nil {
			kept[rec.Unit] = true
		}
	}
	call := context.WithoutCancel(ctx)
	var units []dbus.UnitStatus
	err := r.bus.do(call, func(ctx context.Context, c *dbus.Conn) (err error) {
		units, err = c.ListUnitsByPatternsContext(ctx, nil, r.patterns())
		return err
	})
	if err != nil {
		return 0, err
	}
	var left []string
	n := 0
	r.mu.Lock()
	for _, u := range units {
		if u.LoadState == "not-found" || kept[u.Name] || r.mine[u.Name] {
			continue
		}
		left = append(left, u.Name)
		if (state{u.ActiveState, u.SubState, u.JobId != 0}).runs() {
			n++
		}
	}
	r.mu.Unlock()
	var errs []error
	for _, u := range left {
		errs = append(errs, r.bus.stop(call, u))
	}
	// Their own patience may be an hour; nobody waits for them any more.
	patient, cancel := context.WithTimeout(ctx, r.opts.Terminate)
	defer cancel()
	for _, u := range left {
		errs = append(errs, r.endStray(call, patient, u))
	}
	return n, errors.Join(errs...)
}

func (r *Runner) endStray(call, patient context.Context, unit string) error {
	over := func(s state) bool { return s.gone() || s.active == "failed" }
	if _, err := r.bus.await(patient, unit, over); err != nil && patient.Err() != nil {
		if err := r.bus.kill(call, unit, int32(unix.SIGKILL)); err != nil {
			return err
		}
		wait, cancel := context.WithTimeoutCause(call, killed+time.Second, fmt.Errorf("unit %s does not end, not even by SIGKILL", unit))
		defer cancel()
		if _, err := r.bus.await(wait, unit, over); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return r.bus.forget(call, unit)
}
