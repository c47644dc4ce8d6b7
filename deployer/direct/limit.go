package direct

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
)

// rlimit is a limit of a process (setrlimit(2)).
type rlimit struct {
	resource   int
	option     string // prlimit(1)'s
	soft, hard uint64
}

// lastSeconds is how long a process that has used up its processor time has to
// end by SIGXCPU, which says why it ended, before SIGKILL.
const lastSeconds = 5

// rlimits are what is to be set, none above the server's own, which would need a right.
func rlimits(l deployer.ProcessLimits) []rlimit {
	var all []rlimit
	add := func(resource int, option string, v, more int64) {
		if v <= 0 {
			return
		}
		limit := rlimit{resource, option, uint64(v), uint64(v + more)}
		var own unix.Rlimit
		if unix.Getrlimit(resource, &own) == nil {
			limit.soft, limit.hard = min(limit.soft, own.Max), min(limit.hard, own.Max)
		}
		all = append(all, limit)
	}
	cpu := int64(l.CPU / time.Second)
	if l.CPU > 0 {
		cpu = max(cpu, 1)
	}
	add(unix.RLIMIT_DATA, "--data", l.Memory, 0)
	add(unix.RLIMIT_CPU, "--cpu", cpu, lastSeconds)
	add(unix.RLIMIT_FSIZE, "--fsize", l.FileSize, 0)
	return all
}

// limitedBy is a command that limits itself, by prlimit(1): from here a limit could
// come too late, and to set another user's takes CAP_SYS_RESOURCE, which the root of
// a container may lack. It is in util-linux, which every Debian has.
func limitedBy(args []string, limits []rlimit) []string {
	wrapped := []string{"prlimit"}
	for _, l := range limits {
		wrapped = append(wrapped, fmt.Sprintf("%s=%d:%d", l.option, l.soft, l.hard))
	}
	return append(append(wrapped, "--"), args...)
}

// limit limits a process of our own user, which its children inherit, where there is
// no prlimit(1). One that has ended needs none.
func limit(pid int, limits []rlimit) error {
	for _, l := range limits {
		if err := unix.Prlimit(pid, l.resource, &unix.Rlimit{Cur: l.soft, Max: l.hard}, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("limiting it: %s: %w", l.option, err)
		}
	}
	return nil
}
