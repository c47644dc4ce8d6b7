package deployer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"scotch/config"
)

// Edit is a change of an app's own file.
type Edit struct {
	App string
	By  Actor
	// What is done, for reports: "setting SECRET_KEY". It names no values.
	What string
	// Apply gets the file's path, for errors, and its content, and returns the new
	// one; an error changes nothing. It may be called more than once.
	Apply func(file string, data []byte) ([]byte, error)
	// Restart makes the change live.
	Restart bool
}

// Outcome is what came of a change.
type Outcome string

// The outcomes of a change that is no error.
const (
	Unchanged       Outcome = "unchanged"    // the file says so already
	Live            Outcome = "live"         // saved, and what serves has it
	Saved           Outcome = "saved"        // as was asked for: live with the next restart
	SavedStopped    Outcome = "stopped"      // saved; the app is stopped
	SavedUndeployed Outcome = "not deployed" // saved; the app was never deployed
)

// Change edits an app's own file in the app's turn. The result is checked before
// anything else is done. What is live is then started anew with it, as carefully
// as by a deploy; the file is saved just before the switch, so when that instance
// does not get healthy it stays as it was. Without Restart, or where nothing
// runs, the file is only saved, and a watch goes on.
func (d *Deployer) Change(ctx context.Context, e Edit, out io.Writer) (Outcome, error) {
	for {
		// Whether the app runs may be another thing when its turn has come.
		outcome := d.changeable(e)
		change := d.saveChange
		if outcome == Live {
			change = d.renewChange
		}
		err := change(ctx, e, outcome, out)
		switch {
		case errors.Is(err, errOtherwise):
			continue
		case errors.Is(err, errUnchanged):
			return Unchanged, nil
		case err != nil:
			return "", err
		}
		return outcome, nil
	}
}

var (
	errUnchanged = errors.New("nothing changes")
	errOtherwise = errors.New("the app was started or stopped meanwhile")
)

// changeable is what will come of a change as things are now.
func (d *Deployer) changeable(e Edit) Outcome {
	switch {
	case !e.Restart:
		return Saved
	case !isThere(d.layout(e.App).current()):
		return SavedUndeployed
	case d.layout(e.App).isStopped():
		return SavedStopped
	}
	return Live
}

// saveChange saves a change that starts nothing.
func (d *Deployer) saveChange(ctx context.Context, e Edit, outcome Outcome, out io.Writer) error {
	told := newWords()
	defer told.end()
	if err := d.begin(); err != nil {
		return err
	}
	defer d.work.Done()
	wait := NewReport(out)
	leave, err := d.enter(ctx, e.App, e.What, e.By.Name, func(ahead *ticket) {
		told.say(func() { wait.Headline("%s: waiting behind %s", e.App, ahead) })
	})
	if err != nil {
		return err
	}
	defer leave()
	if d.changeable(e) != outcome {
		return errOtherwise
	}
	c, err := d.edited(ctx, e)
	if err != nil {
		return err
	}
	return d.files.Write("change-app", c.path, c.after, 0o600)
}

// renewChange makes a change live.
func (d *Deployer) renewChange(ctx context.Context, e Edit, outcome Outcome, out io.Writer) error {
	var c edited
	return d.operate(ctx, task{
		app: e.App, what: "change", by: e.By, title: e.What, heavy: true,
		check: func(ctx context.Context) (err error) {
			if d.changeable(e) != outcome {
				return errOtherwise
			}
			c, err = d.edited(ctx, e)
			return err
		},
		run: func(ctx context.Context, op *operation) error { return op.change(ctx, e, c) },
	}, out)
}

// edited is an app's file before and after a change.
type edited struct {
	path          string
	before, after []byte
}

// edited applies an edit to an app's file and checks the result against all the
// other layers. Its error matches errUnchanged where the edit changes nothing.
func (d *Deployer) edited(ctx context.Context, e Edit) (c edited, err error) {
	if c.path, err = d.site.AppFile(e.App); err != nil {
		return c, err
	}
	named := c.path
	// A rename would replace a link that an operator made.
	if real, err := filepath.EvalSymlinks(c.path); err == nil {
		c.path = real
	}
	if c.before, err = os.ReadFile(c.path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = d.ofApp(e.App, &config.NoAppError{Name: e.App, Path: c.path})
		}
		return c, err
	}
	if c.after, err = e.Apply(named, bytes.Clone(c.before)); err != nil {
		return c, fmt.Errorf("nothing is changed: %w", err)
	}
	if bytes.Equal(c.before, c.after) {
		return c, errUnchanged
	}
	o := config.AppOptions{File: c.after}
	if live, err := d.layout(e.App).live(); err == nil {
		if o.Source, err = treeConfig(live); err != nil {
			return c, err
		}
	}
	after, err := d.site.App(e.App, o)
	if err != nil {
		o.File = c.before
		_, was := d.site.App(e.App, o)
		return c, fmt.Errorf("nothing is changed: %w", ofUnsaved(err, was))
	}
	o.File = c.before
	before, err := d.site.App(e.App, o)
	if err != nil || before.URLPrefix != after.URLPrefix || !slices.Equal(before.Domains, after.Domains) {
		if err := d.placeIsFree(ctx, after); err != nil {
			return c, fmt.Errorf("nothing is changed: %w", err)
		}
	}
	return c, nil
}

// ofUnsaved words the mistakes of a file that is not saved. was are those of the
// file as it is, which are to be mended there; what the edit brought is on no line
// that a person could look at.
func ofUnsaved(err, was error) error {
	var mistakes, old config.Errors
	if !errors.As(err, &mistakes) {
		return err
	}
	errors.As(was, &old)
	var told config.Errors
	for _, m := range mistakes {
		one := *m
		if i := slices.IndexFunc(old, func(o *config.Error) bool {
			return o.File == m.File && o.Section == m.Section && o.Key == m.Key && o.Problem == m.Problem
		}); i >= 0 {
			one.Line = old[i].Line
		} else {
			one.Line = 0
			if one.Hint == "" {
				one.Hint = "set another value"
			}
		}
		told = append(told, &one)
	}
	return told
}

// change makes the new instance of a changed configuration.
func (op *operation) change(ctx context.Context, e Edit, c edited) error {
	live, err := op.d.liveRecord(op.app)
	if err != nil {
		return err
	}
	op.report.Headline("%s: starting v%d anew, %s", op.app, live.Release, e.What)
	op.file = c.after
	// A crash between this and the switch leaves a change that the next restart
	// makes live.
	op.save = func() (func() error, error) {
		// An operator's editor asks for no turn.
		if now, err := os.ReadFile(c.path); err != nil || !bytes.Equal(now, c.before) {
			return nil, errors.Join(fmt.Errorf("%q was changed by somebody else meanwhile\ntry again", c.path), err)
		}
		undo := func() error { return op.d.files.Write("unchange-app", c.path, c.before, 0o600) }
		if err := op.d.files.Write("change-app", c.path, c.after, 0o600); err != nil {
			return nil, errors.Join(err, undo())
		}
		return undo, nil
	}
	if err := op.renewFrom(ctx, live, nil); err != nil {
		return notSaved(err)
	}
	op.live(op.nowLive())
	return nil
}

// notSaved says that a change was undone, and keeps the stage.
func notSaved(err error) error {
	var stage *StageError
	if errors.As(err, &stage) {
		return &StageError{stage.Stage, notSaved(stage.Err)}
	}
	return fmt.Errorf("%w\nthe change is undone: the app serves on with its file as it was", err)
}
