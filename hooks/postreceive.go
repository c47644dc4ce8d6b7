package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"scotch/deployer"
)

// deploy hands the app's branch to the deployer and returns what git is to hear.
func (p *push) deploy(ctx context.Context, d decision, q *request, out *printer) decision {
	res, err := p.Deployer.Deploy(ctx, deployer.Request{
		App: p.App, Ref: d.Ref, Commit: d.New, Old: d.Old, By: deployer.Actor{Name: p.By, Key: p.Key, From: p.From},
		Clean: slices.Contains(q.options, optionClean), Wait: slices.Contains(q.options, optionWait),
	}, out)
	var stage *deployer.StageError
	var no *deployer.RefusedError
	switch {
	case err == nil:
		p.log.Infof("pushed %.7s live as v%d in %s", d.New, res.Release, res.Took)
		return d
	case errors.As(err, &stage):
		// The deployer has shown the evidence already.
		d.failed = true
		return d.refused(stage.Error())
	case errors.As(err, &no):
		return d.refused(no.Reason, hintLines(no.Hint)...)
	case ctx.Err() != nil:
		return d.refused("dropped: the pusher left before the deploy began")
	default:
		p.log.WithError(err).Error("deploying")
		d.failed = true
		return d.refused(fmt.Sprintf("deploy failed: %s", deployer.FirstLine(err.Error())))
	}
}

// maxStored is how many stored refs are named one by one.
const maxStored = 5

// postReceive says, once git has moved them, what was stored and not deployed.
func (p *push) postReceive(q *request, out *printer) {
	var stored []Update
	for _, u := range q.updates {
		switch {
		case p.settled[u.Ref]:
		case u.New == zero:
			out.note("deleted %s", short(u.Ref))
		default:
			stored = append(stored, u)
		}
	}
	for i, u := range stored {
		if i == maxStored && len(stored) > maxStored+1 {
			out.note("and %d more, not deployed", len(stored)-maxStored)
			break
		}
		name := plain(u.Ref)
		out.note("stored %s, not deployed: %s deploys from %s", name, p.App, plain(p.appBranch))
		out.note("to deploy it: %s deploy %s --ref %s", p.ssh(), p.App, typed(name))
		if p.Created && strings.HasPrefix(u.Ref, "refs/heads/") && len(stored) == 1 {
			out.note("to deploy each push of it: %s config %s set git:branch=%s", p.ssh(), p.App, typed(name))
		}
	}
}

// plain is a ref's name without its prefix.
func plain(ref string) string {
	for _, prefix := range []string{"refs/heads/", "refs/tags/"} {
		if s, ok := strings.CutPrefix(ref, prefix); ok {
			return s
		}
	}
	return ref
}

// typed is a name as a person can paste it into a shell: git allows $(…), quotes
// and semicolons in the names of refs.
func typed(name string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/@+-", r)
	}
	if strings.IndexFunc(name, func(r rune) bool { return !safe(r) }) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
