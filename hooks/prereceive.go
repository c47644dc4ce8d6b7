package hooks

import (
	"context"
	"errors"
	"fmt"

	"scotch/deployer"
)

// preReceive judges the push as a whole, before git moves its objects out of
// the quarantine. A status other than 0 refuses it all.
func (p *push) preReceive(ctx context.Context, q *request, out *printer) int {
	p.announced = q.updates
	if p.Limits == nil {
		return 0
	}
	err := p.Limits.Allow(ctx, p.App, q.quarantine, q.updates)
	if err == nil {
		return 0
	}
	var no *deployer.RefusedError
	if !errors.As(err, &no) {
		no = &deployer.RefusedError{Reason: p.internal("checking the push", err)}
	}
	p.log.Infof("push refused: %s", no.Reason)
	for _, u := range q.updates {
		p.settle(u, "refused", line(no.Reason))
	}
	out.note("%s", line(no.Reason))
	for _, l := range hintLines(no.Hint) {
		out.note("%s", l)
	}
	return 1
}

// MaxRefs is a limit on the number of refs in one push.
type MaxRefs int

// Allow implements Limits.
func (n MaxRefs) Allow(_ context.Context, _, _ string, updates []Update) error {
	if len(updates) <= int(n) {
		return nil
	}
	return &deployer.RefusedError{
		Reason: fmt.Sprintf("the push has %d refs, at most %d are taken at once", len(updates), int(n)),
		Hint:   "push fewer: git push REMOTE BRANCH",
	}
}

// Growth is how many refs more there are after the updates.
func Growth(updates []Update) int {
	n := 0
	for _, u := range updates {
		if u.Old == zero {
			n++
		}
		if u.New == zero {
			n--
		}
	}
	return n
}
