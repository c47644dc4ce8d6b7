package direct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Box is what the commands and processes of apps see of the machine, by
// bubblewrap (bwrap(1)): where no service manager confines them, and the server
// is root. It comes on top of users and modes.
//
// Seen is all that there is, to read; written are the directories that a command
// names (deployer.Command.Writes), a /tmp and a /var/tmp of its own, on disk, and
// a /dev of its own. A command that names none writes where its user may, outside
// of /usr, /etc and /boot.
//
// Commands have process ids and System V IPC of their own, so nothing that they
// leave running survives them, nor them the server. Processes that outlive the
// server have the machine's: uWSGI tells the numbers of its workers.
type Box struct {
	// Hidden are files and directories that are not there for them, those in it
	// neither.
	Hidden []string
	// Scratch is the directory for what is private, in one that is there when
	// something is started. It is made when it is needed, for root alone.
	Scratch string
	// Program is the one that calls Child when Arg is its only argument.
	Program string

	// Path is where bwrap is looked for, as in the variable PATH.
	Path string

	// For tests: also what does not change the user; and process ids are the machine's.
	Everybody, SharedIDs bool

	once  sync.Once
	bwrap string
	err   error // why there are no boxes
}

// ErrNoBubblewrap is in Try's error where the program is not installed.
var ErrNoBubblewrap = errors.New("bwrap is not there (package bubblewrap)")

// tryTimeout is how long a box may take to be made and to end.
const tryTimeout = 10 * time.Second

// Try finds bubblewrap and tries, once, whether it can do here what a box asks of
// it. The error says why not: in many containers nobody may make namespaces. Then
// there are no boxes, and what would be in one runs without.
func (b *Box) Try() error {
	b.once.Do(func() { b.err = b.try() })
	return b.err
}

func (b *Box) try() error {
	for dir := range strings.SplitSeq(b.Path, ":") {
		if p := filepath.Join(dir, "bwrap"); b.bwrap == "" && filepath.IsAbs(dir) && unix.Access(p, unix.X_OK) == nil {
			b.bwrap = p
		}
	}
	if b.bwrap == "" {
		return ErrNoBubblewrap
	}
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	// Not yet in Scratch, which lies where the server may be making directories still.
	tmp, err := os.MkdirTemp("", "scotch-box")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := furnish(tmp); err != nil {
		return err
	}
	args := append(b.args(tmp, []string{}, true), "--", "/bin/true")
	cmd := exec.CommandContext(ctx, b.bwrap, args[1:]...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = []string{}, "/", tryTimeout
	if out, err := cmd.CombinedOutput(); err != nil {
		line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
		if len(line) == 0 {
			return fmt.Errorf("bwrap: %w", err)
		}
		return errors.New(string(line))
	}
	return nil
}

// private makes the directory of what a box has for itself.
func (b *Box) private(name string) (dir string, err error) {
	if err := os.Mkdir(b.Scratch, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	dir = filepath.Join(b.Scratch, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := furnish(dir); err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	return dir, nil
}

// furnish makes what a box binds: the directories for /tmp and /var/tmp, and what
// lies over a hidden directory or file, as systemd has it for InaccessiblePaths=.
func furnish(dir string) error {
	for name, mode := range map[string]fs.FileMode{"tmp": 0o777 | fs.ModeSticky, "vartmp": 0o777 | fs.ModeSticky, "none": 0} {
		path := filepath.Join(dir, name)
		// The mode is set apart: the umask is the server's.
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, "nothing")
	return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0))
}

// args are bubblewrap's, up to the program that it is to start; what is bound ends
// with the server. Later ones lie over earlier ones.
func (b *Box) args(tmp string, writes []string, bound bool) []string {
	args := []string{"bwrap"}
	add := func(words ...string) { args = append(args, words...) }
	if writes == nil {
		add("--bind", "/", "/")
		for _, path := range []string{"/usr", "/boot", "/etc"} {
			add("--ro-bind-try", path, path)
		}
	} else {
		add("--ro-bind", "/", "/")
	}
	add("--bind", filepath.Join(tmp, "tmp"), "/tmp", "--bind", filepath.Join(tmp, "vartmp"), "/var/tmp")
	b.device(add)
	add("--unshare-ipc")
	if bound {
		add("--die-with-parent")
	}
	if bound && !b.SharedIDs {
		add("--unshare-pid", "--proc", "/proc")
	} else {
		add("--bind", "/proc", "/proc") // each process's files in it are its own to write
	}
	for _, path := range resolved(writes) {
		add("--bind", path, path)
	}
	for _, dir := range []string{"/tmp/", "/var/tmp/"} {
		if strings.HasPrefix(b.Program, dir) {
			add("--ro-bind", b.Program, b.Program)
		}
	}
	hidden := ""
	// D-Bus and its like lead to who starts programs for others, in no box.
	for _, path := range resolved(append([]string{b.Scratch, "/run/dbus", "/run/user"}, b.Hidden...)) {
		if hidden != "" && strings.HasPrefix(path, hidden+"/") {
			continue
		}
		hidden = path
		source := filepath.Join(tmp, "nothing")
		if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
			source = filepath.Join(tmp, "none")
		}
		add("--ro-bind", source, path)
	}
	return append(args, "--chdir", "/")
}

// device is a /dev with what harms nobody: as PrivateDevices= of systemd.exec(5),
// the terminals belong to their users, and a terminal of ours is among them.
func (b *Box) device(add func(...string)) {
	add("--tmpfs", "/dev")
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "pts"} {
		add("--dev-bind-try", "/dev/"+name, "/dev/"+name)
	}
	if to, err := os.Readlink("/dev/ptmx"); err == nil {
		add("--symlink", to, "/dev/ptmx")
	} else {
		add("--dev-bind-try", "/dev/ptmx", "/dev/ptmx")
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		add("--symlink", to, "/dev/"+name)
	}
	add("--perms", "1777", "--tmpfs", "/dev/shm")
}

// resolved are the paths that are there, without links, which would lead
// elsewhere while a box is made; each after those that it lies in.
func resolved(paths []string) []string {
	var out []string
	for _, p := range paths {
		if to, err := filepath.EvalSymlinks(p); err == nil && to != "/" {
			out = append(out, to)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sweep removes what boxes had for themselves that are not there any more.
func (b *Box) sweep(keep func(name string) bool) {
	entries, _ := os.ReadDir(b.Scratch)
	for _, e := range entries {
		if !keep(e.Name()) {
			os.RemoveAll(filepath.Join(b.Scratch, e.Name()))
		}
	}
}
