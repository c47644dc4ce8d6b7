package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"scotch/deployer"
	"scotch/deployer/process"
)

// unit is what every start needs, of Run and of Start.
type unit struct {
	name, title, app string
	args             []string
	dir              string
	env              []string
	user, group      string
	umask            int
	limits           deployer.Limits
	kill             string // KillMode
	grace            time.Duration
	oom              string // OOMPolicy
	writes           []string
}

// started is the main process of a unit.
type started struct {
	name   string
	pid    int
	since  time.Time
	pidfd  *process.PIDFD
	memory *memory // counts kills; nil where it is not known
}

// wait returns when the main process has ended.
func (s *started) wait() { s.pidfd.Wait(time.Time{}) }

// start starts a unit and returns once its program runs.
func (r *Runner) start(ctx context.Context, u unit, stdio []*os.File) (*started, error) {
	program := process.Name(u.args)
	fail := func(err error) (*started, error) {
		if u.user != "" {
			return nil, fmt.Errorf("start %s as user %q: %w", program, u.user, err)
		}
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	if len(u.args) == 0 || u.args[0] == "" {
		return nil, errors.New("start a command: it names no program")
	}
	if u.dir != "" {
		if info, err := os.Stat(u.dir); err != nil {
			return fail(err)
		} else if !info.IsDir() {
			return fail(&os.PathError{Op: "chdir", Path: u.dir, Err: unix.ENOTDIR})
		}
	}
	path, err := process.LookPath(u.args[0], u.dir, u.env)
	if err != nil {
		return fail(err)
	}
	if _, err := process.Credential(u.user, u.group); err != nil {
		return fail(err)
	}
	// What was begun with systemd is finished, or taken back.
	cancellable, ctx := ctx, context.WithoutCancel(ctx)
	r.mu.Lock()
	r.mine[u.name] = true
	r.mu.Unlock()
	what := handover{path, u.args, u.env}
	if err = r.launch(cancellable, ctx, u, what, stdio); err == errVanished {
		// systemd executed itself again just then. The program was not started.
		err = r.launch(cancellable, ctx, u, what, stdio)
	}
	var s *started
	if err == nil {
		s, err = r.find(ctx, u.name)
	}
	if err != nil {
		r.abandon(u.name)
		return fail(err)
	}
	return s, nil
}

// launch makes the unit and hands over what it is to run.
func (r *Runner) launch(cancellable, ctx context.Context, u unit, what handover, stdio []*os.File) error {
	p, err := newPipes()
	if err != nil {
		return err
	}
	defer p.close()
	if err := r.create(ctx, u, p.childConn); err != nil {
		return err
	}
	p.childConn.Close()
	sent := make(chan error, 1)
	go func() {
		err := send(p.conn, what, stdio, p.childStatus)
		if err == nil {
			p.childStatus.Close()
		}
		sent <- err
	}()
	if err := r.awaitExec(cancellable, ctx, u, p.status); err != nil {
		p.conn.SetWriteDeadline(time.Now())
		<-sent
		return err
	}
	return nil
}

// abandon takes back a start that failed.
func (r *Runner) abandon(unit string) {
	ctx, cancel := context.WithTimeout(context.Background(), killed)
	defer cancel()
	r.bus.kill(ctx, unit, int32(unix.SIGKILL))
	r.bus.stop(ctx, unit)
	r.bus.await(ctx, unit, func(s state) bool { return s.gone() || s.active == "failed" })
	r.bus.forget(ctx, unit)
	r.over(unit)
}

// over says that a unit is none of this runner's any more.
func (r *Runner) over(unit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mine, unit)
}

// create makes the unit. One of that name that is there already, because a
// server that was killed left it, goes first.
func (r *Runner) create(ctx context.Context, u unit, conn *os.File) error {
	props := r.properties(u, conn)
	deadline := time.Now().Add(u.grace + killed)
	for {
		err := r.bus.do(ctx, func(ctx context.Context, c *dbus.Conn) error {
			_, err := c.StartTransientUnitContext(ctx, u.name, "fail", props, nil)
			return err
		})
		if !named(err, errExists) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the unit %s of an earlier process does not end", u.name)
		}
		if err := r.clear(ctx, u.name); err != nil {
			return err
		}
	}
}

// clear ends a unit and has it unloaded.
func (r *Runner) clear(ctx context.Context, unit string) error {
	if err := r.bus.stop(ctx, unit); err != nil {
		return err
	}
	if _, err := r.bus.await(ctx, unit, func(s state) bool { return s.gone() || s.active == "failed" }); err != nil {
		return err
	}
	return r.bus.forget(ctx, unit)
}

// properties are those of the transient unit; systemd.exec(5),
// systemd.resource-control(5), and org.freedesktop.systemd1(5) for their types.
func (r *Runner) properties(u unit, conn *os.File) []dbus.Property {
	var props []dbus.Property
	set := func(name string, value any) {
		props = append(props, dbus.Property{Name: name, Value: godbus.MakeVariant(value)})
	}
	set("Description", "scotch: "+u.title)
	set("Slice", r.slice(u.app))
	// The start has succeeded once Child runs; it tells of the rest.
	set("Type", "exec")
	props = append(props, dbus.PropExecStart([]string{r.opts.Program, Arg}, false))
	set("StandardInputFileDescriptor", godbus.UnixFD(conn.Fd()))
	// How it ended can be asked for until it is told to go.
	set("RemainAfterExit", true)
	set("KillMode", u.kill)
	set("TimeoutStopUSec", uint64(u.grace/time.Microsecond))
	set("TimeoutStartUSec", uint64(startTimeout/time.Microsecond))
	// The kernel kills one process at the limit; this is about the others.
	set("OOMPolicy", u.oom)
	set("IgnoreSIGPIPE", false)
	// Apps end before the network does when the machine is shut down.
	set("After", []string{"network.target"})
	umask := u.umask
	switch {
	case umask == 0:
		umask = 0o022
	case umask < 0:
		if umask = process.Umask(); umask < 0 {
			umask = 0o022
		}
	}
	set("UMask", uint32(umask))
	if u.dir != "" {
		set("WorkingDirectory", u.dir)
	}
	if u.user != "" {
		set("User", u.user)
	}
	if u.group != "" {
		set("Group", u.group)
	}
	set("MemoryAccounting", true)
	set("CPUAccounting", true)
	set("TasksAccounting", true)
	if u.app != "" {
		props = append(props, confinement(u.writes, r.opts.Hidden)...)
	}
	if u.limits.Memory > 0 {
		set("MemoryMax", uint64(u.limits.Memory))
	}
	if u.limits.CPU > 0 {
		set("CPUQuotaPerSecUSec", uint64(u.limits.CPU)*10_000)
	}
	if u.limits.Tasks > 0 {
		set("TasksMax", uint64(u.limits.Tasks))
	}
	return props
}

var (
	errNotThere = errors.New("nothing came back from it")
	errVanished = errors.New("its unit was gone before anything was started")
)

// awaitExec returns when the program of a unit was started, or failed to, or the
// first context is done.
func (r *Runner) awaitExec(cancellable, ctx context.Context, u unit, status *os.File) error {
	told := make(chan error, 1)
	go func() {
		words, err := io.ReadAll(io.LimitReader(status, 4<<10))
		if rest, ok := strings.CutPrefix(string(words), string(arrived)); err == nil && (!ok || rest != "") {
			switch {
			case ok:
				err = errors.New(rest)
			case len(words) > 0:
				err = errors.New(string(words))
			default:
				err = errNotThere
			}
		}
		told <- err
	}()
	giveUp := time.NewTimer(startTimeout + 5*time.Second)
	defer giveUp.Stop()
	// Where systemd can't even start Child, nobody tells: its process may be
	// this socket's last holder, but so may systemd itself.
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-told:
			if err == errNotThere {
				told = nil // look why
				continue
			}
			return err
		case <-look.C:
			s, err := r.bus.state(ctx, u.name)
			if err != nil {
				return err
			}
			if s.runs() {
				continue
			}
			if told == nil {
				return r.whyNot(ctx, u)
			}
			select {
			case err := <-told: // it was as short as that
				if err != errNotThere {
					return err
				}
			case <-time.After(time.Second):
			}
			return r.whyNot(ctx, u)
		case <-cancellable.Done():
			return context.Cause(cancellable)
		case <-giveUp.C:
			return fmt.Errorf("systemd does not start the unit within %s\nlook at it: systemctl status %s", startTimeout, u.name)
		}
	}
}

// The exit statuses by which systemd says what failed before a program was
// started; systemd.exec(5), "Process Exit Codes".
func notStarted(status int32) string {
	switch status {
	case 200:
		return "it could not enter the directory"
	case 203:
		return "the user may not execute it, or it is not there"
	case 216:
		return "it could not take the group"
	case 217:
		return "it could not take the user"
	case 219:
		return "there is no such slice or control group"
	}
	return fmt.Sprintf("status %d", status)
}

// whyNot says why systemd could not start Child.
func (r *Runner) whyNot(ctx context.Context, u unit) error {
	e, err := r.ended(ctx, u.name)
	if err != nil {
		return err
	}
	if e.status == 0 || e.status == 127 { // it never ran, or found nobody to tell it what
		return errVanished
	}
	why := notStarted(e.status)
	if e.status == 203 {
		why = fmt.Sprintf("the user may not execute %s, or it is not there", r.opts.Program)
	}
	return fmt.Errorf("systemd could not start it: %s\nits own words: journalctl -u %s", why, strings.ReplaceAll(u.name, `\`, `\\`))
}

// find takes hold of the main process of a unit, which may have ended already.
func (r *Runner) find(ctx context.Context, unit string) (*started, error) {
	pid, err := property[uint32](ctx, &r.bus, unit, "Service", "ExecMainPID")
	if err != nil {
		return nil, err
	}
	since, err := property[uint64](ctx, &r.bus, unit, "Service", "ExecMainStartTimestamp")
	if err != nil {
		return nil, err
	}
	s := &started{name: unit, pid: int(pid), since: time.UnixMicro(int64(since))}
	if pid == 0 {
		return nil, fmt.Errorf("the unit %s has no process", unit)
	}
	s.pidfd, err = process.OpenPIDFD(s.pid)
	if errors.Is(err, unix.ESRCH) {
		s.pidfd = nil // nil waits for nothing
		return s, nil
	} else if err != nil {
		return nil, err
	}
	// The number may have changed hands before the hold.
	if now, err := property[uint32](ctx, &r.bus, unit, "Service", "MainPID"); err != nil {
		s.pidfd.Close()
		return nil, err
	} else if now != pid {
		s.pidfd.Close()
		s.pidfd = nil
		return s, nil
	}
	s.memory = r.countMemory(ctx, unit)
	return s, nil
}
