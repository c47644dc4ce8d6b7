package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"scotch/config"
)

// Deploy makes a commit live: checkout, register, the switch. It waits for the
// app's turn; ctx, the client's, drops it while it waits and no more once it
// has begun. What a person is to read of it goes to out as it comes.
//
// An error before anything was done is a *RefusedError; one of a stage is a
// *StageError, its reason and the next step are in out already. In both cases
// what served before serves on.
func (d *Deployer) Deploy(ctx context.Context, req Request, out io.Writer) (Result, error) {
	var res Result
	var v *vigil
	err := d.operate(ctx, task{
		app: req.App, what: "deploy", by: req.By, title: "deploying " + short(req.Commit), heavy: true, tells: true,
		check: func(ctx context.Context) error {
			err := d.checkOld(ctx, req)
			if live, done := errors.AsType[*alreadyLive](err); done {
				NewReport(out).Headline("%s: %s is live already, as v%d", req.App, short(req.Commit), live.rec.Release)
				res = Result{Release: live.rec.Release, URL: live.rec.URL}
			}
			return err
		},
		run: func(ctx context.Context, op *operation) (err error) {
			res, err = op.deploy(ctx, req)
			v = op.vigil
			return err
		},
	}, out)
	if err == nil && req.Wait {
		if err = v.awaitEnd(ctx, req.App, out); err != nil {
			NewReport(out).Fail(req.App, err)
		}
	}
	if _, done := errors.AsType[*alreadyLive](err); done {
		err = nil
	}
	return res, err
}

// alreadyLive says that what was asked for went live while the request waited:
// somebody pushed the same commit twice.
type alreadyLive struct{ rec *Record }

func (*alreadyLive) Error() string { return "it is live already" }

// DeployRef deploys what req.Ref names in the app's source: [app] src, or its own
// repository. An empty one is the app's branch. The app's branch moves with the
// switch, as for a push; req.Commit and req.Old are not looked at.
func (d *Deployer) DeployRef(ctx context.Context, req Request, out io.Writer) (Result, error) {
	app, ref := req.App, req.Ref
	a, err := d.app(app)
	if err != nil {
		return Result{}, err
	}
	title := "deploying " + ref
	if ref == "" {
		title = "a deploy"
	}
	var res Result
	var v *vigil
	err = d.operate(ctx, task{
		app: app, what: "deploy", by: req.By, title: title, heavy: true,
		run: func(ctx context.Context, op *operation) error {
			branch, err := d.Branch(ctx, app)
			if err != nil {
				return err
			}
			if err := d.Repositories.Create(ctx, app, branch); err != nil {
				return err
			}
			progress := op.report.Output()
			defer progress.Close()
			if a.Source != "" {
				op.report.Headline("%s: fetching %s", app, redacted(a.Source))
			} else if ref == "" {
				ref = "refs/heads/" + branch
			}
			c, err := d.Source.Resolve(ctx, a, ref, progress)
			if err != nil {
				return &StageError{"checkout", err}
			}
			progress.Close()
			res, err = op.deploy(ctx, Request{App: app, Ref: "refs/heads/" + branch, Commit: c.ID, By: req.By, Clean: req.Clean})
			v = op.vigil
			return err
		},
	}, out)
	if err == nil && req.Wait {
		err = v.awaitEnd(ctx, app, out)
	}
	return res, err
}

// redacted is a source as it may be shown: without the user and password of a
// URL, either of which may be a token.
func redacted(source string) string {
	u, err := url.Parse(source)
	if err != nil || u.User == nil {
		return source
	}
	if _, has := u.User.Password(); !has && u.Scheme == "ssh" {
		return source
	}
	u.User = url.User("xxxxx")
	return u.String()
}

// ConfiguredBranch is [git] branch of an app that may be pushed to; set tells that
// a file names it.
func (d *Deployer) ConfiguredBranch(app string) (branch string, set bool, err error) {
	a, err := d.app(app)
	if err == nil {
		err = d.spared(app)
	}
	if gone, ok := errors.AsType[*fileGoneError](err); ok {
		err = gone.Refused()
	}
	if err != nil {
		return "", false, err
	}
	return a.Branch, a.BranchSet, nil
}

// Branch is the branch of an app that deploys: the configured one, else the one
// that is live, else main or master, whichever the repository has.
func (d *Deployer) Branch(ctx context.Context, app string) (string, error) {
	a, err := d.app(app)
	if err != nil {
		return "", err
	}
	if a.BranchSet || !d.Repositories.Exists(app) {
		return a.Branch, nil
	}
	if live, err := d.layout(app).live(); err == nil {
		if b, ok := strings.CutPrefix(live.Ref, "refs/heads/"); ok {
			return b, nil
		}
	}
	for _, b := range []string{a.Branch, "master"} {
		id, err := d.Repositories.Ref(ctx, app, "refs/heads/"+b)
		if err != nil {
			return "", err
		}
		if id != "" {
			return b, nil
		}
	}
	return a.Branch, nil
}

func (op *operation) deploy(ctx context.Context, req Request) (Result, error) {
	d := op.d
	c, err := d.Source.Lookup(ctx, req.App, req.Commit)
	if err != nil {
		return Result{}, err
	}
	number, err := op.l.nextRelease()
	if err != nil {
		return Result{}, err
	}
	op.report.Headline("%s: deploying %s %q as v%d", req.App, short(c.ID), c.Subject, number)
	op.commit, op.commitRef, op.number = c, req.Ref, number
	d.observe(op.event(EventStarted, op.nowLive()))
	op.tellUndone()

	var a *config.App
	var rec *Record
	err = op.stage("checkout", func() (err error) {
		a, rec, err = op.checkout(ctx, c, req.Clean)
		return err
	})
	if err != nil {
		return Result{}, &StageError{"checkout", err}
	}
	rec.Release, rec.Ref = number, req.Ref
	err = op.stage("register", func() error {
		_, err := op.register(ctx, a, rec, releaseRefs(req, c, number))
		return err
	})
	if err != nil {
		return Result{}, &StageError{"register", err}
	}
	op.live(rec)
	return Result{Release: number, URL: rec.URL, Took: rec.Took}, nil
}

// live is the last line of an operation that went live.
func (op *operation) live(rec *Record) {
	line, more := op.d.outcome(rec)
	op.report.Headline("%-56s %s", line, seconds(time.Since(op.started)))
	if more != "" {
		op.report.Note("%s", more)
	}
}

// releaseRefs is the transaction that goes with a deploy's switch: the branch
// moves, and the release is kept reachable for ever.
func releaseRefs(req Request, c Commit, number int) []RefUpdate {
	var refs []RefUpdate
	if req.Ref != "" {
		refs = append(refs, RefUpdate{Ref: req.Ref, Old: req.Old, New: c.ID})
	}
	return append(refs, RefUpdate{Ref: releaseRef(number), New: c.ID})
}

func releaseRef(n int) string { return fmt.Sprintf("refs/releases/v%d", n) }

// checkOld judges the request as git does: the value that it saw against the
// ref as it is now that its turn has come.
func (d *Deployer) checkOld(ctx context.Context, req Request) error {
	if req.Ref == "" || req.Old == "" {
		return nil
	}
	now, err := d.Repositories.Ref(ctx, req.App, req.Ref)
	if err != nil {
		return err
	}
	if now == "" {
		now = zeroID
	}
	if live, err := d.layout(req.App).live(); err == nil && now != req.Old && now == req.Commit && live.Commit == now {
		return &alreadyLive{live}
	}
	if now != req.Old {
		return &RefusedError{
			Reason: "fetch first: the branch moved meanwhile",
			Hint:   fmt.Sprintf("it is at %s now: git pull, then push again", short(now)),
		}
	}
	return nil
}
