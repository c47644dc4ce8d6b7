package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"scotch/deployer"
)

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		w.env, args = append(w.env, args[0]), args[1:]
	}
	err := w.start(args...)
	if neg != (err != nil) {
		ts.Fatalf("serve: %v", err)
	}
	if err != nil {
		ts.Logf("%v", err)
	}
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(worldOf(ts).end(signalOf(args)))
}

// cmdSignal only sends; end waits then.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	ts.Check(w.server.Process.Signal(signalOf(args)))
	w.ending = true
}

func signalOf(args []string) syscall.Signal {
	if len(args) == 0 {
		return syscall.SIGTERM
	}
	return map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL}[args[0]]
}

// cmdKill9 ends, with SIGKILL, each process whose command line matches.
func cmdKill9(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	re := regexp.MustCompile(args[0])
	n := 0
	for _, pid := range w.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if re.Match(bytes.ReplaceAll(line, []byte{0}, []byte(" "))) && (w.server == nil || pid != w.server.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL)
			n++
		}
	}
	if n == 0 {
		ts.Fatalf("no process matches %s", args[0])
	}
}

func cmdScotch(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	err := ts.Exec(w.program, append([]string{"-c", filepath.Join(w.dir, "scotch.cfg")}, args...)...)
	if neg == (err == nil) {
		ts.Fatalf("scotch %s: %v", strings.Join(args, " "), err)
	}
}

// cmdGet sends one request through nginx.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	want, host := 200, ""
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-status":
			want, _ = strconv.Atoi(args[1])
		case "-host":
			host = args[1]
		}
		args = args[2:]
	}
	if host == "" {
		host, args = args[0]+".localhost", args[1:]
	}
	path := "/"
	if len(args) > 0 {
		path = args[0]
	}
	status, body, header, err := w.request(host, path)
	if err != nil {
		ts.Fatalf("get %s%s: %v", host, path, err)
	}
	ts.Logf("%d %s", status, strings.TrimSpace(body))
	fmt.Fprint(ts.Stdout(), body)
	if loc := header.Get("Location"); loc != "" {
		fmt.Fprintf(ts.Stdout(), "Location: %s\n", loc)
	}
	if (status == want) == neg {
		ts.Fatalf("get %s%s: status %d, want %d (%v)\n%s", host, path, status, want, !neg, w.log.String())
	}
}

func (w *world) request(host, path string) (int, string, http.Header, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", w.http, path), nil)
	if err != nil {
		return 0, "", nil, err
	}
	req.Host = host
	if !strings.Contains(host, ":") {
		req.Host = fmt.Sprintf("%s:%d", host, w.http)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), resp.Header, err
}

const appSource = `def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [%q.encode()]
`

// cmdApp makes a project that answers a text.
func cmdApp(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	text := "hello"
	if len(args) > 1 {
		text = args[1]
	}
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "app.py"), fmt.Appendf(nil, appSource, text+"\n"), 0o644))
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		return
	}
	ts.Check(ts.Exec("git", "init", "-q", dir))
	ts.Check(ts.Exec("git", "-C", dir, "remote", "add", "scotch", ts.Getenv("REMOTE")+"/"+filepath.Base(dir)))
}

func cmdCommit(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(ts.Exec("git", "-C", dir, "add", "-A"))
	ts.Check(ts.Exec("git", "-C", dir, "commit", "-q", "--allow-empty", "-m", args[1]))
}

// cmdWaitFor runs a command until its output matches: for what becomes true by
// itself, a little later.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile("(?m)" + args[0])
	w := worldOf(ts)
	for deadline := time.Now().Add(30 * time.Second); ; {
		out := w.output(ts, args[1:])
		if re.Match(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v still prints\n%s\nserver:\n%s", args[1:], out, w.log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// output runs a command of a script, whatever its status.
func (w *world) output(ts *testscript.TestScript, args []string) []byte {
	switch args[0] {
	case "serverlog":
		return []byte(w.log.String())
	case "get":
		path := "/"
		if len(args) > 2 {
			path = args[2]
		}
		status, body, _, err := w.request(args[1]+".localhost", path)
		return fmt.Appendf(nil, "%d %s %v", status, body, err)
	}
	cmd := w.command(ts, args)
	out, _ := cmd.CombinedOutput()
	return out
}

// command is a program of a script, in the script's directory and environment.
func (w *world) command(ts *testscript.TestScript, args []string) *exec.Cmd {
	if args[0] == "scotch" {
		args = append([]string{w.program, "-c", filepath.Join(w.dir, "scotch.cfg")}, args[1:]...)
	}
	// exec looks for programs in this process's PATH, not in the script's.
	name := args[0]
	if own := filepath.Join(w.bin, name); !strings.Contains(name, "/") {
		if _, err := os.Stat(own); err == nil {
			name = own
		}
	}
	cmd := exec.Command(name, args[1:]...)
	cmd.Env, cmd.Dir = w.scriptEnv(ts), ts.MkAbs(".")
	return cmd
}

func (w *world) scriptEnv(ts *testscript.TestScript) []string {
	env := append([]string(nil), w.env...)
	for _, name := range []string{"PATH", "GIT_SSH_COMMAND"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// cmdHold runs a command in the background; its output grows in NAME.out.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	file, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	h := &held{cmd: w.command(ts, args[1:]), out: &lockedBuffer{}, done: make(chan error, 1)}
	h.cmd.Stdout = io.MultiWriter(h.out, file)
	h.cmd.Stderr = h.cmd.Stdout
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(h.cmd.Start())
	go func() {
		err := h.cmd.Wait()
		file.Close()
		h.done <- err
	}()
	w.held[args[0]] = h
}

// cmdRelease waits for a held command; -kill ends it (with its group) first.
func cmdRelease(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	h := w.held[args[0]]
	if h == nil {
		ts.Fatalf("nothing is held as %s", args[0])
	}
	delete(w.held, args[0])
	if len(args) > 1 && args[1] == "-kill" {
		syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
	}
	select {
	case err := <-h.done:
		fmt.Fprint(ts.Stdout(), h.out.String())
		ts.Logf("%s", h.out.String())
		if neg == (err == nil) {
			ts.Fatalf("%s: %v", args[0], err)
		}
	case <-time.After(2 * time.Minute):
		syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
		ts.Fatalf("%s does not end:\n%s\nserver:\n%s", args[0], h.out.String(), w.log.String())
	}
}

// cmdExits runs a command whose exit status must be the given one.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N CMD…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := worldOf(ts).command(ts, args[1:])
	err = ts.Exec(cmd.Args[0], cmd.Args[1:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v exits with %d, want %d", args[1:], got, want)
	}
}

// cmdHarmless checks that what was last written can steer no terminal.
func cmdHarmless(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range []string{"stdout", "stderr"} {
		for line := range strings.Lines(ts.ReadFile(name)) {
			if line = strings.TrimSuffix(line, "\n"); deployer.Neutral(line) != line {
				ts.Fatalf("%s has %q", name, line)
			}
		}
	}
}

// cmdPID puts the pid of an app's live process into a variable.
func cmdPID(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	var list []struct {
		State string
		PID   int
	}
	out, err := w.command(ts, []string{"scotch", "ps", "--json", args[0]}).Output()
	ts.Check(err)
	ts.Check(json.Unmarshal(out, &list))
	for _, p := range list {
		if p.State == "live" {
			ts.Setenv(args[1], strconv.Itoa(p.PID))
			return
		}
	}
	ts.Fatalf("%s has no live process: %s", args[0], out)
}

func cmdServerLog(ts *testscript.TestScript, neg bool, args []string) {
	fmt.Fprint(ts.Stdout(), worldOf(ts).log.String())
}

// load asks one app all the time.
type load struct {
	stop, done chan struct{}
	asked      int
	bad        []string
}

func (l *load) end() {
	close(l.stop)
	<-l.done
}

// cmdHammer asks an app one request after the other, over connections that stay
// open, until rest. It returns after the first answer.
func cmdHammer(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	w.loads[args[0]] = l
	first := make(chan struct{})
	go func() {
		defer close(l.done)
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
		for {
			l.bad = append(l.bad, w.ask(client, args[0])...)
			if l.asked++; l.asked == 1 {
				close(first)
			}
			select {
			case <-l.stop:
				return
			case <-time.After(time.Millisecond): // the machine has others to serve
			}
		}
	}()
	<-first
}

func (w *world) ask(client *http.Client, app string) []string {
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", w.http), nil)
	if err != nil {
		return []string{err.Error()}
	}
	req.Host = app + ".localhost"
	resp, err := client.Do(req)
	if err != nil {
		return []string{err.Error()}
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return []string{err.Error()}
	}
	if resp.StatusCode != http.StatusOK {
		return []string{resp.Status}
	}
	return nil
}

// cmdRest ends hammer. Each answer must have been 200.
func cmdRest(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	l := w.loads[args[0]]
	if l == nil {
		ts.Fatalf("nothing hammers %s", args[0])
	}
	delete(w.loads, args[0])
	l.end()
	ts.Logf("%d requests, %d failed", l.asked, len(l.bad))
	if len(l.bad) > 0 {
		ts.Fatalf("%d of %d requests failed, the first: %s\n%s", len(l.bad), l.asked, l.bad[0], w.log.String())
	}
}
