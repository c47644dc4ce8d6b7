package systemd

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
)

// ending is how the main process of a unit ended.
type ending struct {
	result string // "success", "exit-code", "signal", "oom-kill", "timeout"
	code   int32  // of waitid(2): CLD_EXITED and so on, 0 where it is not known
	status int32
	memory bool // the kernel killed a process of the unit at its limit
}

// The codes of waitid(2).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// ended asks how the main process ended. The unit must not be unloaded.
func (r *Runner) ended(ctx context.Context, unit string) (e ending, err error) {
	if e.code, err = property[int32](ctx, &r.bus, unit, "Service", "ExecMainCode"); err != nil {
		return e, err
	}
	if e.status, err = property[int32](ctx, &r.bus, unit, "Service", "ExecMainStatus"); err != nil {
		return e, err
	}
	e.result, err = property[string](ctx, &r.bus, unit, "Service", "Result")
	return e, err
}

// finish waits, once the main process has ended or was told to, until nothing of
// the unit is left, and has it unloaded.
func (r *Runner) finish(ctx context.Context, u *started, patience time.Duration) (ending, error) {
	defer r.over(u.name)
	defer u.pidfd.Close()
	memory := u.memory.grown()
	ctx, cancel := context.WithTimeoutCause(ctx, patience+comeBack, fmt.Errorf(
		"process %d of unit %s does not end, not even by SIGKILL: it waits for a device or a file server", u.pid, u.name))
	defer cancel()
	s, err := r.bus.await(ctx, u.name, state.settled)
	if err != nil {
		return ending{}, err
	}
	if s.gone() {
		// Somebody stopped it, and it ended well: systemd keeps units that failed.
		return ending{result: "success"}, nil
	}
	e, err := r.ended(ctx, u.name)
	if err != nil {
		return e, err
	}
	e.memory = memory || u.memory.grown()
	return e, r.clear(ctx, u.name)
}

// signal is what ended it, 0 where it exited.
func (e ending) signal() unix.Signal {
	if e.code == cldKilled || e.code == cldDumped {
		return unix.Signal(e.status)
	}
	return 0
}

// outOfMemory tells that it ended because memory was short: systemd saw it, or
// the kernel killed a process and the main one was, or followed.
func (e ending) outOfMemory() bool {
	return e.result == "oom-kill" || e.memory && e.signal() == unix.SIGKILL
}

// exitError is nil for an exit with 0.
func (e ending) exitError(name string, l deployer.Limits) error {
	exit := &deployer.ExitError{Name: name, Status: int(e.status)}
	if sig := e.signal(); sig != 0 {
		exit.Status, exit.Signal = -1, unix.SignalName(sig)
	}
	if e.outOfMemory() {
		exit.Cause = l.OutOfMemory()
		return exit
	}
	if exit.Signal == "" && exit.Status == 0 {
		return nil
	}
	return exit
}

// words are those of an app's process, nil for an exit with 0.
func (e ending) words(l deployer.Limits) error {
	switch sig := e.signal(); {
	case e.outOfMemory():
		return &deployer.MemoryError{Limits: l}
	case sig != 0:
		return fmt.Errorf("killed by %s", unix.SignalName(sig))
	case e.status != 0:
		return fmt.Errorf("exited with %d", e.status)
	}
	return nil
}
