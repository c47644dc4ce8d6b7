package systemd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory counts the processes that the kernel killed at a limit of memory. nil
// counts nothing.
type memory struct {
	own    string // the file of the unit's control group
	parent string // that of its slice, which outlives it; version 2 only
	before int    // in parent, at the start
}

// countMemory begins to count for a unit that runs. In version 2 of control
// groups a group's memory.events has its children's too, so that the slice tells
// of a unit that is gone (but not apart from its sisters); in version 1 it
// hasn't, and memory.oom_control of a group that is gone can't be read.
func (r *Runner) countMemory(ctx context.Context, unit string) *memory {
	group, err := property[string](ctx, &r.bus, unit, "Service", "ControlGroup")
	if err != nil || group == "" {
		return nil
	}
	return openMemory(r.cgroup, group)
}

func openMemory(root, group string) *memory {
	if own := filepath.Join(root, "memory", group, "memory.oom_control"); exists(own) {
		return &memory{own: own}
	}
	m := &memory{own: filepath.Join(root, group, "memory.events"), parent: filepath.Join(root, filepath.Dir(group), "memory.events")}
	m.before, _ = memoryKills(m.parent)
	return m
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// grown tells whether a process of the unit was killed, so far as that can be
// known any more.
func (m *memory) grown() bool {
	if m == nil {
		return false
	}
	if n, err := memoryKills(m.own); err == nil {
		return n > 0
	}
	if m.parent == "" {
		return false
	}
	n, err := memoryKills(m.parent)
	return err == nil && n > m.before
}

// memoryKills reads the count out of memory.events or memory.oom_control.
func memoryKills(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if n, ok := strings.CutPrefix(string(line), "oom_kill "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, nil
}
