package deployer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// attempt is a deploy that failed, as <instances>/NAME/attempts.json lists the
// last ones. It used up no number: After is the last one there was.
type attempt struct {
	Instance string        `json:"instance"` // its log is in that directory
	After    int           `json:"after"`
	Commit   string        `json:"commit,omitempty"` // "" where it was not even found
	Subject  string        `json:"subject,omitempty"`
	By       string        `json:"by"`
	When     time.Time     `json:"when"`
	Took     time.Duration `json:"took"`            // nanoseconds
	Stage    string        `json:"stage,omitempty"` // "" before the first
	Why      string        `json:"why"`             // one line
}

// maxWhy bounds the reason of one: it may hold words of the app's.
const maxWhy = 1000

// inShort is the first line of a reason, as far as it is kept and told.
func inShort(s string) string {
	if s = FirstLine(s); len(s) > maxWhy {
		s = strings.ToValidUTF8(s[:maxWhy], "") + " …"
	}
	return s
}

func (l layout) attemptsFile() string { return filepath.Join(l.dir, "attempts.json") }

// attempts reads the failed deploys since the newest release, the newest first.
func (l layout) attempts() ([]attempt, error) {
	data, err := os.ReadFile(l.attemptsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []attempt
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("reading %q: %w", l.attemptsFile(), err)
	}
	next, err := l.nextRelease()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(a attempt) bool { return a.After+1 < next }), nil
}

// noteAttempt records that a deploy failed, for `releases`. What was refused
// before anything was looked at is none.
func (op *operation) noteAttempt(failure error) {
	if op.what != "deploy" {
		return
	}
	a := op.attempt()
	a.Took, a.Why = time.Since(op.started), failure.Error()
	if stage, ok := errors.AsType[*StageError](failure); ok {
		a.Stage, a.Why = stage.Stage, stage.Err.Error()
	}
	a.Why = inShort(a.Why)
	op.d.listAttempt(op.app, op.l, a)
}

// attempt is what is known of a deploy that is under way.
func (op *operation) attempt() attempt {
	return attempt{Instance: op.id, Commit: op.commit.ID, Subject: op.commit.Subject, By: op.by.Name, When: op.started}
}

func (d *Deployer) listAttempt(app string, l layout, a attempt) {
	log := d.log.WithField("app", app)
	next, err := l.nextRelease()
	if err != nil {
		log.Warnf("recording the failed deploy: %v", err)
		return
	}
	a.After = next - 1
	list, err := l.attempts()
	if err != nil {
		log.Warnf("the record of failed deploys is begun anew: %v", err)
	}
	list = append([]attempt{a}, list...)
	data, err := json.MarshalIndent(list[:min(len(list), keepFailed)], "", "  ")
	if err == nil {
		err = d.files.Write("note-attempt", l.attemptsFile(), append(data, '\n'), 0o600)
	}
	if err != nil {
		log.Warnf("recording the failed deploy: %v", err)
	}
}

// begunName is the file in a new instance by which the next server knows of a
// deploy that this one did not end. It is written in one piece and not synced:
// after a loss of power the deploy is not listed, and nothing else is missing.
const begunName = "begun.json"

// begun is a deploy that is under way.
type begun struct {
	attempt
	Released bool `json:"released,omitempty"` // its release command has begun
}

// noteBegun says how far a deploy has come.
func (op *operation) noteBegun(stage string, released bool) {
	if op.what != "deploy" {
		return
	}
	b := begun{op.attempt(), released}
	b.Stage = stage
	data, err := json.Marshal(b)
	if err == nil {
		err = os.WriteFile(filepath.Join(op.dir, begunName), data, 0o600)
	}
	if err != nil {
		op.d.log.WithField("app", op.app).Warnf("recording that the deploy has begun: %v", err)
	}
}

// noteInterrupted lists a deploy that ended with an earlier server, in the middle
// of it, and says so in its log.
func (d *Deployer) noteInterrupted(app string, l layout, id string) {
	data, err := os.ReadFile(filepath.Join(l.instance(id), begunName))
	if err != nil {
		return // it was no deploy, or had hardly begun
	}
	var b begun
	if json.Unmarshal(data, &b) != nil || b.Instance != id {
		return
	}
	b.Why = "the server was ended in the middle of it"
	if b.Released {
		b.Why += "; changes that the release command made to the database remain"
	}
	next := "push again"
	if a, err := d.app(app); err == nil {
		next = again(a)
	}
	path := filepath.Join(l.instance(id), "deploy.log")
	if fi, err := os.Stat(path); err == nil {
		b.Took = max(0, fi.ModTime().Sub(b.When))
	}
	if log, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
		NewReport(log).Fail(app, &StageError{b.Stage, fmt.Errorf("%s\n%s", b.Why, next)})
		log.Close()
	}
	d.log.WithField("app", app).Warnf("a deploy of %s in %s: %s", short(b.Commit), b.Stage, b.Why)
	d.listAttempt(app, l, b.attempt)
}

// failedDeploys are the attempts as `releases` shows them.
func (l layout) failedDeploys() ([]Release, error) {
	attempts, err := l.attempts()
	var list []Release
	for _, a := range attempts {
		r := Release{
			State: "failed", Commit: a.Commit, Subject: Neutral(a.Subject), By: Neutral(a.By), When: a.When,
			Seconds: a.Took.Seconds(), Failed: &Failed{Stage: a.Stage, Why: Neutral(a.Why)},
		}
		if isThere(filepath.Join(l.instance(a.Instance), "deploy.log")) {
			r.Failed.Log = a.Instance
		}
		list = append(list, r)
	}
	return list, err
}
