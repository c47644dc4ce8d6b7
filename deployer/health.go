package deployer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"scotch/config"
)

const (
	readyPoll = 5 * time.Millisecond
	// sameAnswers is how often an app may give the same wrong answer before it
	// is believed. Trouble that may pass (no connection yet, 502 to 504) is
	// tried until the timeout.
	sameAnswers = 3
	answerPause = 300 * time.Millisecond
	evidence    = 40 // lines of the app's log that a failure shows
	fewLines    = 10 // of those that do not seem to explain it
)

// stillWaiting is how often a person is told that nothing has happened yet.
const stillWaiting = 10 * time.Second

// awaitReady waits until the process says that it accepts requests, within
// [health] timeout. A process that ends before has failed.
func (op *operation) awaitReady(ctx context.Context, a *config.App, rec *Record, running Running) error {
	plan := rec.Plan
	ctx, cancel := context.WithTimeout(ctx, a.Health.Timeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	patience := time.NewTicker(stillWaiting)
	defer patience.Stop()
	for {
		if _, err := os.Stat(plan.Ready); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-patience.C:
			op.report.Note("the app is not ready yet")
		case <-running.Done():
			log := op.showLog(plan, "the app's output")
			next := op.diagnose(a, rec, log.lines)
			switch {
			case next != "":
			case log.what == hasTraceback:
				next = "the traceback above names the line; mend it and " + op.again(a)
			case log.what == hasLines:
				next = "its output above says why; mend it and " + op.again(a)
			default:
				next = fmt.Sprintf("all that it wrote is in %s", plan.Process.Log)
			}
			return fmt.Errorf("the app did not start: %s %s\n%s", op.d.serverName(), ended(running), next)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				next := "[health] timeout says how long to wait"
				log := op.whereItHangs(plan, running)
				switch log.what {
				case hasTraceback:
					next = "where it was by then is above; " + next
				case hasLines:
					next = "what it wrote until then is above; " + next
				default:
					next = fmt.Sprintf("all that it wrote is in %s; %s", plan.Process.Log, next)
				}
				if hint := op.diagnose(a, rec, log.lines); hint != "" {
					next = hint + "\n" + next
				}
				return fmt.Errorf("the app was not ready after %s\n%s", a.Health.Timeout, next)
			}
			return context.Cause(ctx)
		}
	}
}

// whereItHangs makes Python print where it is: SIGINT raises
// KeyboardInterrupt, whose traceback goes to the log. A server that has not come
// to the app, because it tries something of its own again and again, prints none.
func (op *operation) whereItHangs(plan *Plan, running Running) shownLog {
	running.Signal(int(syscall.SIGINT))
	select {
	case <-running.Done():
	case <-time.After(quickStop):
	}
	return op.showLog(plan, "the app's output")
}

// awaitHealthy sends the health request through the instance's own socket
// until an answer proves it healthy.
func (op *operation) awaitHealthy(ctx context.Context, a *config.App, rec *Record, running Running) error {
	plan := rec.Plan
	ctx, cancel := context.WithTimeout(ctx, a.Health.Timeout)
	defer cancel()
	req := ProbeRequest{
		App: a.Name, User: a.User, Path: a.Health.Path, Prefix: strings.TrimSuffix(a.URLPrefix, "/"), Host: healthHost(a), Scheme: "http",
	}
	req.Path = req.Prefix + req.Path
	named := op.what == "deploy" && isSet(a, "health", "path") && !isSet(a, "health", "status")
	var last string
	for same := 0; ; {
		begin := time.Now()
		status, err := op.d.AppServer.Probe(ctx, plan.Socket, req)
		answer, passing := "", false
		switch {
		case err == nil && a.Health.Status.Contains(status):
			op.report.Step("health", fmt.Sprintf("GET %s %d in %d ms", req.Path, status, time.Since(begin).Milliseconds()), -1)
			if named && status == http.StatusNotFound {
				op.report.Note("note: 404 counts as healthy, also of a path that [health] names; [health] status = 200-399 refuses it")
			}
			op.probed = running
			return nil
		case err == nil:
			answer = fmt.Sprintf("GET %s answered %d", req.Path, status)
			passing = status >= 502 && status <= 504
		case errors.Is(err, ErrEmptyReply):
			answer = fmt.Sprintf("GET %s got no answer: the app raised an exception", req.Path)
		default:
			answer, passing = fmt.Sprintf("GET %s: %v", req.Path, err), true
		}
		if answer == last {
			same++
		} else {
			last, same = answer, 1
		}
		if !passing && same >= sameAnswers {
			next := op.unhealthy(a, rec, status, req.Host)
			if hint := op.diagnose(a, rec, op.showLog(plan, "the app's output").lines); hint != "" {
				if errors.Is(err, ErrEmptyReply) { // no [health] status allows that
					next = ""
				}
				next = strings.TrimSuffix(hint+"\n"+next, "\n")
			}
			return fmt.Errorf("the app is not healthy: %s\n%s", answer, next)
		}
		select {
		case <-time.After(answerPause):
		case <-running.Done():
			op.showLog(plan, "the app's output")
			return fmt.Errorf("the app died before it was healthy: %s %s", op.d.serverName(), ended(running))
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return context.Cause(ctx)
			}
			if op.startedIt(running) {
				op.whereItHangs(plan, running)
			} else {
				op.showLog(plan, "the app's output")
			}
			return fmt.Errorf("the app was not healthy after %s: %s\n[health] timeout says how long to wait", a.Health.Timeout, last)
		}
	}
}

// startedIt tells whether a process is not the one that was warm already: that one
// stays as it is, also where it does not answer in time.
func (op *operation) startedIt(running Running) bool {
	if op.warm == nil {
		return true
	}
	warm, _ := op.warm.process()
	return warm != running
}

// isSet tells whether a file says what the value of a key is.
func isSet(a *config.App, section, key string) bool {
	switch a.Origin(section, key).Layer {
	case config.LayerSite, config.LayerSource, config.LayerApp:
		return true
	}
	return false
}

// healthHost is the Host of the health request.
func healthHost(a *config.App) string {
	if a.Health.Host != "" {
		return a.Health.Host
	}
	for _, d := range a.Domains {
		if !strings.Contains(d, "*") {
			return d
		}
	}
	return "localhost"
}

func ended(r Running) string {
	if err := r.Err(); err != nil {
		return err.Error()
	}
	return "exited with 0"
}

// shown is what a report has of an instance's log.
type shown int

const (
	hasNothing shown = iota
	hasLines
	hasTraceback
)

// shownLog is what a report has of an instance's log, with these lines.
type shownLog struct {
	what  shown
	lines []string
}

// showLog puts what explains a failure, out of the last lines of the instance's
// own log, into the report, and tells what that is. Where nothing seems to
// explain it, the last lines are shown as they are.
func (op *operation) showLog(plan *Plan, title string) shownLog {
	all, err := tail(plan.Process.Log, 10*evidence)
	if err != nil || len(all) == 0 {
		op.report.Note("the app wrote nothing to its log")
		return shownLog{}
	}
	for i, l := range all {
		all[i] = colour().ReplaceAllString(l, "")
	}
	lines := all
	if r, ok := op.d.AppServer.(LogReader); ok {
		lines = r.Relevant(all)
	}
	if len(lines) == 0 {
		lines = all[max(0, len(all)-fewLines):]
		op.report.Evidence(fmt.Sprintf("nothing in its log seems to explain it; the last %s", plural(len(lines), "line")), lines)
		return shownLog{}
	}
	what := hasLines
	for _, l := range lines {
		if strings.HasPrefix(l, "Traceback (most recent call last)") || strings.HasPrefix(l, "SyntaxError") {
			what = hasTraceback
		}
	}
	if left := len(lines) - evidence; left > 0 {
		title = fmt.Sprintf("%s, the last %d lines", title, evidence)
		lines = lines[left:]
	}
	op.report.Evidence(title, lines)
	return shownLog{what, lines}
}
