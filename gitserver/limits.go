package gitserver

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are limits of each process (setrlimit(2)); git starts several for a
// push, and its hooks have them too. 0 is the default, less than 0 is none.
type Limits struct {
	// CPU is the processor time of one process. 0: 30 min; indexing the largest
	// of public repositories takes some 10.
	CPU time.Duration
	// Memory is what one process may write to in memory, in bytes (RLIMIT_DATA,
	// since Linux 4.7: it leaves out the packs that git maps to read, which
	// RLIMIT_AS would count). A pack of 16 KB can inflate to 3 GB. 0: 1 GiB.
	Memory int64
	// FileSize is the size of one file, in bytes. 0: none, as MaxPush bounds packs.
	FileSize int64
	// Files is the number of descriptors. 0: 1024.
	Files int
	// Processes is the number of processes of Credential's user, and is not
	// set without one: it would count all that the server's user runs. 0: 512.
	Processes int
}

// memory is Limits.Memory with its default, in bytes; less than 0: none.
func (l Limits) memory() int64 {
	if l.Memory == 0 {
		return 1 << 30
	}
	return l.Memory
}

// cpu is Limits.CPU with its default, in whole seconds; less than 0: none.
func (l Limits) cpu() int64 {
	if l.CPU == 0 {
		return 30 * 60
	}
	return max(int64(l.CPU/time.Second), min(int64(l.CPU), 1))
}

// limit is a limit of a process.
type limit struct {
	resource int    // RLIMIT_…
	option   string // prlimit(1)'s
	value    uint64
}

// limits are what is to be set. None is above the server's own, which would
// need a right.
func (o *GitOptions) limits() []limit {
	l := o.Limits
	out := []limit{{unix.RLIMIT_CORE, "--core", 0}}
	add := func(resource int, option string, v, fallback int64) {
		if v == 0 {
			v = fallback
		}
		if v <= 0 {
			return
		}
		value := uint64(v)
		var own unix.Rlimit
		if unix.Getrlimit(resource, &own) == nil {
			value = min(value, own.Max)
		}
		out = append(out, limit{resource, option, value})
	}
	add(unix.RLIMIT_CPU, "--cpu", l.cpu(), 0)
	add(unix.RLIMIT_DATA, "--data", l.memory(), 0)
	add(unix.RLIMIT_FSIZE, "--fsize", l.FileSize, 0)
	add(unix.RLIMIT_NOFILE, "--nofile", int64(l.Files), 1024)
	if o.Credential != nil {
		add(unix.RLIMIT_NPROC, "--nproc", int64(l.Processes), 512)
	}
	return out
}

// wrap puts prlimit(1) in front of a command that runs as another user: to set
// another user's limits from here takes CAP_SYS_RESOURCE, which a container's
// root or a hardened unit may lack. It is in util-linux, which every Debian has.
func (o *GitOptions) wrap(command []string) []string {
	if o.Credential == nil {
		return command
	}
	args := []string{"prlimit"}
	for _, l := range o.limits() {
		args = append(args, fmt.Sprintf("%s=%d", l.option, l.value))
	}
	return append(args, command...)
}

// limit sets the limits of a process of our own user, which its children inherit.
func (o *GitOptions) limit(pid int) error {
	if o.Credential != nil {
		return nil // wrap did
	}
	for _, l := range o.limits() {
		err := unix.Prlimit(pid, l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}, nil)
		if errors.Is(err, unix.ESRCH) {
			return nil // it has ended already, and will say why
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.option, err)
		}
	}
	return nil
}
