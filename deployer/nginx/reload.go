package nginx

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"scotch/deployer"
)

const (
	// reloadPatience is how long workers may take to change. nginx reads all of
	// its configuration first, which takes seconds with thousands of servers.
	reloadPatience = 30 * time.Second
	reloadPoll     = 2 * time.Millisecond
)

// Reload makes nginx read its configuration and returns when every worker that
// takes new connections has it. Requests under way are finished by the old
// ones. nginx answers the command before it has done anything, and keeps the
// old workers when it can't use the configuration, so the workers are watched:
// an old one is gone, or says in its title that it is shutting down
// (ngx_worker_process_cycle). Where pid_path can't be read the command has to do.
func (n *NGINX) Reload(ctx context.Context, run deployer.Runner) error {
	master := n.master()
	old := workers(master)
	if _, set := n.named["reload_command"]; set || !hangUp(master) {
		if err := n.runReload(ctx, run, master); err != nil {
			return err
		}
	}
	if len(old) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, reloadPatience,
		fmt.Errorf("nginx still works by its old configuration after %s\nits error log says why", reloadPatience))
	defer cancel()
	tick := time.NewTicker(reloadPoll)
	defer tick.Stop()
	for !changed(master, old) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// hangUp sends a master the signal that makes it read its configuration
// (https://nginx.org/en/docs/control.html), and tells whether it got it. "nginx -s
// reload" does just that, after it has read all of the configuration itself, which
// was tested a moment ago: with 500 domains that takes as long as the test did.
func hangUp(master int) bool {
	if master == 0 {
		return false
	}
	p, err := os.FindProcess(master)
	if err != nil {
		return false
	}
	defer p.Release()
	// p is a handle, and stays the process whose title this is (pidfd_open(2)).
	return isMaster(master) && p.Signal(syscall.SIGHUP) == nil
}

func (n *NGINX) runReload(ctx context.Context, run deployer.Runner, master int) error {
	args := n.reload
	if n.standalone {
		args = n.own("-s", "reload")
	}
	var out bytes.Buffer
	cmd := deployer.Command{Args: args, Dir: "/", Env: environment(), Umask: -1, Stdout: &out, Stderr: &out, Timeout: reloadPatience}
	err := run.Run(ctx, cmd)
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(deployer.Neutral(strings.ReplaceAll(out.String(), "\n", "; "))); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	if master == 0 && !n.standalone {
		err = fmt.Errorf("%w\nnginx does not seem to run: start it (systemctl start nginx)", err)
	}
	return err
}

// master is the process of nginx's master, 0 where none is found.
func (n *NGINX) master() int {
	text, err := os.ReadFile(n.pidPath)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 || !isMaster(pid) {
		return 0 // left behind by one that was killed
	}
	return pid
}

func isMaster(pid int) bool { return strings.Contains(title(pid), "nginx: master process") }

// changed tells whether no old worker takes connections any more and a new one
// does. A master that has gone has no workers.
func changed(master int, old map[int]bool) bool {
	fresh := false
	for pid := range workers(master) {
		if old[pid] {
			return false
		}
		fresh = true
	}
	return fresh
}

// workers are the children of a master that take connections.
func workers(master int) map[int]bool {
	if master == 0 {
		return nil
	}
	found := make(map[int]bool)
	for _, pid := range children(master) {
		if t := title(pid); strings.Contains(t, "worker process") && !strings.Contains(t, "shutting down") {
			found[pid] = true
		}
	}
	return found
}

// children lists the children of a process that has one thread (proc(5),
// /proc/PID/task/TID/children), by way of every process where the kernel was
// built without that file.
func children(pid int) []int {
	var found []int
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		for _, f := range strings.Fields(string(own)) {
			if c, err := strconv.Atoi(f); err == nil {
				found = append(found, c)
			}
		}
		return found
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// The name is in parentheses and may hold anything, also ")".
		_, rest, ok := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if c, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			found = append(found, c)
		}
	}
	return found
}

// title is the command line of a process, as it shows itself.
func title(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return string(bytes.ReplaceAll(bytes.TrimRight(text, "\x00"), []byte{0}, []byte{' '}))
}
