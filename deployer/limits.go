package deployer

import (
	"fmt"
	"time"

	"scotch/config"
)

// Limits are what a process and all that it starts may take together; 0 is no
// limit. A runner without control groups holds none of them.
type Limits struct {
	Memory int64 `json:",omitempty"` // bytes
	CPU    int   `json:",omitempty"` // hundredths of one processor
	Tasks  int   `json:",omitempty"` // processes and threads
	// Prefix is that of the keys in [limits], for words: "build_" or nothing.
	Prefix string `json:",omitempty"`
}

// ProcessLimits are limits of one process and of each that it starts, one by one
// (setrlimit(2)); 0 is no limit. They need no control groups.
type ProcessLimits struct {
	Memory   int64         // bytes of memory that it may write to (RLIMIT_DATA)
	CPU      time.Duration // of processor time, in whole seconds; SIGXCPU ends it then
	FileSize int64         // bytes of a file that it writes; SIGXFSZ ends it then
}

// OutOfMemory says, for the end of a process, that the kernel killed it at its
// limit, or where it has none, because the machine had no memory left.
func (l Limits) OutOfMemory() string {
	if l.Memory == 0 {
		return "out of memory (of the machine; [limits] " + l.Prefix + "memory is not set)"
	}
	size, unit := l.Memory, ""
	for _, u := range []string{"k", "m", "g"} {
		if size%1024 != 0 || size == 0 {
			break
		}
		size, unit = size/1024, u
	}
	return fmt.Sprintf("out of memory ([limits] %smemory = %d%s)", l.Prefix, size, unit)
}

// MemoryError is the end of a process that the kernel killed for want of memory.
type MemoryError struct{ Limits Limits }

func (e *MemoryError) Error() string { return "killed: " + e.Limits.OutOfMemory() }

func limitsOf(a *config.App, prefix string) Limits {
	l := a.LimitsOf(prefix)
	return Limits{Memory: l.Memory, CPU: l.CPU, Tasks: l.Tasks, Prefix: prefix}
}

// AppLimits are those of the app's processes.
func AppLimits(a *config.App) Limits { return limitsOf(a, "") }

// BuildLimits are those of the app's builds.
func BuildLimits(a *config.App) Limits { return limitsOf(a, "build_") }
