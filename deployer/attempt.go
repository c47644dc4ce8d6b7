package deployer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	next, err := op.l.nextRelease()
	if err != nil {
		return
	}
	a := attempt{
		Instance: op.id, After: next - 1, Commit: op.commit.ID, Subject: op.commit.Subject,
		By: op.by.Name, When: op.started, Took: time.Since(op.started), Why: FirstLine(failure.Error()),
	}
	if stage, ok := errors.AsType[*StageError](failure); ok {
		a.Stage, a.Why = stage.Stage, FirstLine(stage.Err.Error())
	}
	log := op.d.log.WithField("app", op.app)
	list, err := op.l.attempts()
	if err != nil {
		log.Warnf("the record of failed deploys is begun anew: %v", err)
	}
	list = append([]attempt{a}, list...)
	data, err := json.MarshalIndent(list[:min(len(list), keepFailed)], "", "  ")
	if err == nil {
		err = op.d.files.Write("note-attempt", op.l.attemptsFile(), append(data, '\n'), 0o600)
	}
	if err != nil {
		log.Warnf("recording the failed deploy: %v", err)
	}
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
