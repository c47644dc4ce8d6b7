package direct

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer/process"
)

// spawn is what every start needs, of Run and of Start.
type spawn struct {
	args        []string
	dir         string
	env         []string
	user, group string
	umask       int
	record      string // "" for Run
	files       []*os.File
	limits      []rlimit
	tty         bool // the first of files is the session's controlling terminal
	app         bool // it works for one
	writes      []string
}

// child is a process that this server started and has not reaped.
type child struct {
	process *os.Process // where it is in a box: bubblewrap, which ends as it does
	box     *boxed
	pidfd   *process.PIDFD
	family  family
	record  record
	note    string // file
}

// waitBox waits until a box, whose command has ended, is gone.
func (c *child) waitBox() (*os.ProcessState, error) {
	if c.box == nil {
		return nil, nil
	}
	return c.box.shut()
}

// release lets go of everything but the process.
func (c *child) release() {
	c.family.stamps.drop(c.family.stamp)
	c.pidfd.Close()
	os.Remove(c.note)
}

// spawn starts a process as leader of a session of its own.
func (r *Runner) spawn(s spawn) (*child, error) {
	name := process.Name(s.args)
	fail := func(err error) (*child, error) {
		if s.user != "" {
			return nil, fmt.Errorf("start %s as user %q: %w", name, s.user, err)
		}
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if len(s.args) == 0 || s.args[0] == "" {
		return nil, errors.New("start a command: it names no program")
	}
	if s.dir != "" {
		// fork/exec would blame the program for a directory that is missing.
		if info, err := os.Stat(s.dir); err != nil {
			return fail(err)
		} else if !info.IsDir() {
			return fail(&os.PathError{Op: "chdir", Path: s.dir, Err: unix.ENOTDIR})
		}
	}
	path, err := process.LookPath(s.args[0], s.dir, s.env)
	if err != nil {
		return fail(err)
	}
	cred, err := process.Credential(s.user, s.group)
	if err != nil {
		return fail(err)
	}
	if len(s.limits) > 0 {
		switch itself, err := process.LookPath("prlimit", s.dir, s.env); {
		case err == nil:
			s.args, path, s.limits = limitedBy(append([]string{path}, s.args[1:]...), s.limits), itself, nil
		case cred != nil:
			return fail(err)
		}
	}
	token := r.token()
	attr := &os.ProcAttr{
		Dir:   s.dir,
		Env:   r.environ(s.env, token, s.record),
		Files: s.files,
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: s.tty, Credential: cred},
	}
	if s.tty && cred != nil {
		// For programs that open it by its name, /dev/stderr for instance.
		if err := errors.Join(s.files[0].Chown(int(cred.Uid), -1), s.files[0].Chmod(0o600)); err != nil {
			return fail(err)
		}
	}
	umask := s.umask
	if umask == 0 {
		umask = 0o022
	}
	boot, err := bootID()
	if err != nil {
		return fail(err)
	}
	c := &child{record: record{Boot: boot, When: time.Now(), Run: token, Record: s.record, Args: s.args}}
	if cred != nil && r.opts.Own != nil && r.opts.Own(s.user) {
		c.record.User = int(cred.Uid)
	}
	// From here on the number is no other process's.
	pin := func(pid int) (err error) {
		if c.pidfd, err = process.OpenPIDFD(pid); err != nil {
			return err
		}
		st, err := readStat(pid)
		if err != nil {
			c.pidfd.Close()
			return err
		}
		c.record.PID, c.record.Start = pid, st.start
		return nil
	}
	if r.boxes(s, cred) {
		if c.box, c.record.Stamp, err = r.box(s, path, token, cred, umask, pin); err != nil {
			return fail(err)
		}
		c.process, c.record.Private = c.box.bwrap, c.box.private
	} else {
		c.record.Stamp, err = r.stamps.on(func() (err error) {
			c.process, err = startOnThread(path, s.args, attr, umask, cred != nil, nil)
			return err
		})
		if err != nil {
			return fail(err)
		}
		if cred != nil {
			confine(c.process.Pid)
		} else {
			err = limit(c.process.Pid, s.limits)
		}
		if err == nil {
			err = pin(c.process.Pid)
		}
		if err != nil {
			r.stamps.drop(c.record.Stamp)
			c.process.Kill()
			c.process.Wait()
			return fail(err)
		}
	}
	c.family = r.family(c.record)
	c.note = r.note(c.record)
	return c, nil
}

// environ is env with the mark of this start. The mark comes last: programs
// that write a title over their arguments run over what comes first.
func (r *Runner) environ(env []string, token, record string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k == envSite || k == envRun || k == envRecord
	})
	out = append(out, envSite+"="+r.site, envRun+"="+token)
	if record != "" {
		out = append(out, envRecord+"="+record)
	}
	return out
}

// maxProcesses is how many processes and threads a user may have whom the server
// switches to: an end to forks without end, far above what apps need.
const maxProcesses = 8192

// confine limits a process of another user, as far as that goes without control
// groups: it leaves no core, which would hold its secrets. A failure is that it
// has ended.
func confine(pid int) {
	unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	var now unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_NPROC, nil, &now) == nil && now.Max > maxProcesses {
		unix.Prlimit(pid, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: maxProcesses, Max: maxProcesses}, nil)
	}
}

// startOnThread starts a process with a umask of its own, -1 for the server's,
// and where bare is set, so that no program gives it more rights than its user
// has: sudo and the like, prctl(2), PR_SET_NO_NEW_PRIVS, which is a thread's too.
//
// A umask belongs to a process, not to a thread, and is inherited by fork, so
// setting it here would change every file that the server writes meanwhile. A
// thread that has left the shared file system attributes, unshare(2) with
// CLONE_FS, has one to itself; it never comes back to the Go scheduler.
//
// A process that asks for a signal when its parent ends gets it when that thread
// ends (prctl(2), PR_SET_PDEATHSIG), which is when hold is closed, if it is there.
func startOnThread(path string, args []string, attr *os.ProcAttr, umask int, bare bool, hold <-chan struct{}) (*os.Process, error) {
	masked := umask >= 0 && umask != process.Umask()
	if !masked && !bare && hold == nil {
		return os.StartProcess(path, args, attr)
	}
	type result struct {
		p   *os.Process
		err error
	}
	done := make(chan result)
	var start func(onIt chan<- struct{})
	start = func(onIt chan<- struct{}) {
		runtime.LockOSThread() // without an unlock: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread can't end. While this goroutine sits on it,
			// another one gets another.
			defer runtime.UnlockOSThread()
			elsewhere := make(chan struct{})
			go start(elsewhere)
			<-elsewhere
			return
		}
		close(onIt)
		if hold != nil {
			defer func() { <-hold }()
		}
		if bare {
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				done <- result{nil, os.NewSyscallError("prctl", err)}
				return
			}
		}
		if !masked {
			p, err := os.StartProcess(path, args, attr)
			done <- result{p, err}
			return
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			p, err := os.StartProcess("/bin/sh", viaShell(path, args, umask), attr) // containers forbid it (seccomp)
			done <- result{p, err}
			return
		}
		unix.Umask(umask)
		p, err := os.StartProcess(path, args, attr)
		done <- result{p, err}
	}
	go start(make(chan struct{}))
	res := <-done
	return res.p, res.err
}

// viaShell lets a shell set the umask, and takes back the variables that the
// shell sets by itself.
func viaShell(path string, args []string, umask int) []string {
	const script = `umask "$0"; unset PWD OLDPWD; exec "$@"`
	return append([]string{"sh", "-c", script, fmt.Sprintf("%04o", umask), path}, args[1:]...)
}
