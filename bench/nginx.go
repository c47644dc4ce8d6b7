package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// reloadByHand has the server's nginx check and read its configuration as a person
// would, and returns how long that takes: nginx -t, nginx -s reload, and until all
// that take connections are workers that have read it.
func (w *world) reloadByHand(ctx context.Context) (time.Duration, error) {
	dir := filepath.Join(w.dir, "run", "nginx")
	text, err := os.ReadFile(filepath.Join(dir, "nginx.pid"))
	if err != nil {
		return 0, err
	}
	master := strings.TrimSpace(string(text))
	old := workers(master)
	begin := time.Now()
	for _, what := range [][]string{{"-t", "-q"}, {"-s", "reload"}} {
		if _, err := w.run(ctx, "/", "nginx", append([]string{"-p", dir, "-c", filepath.Join(dir, "nginx.conf")}, what...)...); err != nil {
			return 0, err
		}
	}
	for {
		now := workers(master)
		left := false
		for pid := range now {
			left = left || old[pid]
		}
		if len(now) > 0 && !left {
			return time.Since(begin), nil
		}
		if time.Since(begin) > time.Minute {
			return 0, fmt.Errorf("nginx has its old workers still: %v", now)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// workers are the processes of an nginx that take connections, by what they say
// of themselves.
func workers(master string) map[string]bool {
	found := map[string]bool{}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", master, master))
	for pid := range strings.FieldsSeq(string(children)) {
		title, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		if t := string(title); strings.Contains(t, "worker process") && !strings.Contains(t, "shutting down") {
			found[pid] = true
		}
	}
	return found
}
