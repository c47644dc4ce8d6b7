package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// GitOptions says how the stock git is run.
type GitOptions struct {
	// Dir is a directory of the server's own, absolute, for git's hooks and an
	// empty repository: Prepare fills it. Only the server may write there, git's
	// user must be able to read it. Required.
	Dir string
	// Program is git. Empty: the one in the server's PATH.
	Program string
	// Path is PATH for git and its hooks. Empty: the server's own.
	Path string
	// Mark is added to the environment of git and its hooks: variables by which
	// a later server finds processes that this one left. nil: none.
	Mark func() []string
	// Credential is who git and its hooks run as. nil: as the server.
	Credential *syscall.Credential
	// MaxPush is the most bytes of pack that one push may bring. 0: no limit.
	MaxPush int64
	// MaxObjects is the most objects that a push's pack may hold. 0: no limit.
	MaxObjects int64
	// Limits bound each process of git.
	Limits Limits
	// Grace is how long git may go on once the client has left and its push
	// is dealt with, before it is ended. 0: 30 s.
	Grace time.Duration
}

// protocolRE is what GIT_PROTOCOL may be: the only thing that a client's
// environment is used for (git(1), GIT_PROTOCOL).
var protocolRE = pattern(`^version=[0-2]$`)

func (o *GitOptions) hooks() string { return filepath.Join(o.Dir, "hooks") }

// empty is a bare repository without anything in it: what a push to an app
// that is not there yet is shown.
func (o *GitOptions) empty() string { return filepath.Join(o.Dir, "empty.git") }

// Prepare fills Dir: the hooks, links to executable (the scotch program, which
// is a hook when it is called by the name of one), and the empty repository.
// It may be called again, with pushes under way.
func (o *GitOptions) Prepare(executable string) error {
	if !filepath.IsAbs(o.Dir) {
		return fmt.Errorf("git's directory %q is not absolute", o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return fmt.Errorf("preparing git's directory: %w", err)
	}
	if err := WriteHooks(o.hooks(), executable); err != nil {
		return err
	}
	if err := o.writeEmpty(); err != nil {
		return fmt.Errorf("preparing the empty repository: %w", err)
	}
	return nil
}

// writeEmpty makes what gitrepository-layout(5) asks of a repository, no more.
func (o *GitOptions) writeEmpty() error {
	dir := o.empty()
	for _, d := range []string{"", "objects", "refs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"HEAD":   "ref: refs/heads/main\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if o.Credential != nil {
		// git refuses a repository that is not its user's (CVE-2024-32004).
		return os.Chown(dir, int(o.Credential.Uid), int(o.Credential.Gid))
	}
	return nil
}

// WriteHooks makes dir the folder that git's core.hooksPath names: a link to
// executable for each hook that scotch has.
func WriteHooks(dir, executable string) error {
	if !filepath.IsAbs(executable) {
		return fmt.Errorf("writing git's hooks: the program %q is not an absolute path", executable)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing git's hooks: %w", err)
	}
	for _, name := range []string{"pre-receive", "proc-receive", "post-receive"} {
		link := filepath.Join(dir, name)
		if to, err := os.Readlink(link); err == nil && to == executable {
			continue
		}
		// By rename, so that a push under way finds either.
		if err := os.Remove(link + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("writing git's hooks: %w", err)
		}
		if err := os.Symlink(executable, link+".new"); err != nil {
			return fmt.Errorf("writing git's hooks: %w", err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			return fmt.Errorf("writing git's hooks: %w", err)
		}
	}
	return nil
}

// settings are git's configuration (git-config(1)) on the command line, where it
// wins over a repository's own and goes on to git's children.
func (o *GitOptions) settings() []string {
	conf := []string{
		"core.hooksPath=" + o.hooks(),
		"core.fsmonitor=false",
		// What a repository's own file could have git start besides (Sound refuses
		// such a file; this is the second lock on the door).
		"core.alternateRefsCommand=true",
		"core.sshCommand=false",
		"gpg.program=false",
		"gpg.openpgp.program=false",
		"gpg.x509.program=false",
		"gpg.ssh.program=false",
		// A ref that was acknowledged survives a loss of power, and so does what it points to.
		"core.fsync=all",
		"core.fsyncMethod=fsync",
		// Which costs a sync per loose object: from some objects on (git's own
		// limit is 100) a pack is kept as it came.
		"receive.unpackLimit=20",
		// Larger blobs are streamed, not held in memory.
		"core.bigFileThreshold=32m",
		// scotch collects garbage itself, under the app's lock.
		"gc.auto=0",
		"maintenance.auto=false",
		"receive.autogc=false",
		// Everything is scotch's to decide, in proc-receive.
		"receive.procReceiveRefs=refs",
		"receive.denyDeletes=false",
		"receive.denyNonFastForwards=false",
		"receive.denyCurrentBranch=ignore",
		"receive.denyDeleteCurrent=ignore",
		"receive.shallowUpdate=true",
		// What scotch itself keeps is not shown to pushes. Others that may not be
		// pushed are for proc-receive to refuse: hidden ones never come to it, and
		// it must know of every ref of an atomic push.
		"receive.hideRefs=refs/releases",
		"receive.hideRefs=refs/scotch", // where fetches of [app] src lie
		"uploadpack.hideRefs=refs/scotch",
		"receive.advertiseAtomic=true",
		"receive.advertisePushOptions=true",
		// A deploy may be silent for minutes.
		"receive.keepAlive=5",
		"uploadpack.keepAlive=5",
		"transfer.advertiseSID=false",
		// Objects are checked, but not against the sins of old tools that
		// sit in the histories of well-known projects and harm nobody.
		"transfer.fsckObjects=true",
		"receive.fsck.zeroPaddedFilemode=ignore",
		"receive.fsck.zeroPaddedDate=ignore",
		"receive.fsck.badTimezone=ignore",
		"receive.fsck.badDate=ignore",
		"receive.fsck.badDateOverflow=ignore",
		"receive.fsck.badFilemode=ignore",
		"receive.fsck.badEmail=ignore",
		"receive.fsck.missingEmail=ignore",
		"receive.fsck.missingNameBeforeEmail=ignore",
		"receive.fsck.missingSpaceBeforeEmail=ignore",
		"receive.fsck.missingSpaceBeforeDate=ignore",
		"receive.fsck.badName=ignore",
		"receive.fsck.badTagName=ignore",
		"receive.fsck.missingTaggerEntry=ignore",
	}
	if o.MaxPush > 0 {
		conf = append(conf, "receive.maxInputSize="+strconv.FormatInt(o.MaxPush, 10))
	}
	args := make([]string, 0, 2*len(conf))
	for _, c := range conf {
		args = append(args, "-c", c)
	}
	return args
}

// environment is all that git sees of it; hooks see what git adds.
func (o *GitOptions) environment(g *gitRun) []string {
	path := o.Path
	if path == "" {
		path = os.Getenv("PATH")
	}
	env := []string{
		"PATH=" + path,
		"HOME=/nonexistent",
		"LANG=C.UTF-8",
		"LC_ALL=C.UTF-8",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_NO_REPLACE_OBJECTS=1",
		"GIT_TERMINAL_PROMPT=0",
	}
	if g.protocol != "" {
		env = append(env, "GIT_PROTOCOL="+g.protocol)
	}
	if g.hook != nil {
		env = append(env, hookFD+"=3")
	}
	if o.Mark != nil {
		env = append(env, o.Mark()...)
	}
	return env
}

// hookFD tells git's hooks which descriptor is their socket to the server.
const hookFD = "SCOTCH_HOOK_FD"

// gitRun is one run of git.
type gitRun struct {
	service  service
	options  []string // before the directory
	dir      string
	stdin    io.Reader       // nil: none; read until it ends, also after git did
	copying  *sync.WaitGroup // counts what reads stdin
	stdout   io.Writer
	stderr   io.Writer
	protocol string
	hook     *os.File // descriptor 3; closed by run once git has it
}

// run runs git and returns its exit status when it and all that it started have
// ended. When ctx is done they are ended: SIGTERM, on which git removes its
// temporary files, then SIGKILL.
func (o *GitOptions) run(ctx context.Context, g *gitRun) (int, error) {
	if g.hook != nil {
		defer g.hook.Close()
	}
	program := o.Program
	if program == "" {
		program = "git"
	}
	args := o.wrap(slices.Concat([]string{program}, o.settings(), []string{string(g.service)}, g.options, []string{g.dir}))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = o.environment(g)
	cmd.Dir = o.Dir
	cmd.Stdout, cmd.Stderr = g.stdout, g.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: o.Credential}
	cmd.WaitDelay = 5 * time.Second // for a descriptor that left the session
	if g.hook != nil {
		cmd.ExtraFiles = []*os.File{g.hook}
	}
	var in io.WriteCloser
	if g.stdin != nil {
		var err error
		if in, err = cmd.StdinPipe(); err != nil {
			return 1, fmt.Errorf("running git: %w", err)
		}
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("running git: %w", err)
	}
	if g.hook != nil {
		g.hook.Close()
	}
	pid := cmd.Process.Pid
	// Before it has read anything, and so before it has any children.
	if err := o.limit(pid); err != nil {
		unix.Kill(-pid, unix.SIGKILL)
		cmd.Wait()
		return 1, fmt.Errorf("limiting git: %w", err)
	}
	if in != nil {
		// Not waited for here: a client may keep its side open as long as it
		// keeps the channel, after git's end too.
		g.copying.Go(func() {
			io.Copy(in, g.stdin)
			in.Close()
		})
	}

	exited := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		select {
		case <-exited:
			return
		case <-ctx.Done():
		}
		unix.Kill(-pid, unix.SIGTERM)
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			unix.Kill(-pid, unix.SIGKILL)
		}
	})
	// The process is looked at before it is reaped: as long as it is a zombie its
	// number is taken, and the signal to the rest of its group can't hit others.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	close(exited)
	killer.Wait()
	unix.Kill(-pid, unix.SIGKILL)
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case errors.As(err, &exit):
		return 1, fmt.Errorf("git %s: %w", g.service, err)
	case err != nil && cmd.ProcessState != nil && cmd.ProcessState.Success():
		return 0, nil // the client could not be written to any more
	case err != nil:
		return 1, fmt.Errorf("running git: %w", err)
	}
	return 0, nil
}
