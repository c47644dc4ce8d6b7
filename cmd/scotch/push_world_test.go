package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"scotch/bench/traffic"
)

// pushWorld is a server that is pushed to with the real git and ssh, for tests
// that are no scripts. What a test does is noted as steps; they are printed,
// with the end of the server's log, when the test fails.
type pushWorld struct {
	*world
	t    *testing.T
	home string

	mu    sync.Mutex
	begin time.Time
	steps []string
}

// patience bounds each program that a test runs.
const patience = 2 * time.Minute

func newPushWorld(t *testing.T) *pushWorld {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a server; run without -short")
	}
	return newPushWorldOf(t, buildProgram(t))
}

// newPushWorldOf is newPushWorld with a program that the test has built.
func newPushWorldOf(t *testing.T, program string) *pushWorld {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sp") // short, for the sake of socket paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &pushWorld{
		world: &world{program: program, dir: filepath.Join(dir, "v"), ssh: freePort(), http: freePort(), log: &lockedBuffer{}},
		t:     t, home: dir, begin: time.Now(),
	}
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, ".ssh", "id_ed25519")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	config := "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n[gc]\n\tauto = 0\n"
	if err := os.WriteFile(filepath.Join(dir, "gitconfig"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	w.env = append(os.Environ(), "HOME="+dir, "GORACE="+quickRace, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+filepath.Join(dir, "gitconfig"),
		fmt.Sprintf("GIT_SSH_COMMAND=ssh -F /dev/null -o IdentitiesOnly=yes -o UserKnownHostsFile=%s/known_hosts -o StrictHostKeyChecking=accept-new -o BatchMode=yes -o LogLevel=ERROR -i %s", dir, key))
	t.Cleanup(w.finish)
	return w
}

// serve starts the server and fails the test where it does not come up.
func (w *pushWorld) serve() {
	w.t.Helper()
	_, err := os.Stat(filepath.Join(w.dir, "scotch.cfg"))
	isNew := err != nil
	if err := w.start(); err != nil {
		w.t.Fatal(err)
	}
	if isNew {
		if err := w.siteOf(os.Getenv(pluginSite)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// configureServer sets a key of [server] in the server's site file, before its start.
func (w *pushWorld) configureServer(key, value string) {
	w.t.Helper()
	w.serve()
	if err := w.end(syscall.SIGINT); err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.dir, "scotch.cfg")
	text, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("[server]\n"), []byte("[server]\n"+key+" = "+value+"\n"), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *pushWorld) finish() {
	if w.t.Failed() || testing.Verbose() {
		w.mu.Lock()
		w.t.Logf("the steps:\n%s", strings.Join(w.steps, "\n"))
		w.mu.Unlock()
	}
	if w.t.Failed() {
		w.t.Logf("the end of the server's log:\n%s", lastLines(w.log.String(), 80))
	}
	if w.server == nil && len(w.processes()) > 0 {
		if err := w.start(); err != nil { // to end the apps
			w.t.Error(err)
		}
	}
	if err := w.end(syscall.SIGINT); err != nil {
		w.t.Error(err)
	}
	for _, pid := range w.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		w.t.Errorf("process %d is left: %q", pid, bytes.ReplaceAll(line, []byte{0}, []byte(" ")))
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// step notes what is done. It may be called from any goroutine.
func (w *pushWorld) step(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, fmt.Sprintf("%7.2fs %3d %s", time.Since(w.begin).Seconds(), len(w.steps)+1, fmt.Sprintf(format, args...)))
}

// run runs a program to its end and returns its output and exit status, -1
// where it could not be run or took too long. It may be called from any
// goroutine.
func (w *pushWorld) run(dir, name string, args ...string) (string, int) {
	var out lockedBuffer
	status := w.runTo(&out, dir, name, args...)
	return out.String(), status
}

// runTo is run, for output that is looked at as it comes.
func (w *pushWorld) runTo(out *lockedBuffer, dir, name string, args ...string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, w.env
	cmd.Stdout, cmd.Stderr = out, out
	// With ssh, which holds the output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprint(out, err)
		return -1
	}
	return cmd.ProcessState.ExitCode()
}

// scotch runs a command on the server.
func (w *pushWorld) scotch(args ...string) (string, int) {
	return w.run(w.home, w.program, append([]string{"-c", filepath.Join(w.dir, "scotch.cfg")}, args...)...)
}

func (w *pushWorld) must(args ...string) string {
	w.t.Helper()
	out, status := w.scotch(args...)
	if status != 0 {
		w.t.Fatalf("scotch %v exits with %d\n%s", args, status, out)
	}
	return out
}

// releases reads an app's releases as `releases --json` lists them, the newest
// first, without the deploys that failed.
func (w *pushWorld) releases(app string) []listedRelease {
	w.t.Helper()
	var list []listedRelease
	if err := json.Unmarshal([]byte(w.must("releases", app, "-n", "0", "--json")), &list); err != nil {
		w.t.Fatalf("releases %s --json: %v", app, err)
	}
	return slices.DeleteFunc(list, func(r listedRelease) bool { return r.State == "failed" })
}

type listedRelease struct {
	Release       int
	State, Commit string
	Undone        *struct{ By, Why string }
	Warning       string
}

// livePID is the pid of an app's live process, 0 where none runs.
func (w *pushWorld) livePID(app string) int {
	w.t.Helper()
	var list []struct {
		State string
		PID   int
	}
	if err := json.Unmarshal([]byte(w.must("ps", "--json", app)), &list); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range list {
		if p.State == "live" {
			return p.PID
		}
	}
	return 0
}

// appFile writes an app's own file; it counts from the next restart or deploy.
func (w *pushWorld) appFile(app, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "apps-enabled", app+".cfg"), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// project is somebody's repository, with the server as its remote scotch.
type project struct {
	w        *pushWorld
	app, dir string
}

// project makes a repository for an app; dir tells several of one app apart.
func (w *pushWorld) project(app, dir string) *project {
	w.t.Helper()
	p := &project{w, app, filepath.Join(w.home, dir)}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	p.git("init", "-q")
	p.git("remote", "add", "scotch", fmt.Sprintf("ssh://scotch@127.0.0.1:%d/%s", w.ssh, app))
	return p
}

// git must succeed.
func (p *project) git(args ...string) string {
	p.w.t.Helper()
	out, status := p.w.run(p.dir, "git", args...)
	if status != 0 {
		p.w.t.Fatalf("git %v exits with %d\n%s", args, status, out)
	}
	return strings.TrimSpace(out)
}

// commit makes a commit on top of parent ("" for what is checked out) that
// holds these files and no others, and returns its id.
func (p *project) commit(parent, message string, files map[string]string) string {
	p.w.t.Helper()
	if parent != "" {
		p.git("reset", "-q", "--hard", parent)
	}
	have, _ := filepath.Glob(filepath.Join(p.dir, "[^.]*"))
	for _, f := range have {
		os.RemoveAll(f)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(files[name]), 0o644); err != nil {
			p.w.t.Fatal(err)
		}
	}
	p.git("add", "-A")
	p.git("commit", "-q", "--allow-empty", "-m", message)
	return p.git("rev-parse", "HEAD")
}

// push pushes what is checked out to main. It may be called from any goroutine.
func (p *project) push(args ...string) (string, int) {
	return p.w.run(p.dir, "git", append(append([]string{"push"}, args...), "scotch", "HEAD:refs/heads/main")...)
}

// envNumber is the number in an environment variable, for longer variants.
func envNumber(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s is %q: give it a number", name, text)
	}
	return n
}

// pushTo is push, for output that is looked at as it comes.
func (p *project) pushTo(out *lockedBuffer) int {
	return p.w.runTo(out, p.dir, "git", "push", "scotch", "HEAD:refs/heads/main")
}

// seedOf is the seed of a test's random choices: SCOTCH_SEED, or another one
// each time.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(envNumber(t, "SCOTCH_SEED", int(rand.Uint32())))
	t.Logf("SCOTCH_SEED=%d does it again", seed)
	return seed
}

// traffic sends requests to an app until they are ended.
func (w *pushWorld) traffic(app string, plan *traffic.Schedule, kinds ...traffic.Kind) *traffic.Load {
	host := fmt.Sprintf("%s.localhost:%d", app, w.http)
	return traffic.Start(traffic.Target{Address: fmt.Sprintf("127.0.0.1:%d", w.http), Host: host, Begin: w.begin}, plan, kinds...)
}

// loadedVersion is the app.py of an app that traffic can be sent to.
func loadedVersion(version, more string) string { return traffic.App(version, more) }
