package systemd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// bus is the connection to systemd. It is made at the first use, and anew when
// it was lost: systemd closes it when it executes itself again (systemctl
// daemon-reexec, as upgrades of libc do).
type bus struct {
	mu   sync.Mutex
	conn *dbus.Conn
}

// comeBack is how long systemd may take to answer again.
const comeBack = 10 * time.Second

func (b *bus) get() (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		if b.conn.Connected() {
			return b.conn, nil
		}
		b.conn.Close()
		b.conn = nil
	}
	// The context is the connection's, for as long as it lives. The private
	// socket needs no message bus; it is root's alone.
	conn, err := dbus.NewSystemdConnectionContext(context.Background())
	if err != nil {
		conn, err = dbus.NewSystemConnectionContext(context.Background())
	}
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	b.conn = conn
	return conn, nil
}

// do calls systemd, and once more where the connection was lost: f must bear
// being called twice.
func (b *bus) do(ctx context.Context, f func(context.Context, *dbus.Conn) error) error {
	deadline := time.Now().Add(comeBack)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		conn, err := b.get()
		if err == nil {
			if err = f(ctx, conn); !lost(ctx, err) {
				return err
			}
			b.drop(conn)
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// drop makes the next call connect anew.
func (b *bus) drop(conn *dbus.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == conn {
		conn.Close()
		b.conn = nil
	}
}

// lost tells that an error is the connection's, not an answer.
func lost(ctx context.Context, err error) bool {
	var answer godbus.Error
	return err != nil && ctx.Err() == nil && !errors.As(err, &answer)
}

// named tells whether an error is the D-Bus error of that name.
func named(err error, name string) bool {
	var e godbus.Error
	return errors.As(err, &e) && e.Name == name
}

const (
	errExists   = "org.freedesktop.systemd1.UnitExists"
	errNoUnit   = "org.freedesktop.systemd1.NoSuchUnit"
	errNoTarget = "org.freedesktop.systemd1.NoSuchProcess"
)

// The properties of units that are asked for, one by one: all of them at once
// makes systemd read every counter there is.
func property[T any](ctx context.Context, b *bus, unit, kind, name string) (T, error) {
	var p *dbus.Property
	err := b.do(ctx, func(ctx context.Context, c *dbus.Conn) (err error) {
		p, err = c.GetUnitTypePropertyContext(ctx, unit, kind, name)
		return err
	})
	var value T
	if err != nil {
		return value, fmt.Errorf("ask systemd for %s of %s: %w", name, unit, err)
	}
	value, ok := p.Value.Value().(T)
	if !ok {
		return value, fmt.Errorf("ask systemd for %s of %s: it is of type %s", name, unit, p.Value.Signature())
	}
	return value, nil
}

// state is what systemd says of a unit.
type state struct {
	active, sub string
	queued      bool // it waits for its turn
}

// settled tells that nothing changes by itself any more: the main process has
// ended, and where it failed, all that it left.
func (s state) settled() bool {
	return s.gone() || s.active == "failed" || s.exited()
}

func (s state) gone() bool   { return s.active == "inactive" && !s.queued }
func (s state) exited() bool { return s.active == "active" && s.sub == "exited" }

// runs tells that there is a process, also one that is just starting or ending.
func (s state) runs() bool { return !s.settled() }

func (b *bus) state(ctx context.Context, unit string) (s state, err error) {
	if s.active, err = property[string](ctx, b, unit, "Unit", "ActiveState"); err != nil {
		return s, err
	}
	if s.sub, err = property[string](ctx, b, unit, "Unit", "SubState"); err != nil || s.active != "inactive" {
		return s, err
	}
	job, err := property[[]any](ctx, b, unit, "Unit", "Job") // its number and its path
	if err != nil || len(job) != 2 || job[0] == uint32(0) {
		return s, err
	}
	s.queued = true
	return s, nil
}

// await polls a unit until done says so. systemd tells of changes by signals,
// but not across the loss of a connection; what is waited for here takes
// milliseconds, but for a stop, which is the process's own time.
func (b *bus) await(ctx context.Context, unit string, done func(state) bool) (state, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		s, err := b.state(ctx, unit)
		if err != nil || done(s) {
			return s, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
	}
}

// stop asks systemd to end a unit, and does not wait.
func (b *bus) stop(ctx context.Context, unit string) error {
	err := b.do(ctx, func(ctx context.Context, c *dbus.Conn) error {
		_, err := c.StopUnitContext(ctx, unit, "replace", nil)
		return err
	})
	if named(err, errNoUnit) {
		return nil
	}
	return err
}

// forget makes systemd unload a unit that failed.
func (b *bus) forget(ctx context.Context, unit string) error {
	err := b.do(ctx, func(ctx context.Context, c *dbus.Conn) error { return c.ResetFailedUnitContext(ctx, unit) })
	if named(err, errNoUnit) {
		return nil
	}
	return err
}

// kill sends a signal to all processes of a unit.
func (b *bus) kill(ctx context.Context, unit string, sig int32) error {
	err := b.do(ctx, func(ctx context.Context, c *dbus.Conn) error {
		return c.KillUnitWithTarget(ctx, unit, dbus.All, sig)
	})
	if named(err, errNoUnit) || named(err, errNoTarget) {
		return nil
	}
	return err
}
