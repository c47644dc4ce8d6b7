package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// flaskApp is a small app; its version is in its answer.
func flaskApp(version string) string {
	return fmt.Sprintf("from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get(\"/\")\ndef hello():\n    return \"version %s.\\n\"\n", version)
}

const flaskRequirements = "flask==3.1.*\n"

// briefWatch lets rounds follow each other soon. The watch is after the push.
const briefWatch = "[health]\nwatch = 1\n"

// redeploy measures a push with unchanged dependencies to a small Flask app, from
// the start of git push until it has returned and the new version answers.
//
// The floor is what anybody must do for it: a push of the same commit that
// deploys nothing, to another branch of an app that has the same history, and
// then the app's uWSGI started by hand, with the ini file and environment of the
// instance that was just deployed, until its first answer.
func redeploy(ctx context.Context, b *bench) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	ours, err := b.project(ctx, "blog")
	if err != nil {
		return err
	}
	if _, err := ours.git(ctx, "remote", "add", "floor", b.remote("floor")); err != nil {
		return err
	}
	first := map[string]string{"app.py": flaskApp("0"), "requirements.txt": flaskRequirements, "scotch.cfg": briefWatch}
	if err := ours.commit(ctx, "One", first); err != nil {
		return err
	}
	if _, err := ours.push(ctx, "main"); err != nil {
		return err
	}
	if _, err := ours.git(ctx, "push", "floor", "HEAD:refs/heads/side"); err != nil {
		return err
	}
	var whole, floor, hand, plain sample
	stages := newStages()
	rounds := b.rounds(11)
	for i := range rounds + 1 {
		version := fmt.Sprint(i + 1)
		if err := ours.commit(ctx, "Version "+version, map[string]string{"app.py": flaskApp(version)}); err != nil {
			return err
		}
		var took, pushTook, bootTook time.Duration
		var p pushed
		deploy := func() error {
			if err := b.settle(ctx, "blog"); err != nil {
				return err
			}
			if p, err = ours.push(ctx, "main"); err != nil {
				return err
			}
			if err := b.answers(ctx, "blog", "version "+version+"."); err != nil {
				return err
			}
			took = time.Since(p.begin)
			return nil
		}
		push := func() error {
			if err := b.settle(ctx, "blog"); err != nil {
				return err
			}
			begin := time.Now()
			_, err := ours.git(ctx, "push", "floor", "HEAD:refs/heads/side")
			pushTook = time.Since(begin)
			return err
		}
		// Taken in turns, so that whatever else the machine does meets both.
		order := []func() error{deploy, push}
		if i%2 == 1 {
			order = []func() error{push, deploy}
		}
		for _, do := range order {
			if err := do(); err != nil {
				return err
			}
		}
		if err := b.settle(ctx, "blog"); err != nil {
			return err
		}
		if bootTook, err = b.bootByHand(ctx, "blog"); err != nil {
			return err
		}
		begin := time.Now()
		if _, err := ours.git(ctx, "ls-remote", "-q", "scotch"); err != nil {
			return err
		}
		handshake := time.Since(begin)
		if i == 0 {
			continue // caches are filled
		}
		whole.took(took)
		plain.took(pushTook)
		hand.took(bootTook)
		floor.took(pushTook + bootTook)
		stages.add(p, handshake, took)
	}
	b.add(row{What: "push to a small Flask app, dependencies unchanged", Unit: "s", Peer: "push + boot", Floor: &floor, Ours: &whole, AtMostTimes: times(1.25)})
	b.add(row{What: "of the floor: a push that deploys nothing", Unit: "s", Ours: &plain})
	b.add(row{What: "of the floor: uWSGI by hand to its first answer", Unit: "s", Ours: &hand})
	stages.rows(b)
	return nil
}

// stages splits pushes by what they said, and when that came.
type stages struct {
	names  []string
	sample map[string]*sample
}

func newStages() *stages { return &stages{sample: map[string]*sample{}} }

func (s *stages) took(name string, d time.Duration) {
	if s.sample[name] == nil {
		s.names, s.sample[name] = append(s.names, name), &sample{}
	}
	s.sample[name].took(d)
}

// add takes one push apart: its parts add up to the whole.
func (s *stages) add(p pushed, handshake, whole time.Duration) {
	at, _ := p.find("deploying ")
	s.took("handshake (as a git ls-remote)", handshake)
	s.took("receive", at-handshake)
	for _, part := range []struct{ name, ends string }{
		{"export", " source  "}, {"python, venv, entry point", " app  "}, {"seal, sync to disk", " register"},
		{"boot", " ready  "}, {"health", " health  "}, {"switch", " nginx  "}, {"end of the report", " live at "},
	} {
		end, ok := p.find(part.ends)
		if !ok {
			continue
		}
		s.took(part.name, end-at)
		at = end
	}
	s.took("push returns", p.took-at)
	s.took("first answer after it", whole-p.took)
}

func (s *stages) rows(b *bench) {
	for _, n := range s.names {
		b.add(row{What: "stage: " + n, Unit: "s", Ours: s.sample[n]})
	}
}

// plan is what a release's record says of its process.
type plan struct {
	Plan struct {
		Socket  string
		Process struct {
			Args, Env []string
			Dir       string
		}
	}
}

// bootByHand starts the live instance of an app once more, by its own ini file
// and environment, on a socket of its own, and returns how long it takes until
// it has answered a request.
func (w *world) bootByHand(ctx context.Context, app string) (time.Duration, error) {
	dir, err := w.liveInstance(app)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if err != nil {
		return 0, err
	}
	var p plan
	if err := json.Unmarshal(text, &p); err != nil {
		return 0, err
	}
	run, err := os.MkdirTemp(w.home, "boot")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(run)
	ini, err := os.ReadFile(filepath.Join(filepath.Dir(p.Plan.Socket), "uwsgi.ini"))
	if err != nil {
		return 0, err
	}
	// Only what lies in run/ has to differ: socket, statistics, ready file.
	own := regexp.MustCompile(regexp.QuoteMeta(filepath.Dir(p.Plan.Socket)+"/")).ReplaceAllLiteral(ini, []byte(run+"/"))
	iniPath := filepath.Join(run, "uwsgi.ini")
	if err := os.WriteFile(iniPath, own, 0o600); err != nil {
		return 0, err
	}
	args := p.Plan.Process.Args
	cmd := exec.Command(args[0], append(args[1:len(args)-1:len(args)-1], iniPath)...)
	cmd.Dir, cmd.Env = run, p.Plan.Process.Env
	log, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}()
	err = askSocket(ctx, filepath.Join(run, filepath.Base(p.Plan.Socket)), app+".localhost")
	took := time.Since(begin)
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		return 0, fmt.Errorf("%s by hand: %w\n%s", app, err, lastLines(string(said), 20))
	}
	return took, nil
}

// askSocket sends GET / to a uWSGI socket as soon as it can be connected to, and
// waits for the answer.
func askSocket(ctx context.Context, socket, host string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			defer conn.Close()
			conn.SetDeadline(deadline)
			if _, err := conn.Write(uwsgiRequest(host)); err != nil {
				return err
			}
			answer, err := io.ReadAll(conn)
			if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				err = fmt.Errorf("it answers %.100q", answer)
			}
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("nothing listens after 30 s")
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// uwsgiRequest is a packet of the uwsgi protocol: a head of four bytes (modifier,
// size in little endian, modifier), then names and values with their lengths.
func uwsgiRequest(host string) []byte {
	var vars []byte
	for _, v := range [][2]string{
		{"REQUEST_METHOD", "GET"}, {"PATH_INFO", "/"}, {"REQUEST_URI", "/"}, {"QUERY_STRING", ""}, {"SCRIPT_NAME", ""},
		{"SERVER_PROTOCOL", "HTTP/1.1"}, {"HTTP_HOST", host}, {"SERVER_NAME", host}, {"SERVER_PORT", "80"},
	} {
		for _, s := range v {
			vars = append(vars, byte(len(s)), byte(len(s)>>8))
			vars = append(vars, s...)
		}
	}
	return append([]byte{0, byte(len(vars)), byte(len(vars) >> 8), 0}, vars...)
}
