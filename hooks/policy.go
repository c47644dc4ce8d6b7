package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"scotch/config"
	"scotch/deployer"
)

// action is what becomes of one ref of a push.
type action int

const (
	refuse action = iota
	store         // git moves the ref itself
	deploy        // the deployer moves it, with the switch
	keep          // it is there already: nothing is left to do
)

// decision is what policy says about one ref.
type decision struct {
	Update
	action action
	reason string   // of a refusal: one line, for git's answer
	failed bool     // what is refused was begun, and failed
	hint   []string // what to know or to do next, lines above git's answer
}

func (d decision) refused(reason string, hint ...string) decision {
	d.action, d.reason, d.hint = refuse, line(reason), hint
	return d
}

// maxReason is the longest reason, in bytes, that git's answer carries.
const maxReason = 500

// line makes text fit for git's answer: one neutral line, not too long.
func line(s string) string {
	s = deployer.FirstLine(s)
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

// Push options that a push may carry (git push -o).
const (
	optionClean = "clean"
	optionWait  = "wait"
)

// judge decides about every ref of a push, in its order. At most one deploys.
func (p *push) judge(ctx context.Context, q *request) []decision {
	var ds []decision
	refuseAll := func(reason string, hint ...string) []decision {
		ds = ds[:0]
		for i, u := range q.updates {
			d := decision{Update: u}
			if i > 0 {
				hint = nil // said once
			}
			ds = append(ds, d.refused(reason, hint...))
		}
		return ds
	}
	for _, o := range q.options {
		if o != optionClean && o != optionWait {
			return refuseAll(fmt.Sprintf("unknown push option %q", o),
				"push options are: clean (builds the virtualenv from nothing), wait",
				"an option of yours for all pushes is found by: git config --show-origin --get-all push.pushOption")
		}
	}
	if !p.may("push") {
		return refuseAll(fmt.Sprintf("key %q may not push to %q", p.By, p.App))
	}
	branch, err := p.branch(ctx, q.updates)
	if wrong, ok := errors.AsType[config.Errors](err); ok {
		return refuseAll(fmt.Sprintf("the configuration of app %q is broken", p.App),
			append(hintLines(wrong.Error()), "mend the file on the server, then push again")...)
	}
	if no, ok := errors.AsType[*deployer.RefusedError](err); ok {
		return refuseAll(no.Reason, hintLines(no.Hint)...)
	}
	if err != nil {
		return refuseAll(p.internal("looking for the app's branch", err))
	}
	p.appBranch = branch

	times := make(map[string]int, len(q.updates))
	for _, u := range q.updates {
		times[u.Ref]++
	}
	for _, u := range q.updates {
		if times[u.Ref] > 1 {
			// No git sends that. What it is answered goes by the ref: each would
			// get the other's too.
			ds = append(ds, decision{Update: u}.refused(fmt.Sprintf("the push names %s twice", short(u.Ref))))
			continue
		}
		ds = append(ds, p.judgeRef(ctx, u))
	}
	// Refs that git refuses by itself never come here (receive.hideRefs, names
	// that are none): pre-receive alone was told of them.
	struckOut := len(p.announced) > len(q.updates)
	if !q.atomic || len(ds) < 2 && !struckOut {
		return ds
	}
	if i := slices.IndexFunc(ds, func(d decision) bool { return d.action == deploy }); i >= 0 {
		return refuseAll(fmt.Sprintf("%s goes live and can't be part of an atomic push", short(ds[i].Ref)),
			fmt.Sprintf("git can't take a live switch back: push %s alone, or leave out --atomic", short(ds[i].Ref)))
	}
	// All or nothing: git 2.39 would answer for the others in words of its own.
	if struckOut || slices.ContainsFunc(ds, func(d decision) bool { return d.action == refuse }) {
		for i, d := range ds {
			if d.action != refuse {
				ds[i] = d.refused("atomic push: another ref was refused")
			}
		}
	}
	return ds
}

// branch is the ref that deploys: [git] branch where a file names it; else the
// one that was deployed before; else main or master, whichever comes.
func (p *push) branch(ctx context.Context, updates []Update) (string, error) {
	name, set, err := p.Branch(p.App)
	if err != nil {
		return "", err
	}
	ref := "refs/heads/" + name
	if set {
		return ref, nil
	}
	head, err := p.Repository.Head(ctx, p.App)
	if err != nil {
		return "", err
	}
	if id, err := p.Repository.Ref(ctx, p.App, head); err != nil || id != "" {
		return head, err
	}
	for _, ref := range []string{ref, "refs/heads/main", "refs/heads/master"} {
		if slices.ContainsFunc(updates, func(u Update) bool { return u.Ref == ref && u.New != zero }) {
			return ref, nil
		}
	}
	return ref, nil
}

// judgeRef decides about one ref. All that git would refuse later, once the app
// would be live, is refused here.
func (p *push) judgeRef(ctx context.Context, u Update) decision {
	d := decision{Update: u, action: store}
	name, isBranch := strings.CutPrefix(u.Ref, "refs/heads/")
	if !isBranch {
		var isTag bool
		if name, isTag = strings.CutPrefix(u.Ref, "refs/tags/"); !isTag {
			return d.refused("only branches and tags can be pushed",
				fmt.Sprintf("%s is neither: refs/heads/NAME is a branch, refs/tags/NAME a tag", deployer.Neutral(u.Ref)))
		}
	}
	// One that is there from before can be deleted.
	if why := badName(name); why != "" && u.New != zero {
		return d.refused(fmt.Sprintf("bad name: %s", why), "push it under another name: git push REMOTE HERE:THERE")
	}
	switch {
	case u.Ref == p.appBranch && u.New == zero:
		return d.refused(fmt.Sprintf("%s is the branch that %q is deployed from and can't be deleted", short(u.Ref), p.App),
			fmt.Sprintf("to remove the whole app: %s destroy %s --force", p.ssh(), p.App))
	case u.New == zero:
		return d
	case u.Ref == p.appBranch:
		d.action = deploy
	case strings.HasPrefix(u.Ref, p.appBranch+"/") || strings.HasPrefix(p.appBranch, u.Ref+"/"):
		// git keeps refs as files: one can't be the folder of another.
		return d.refused(fmt.Sprintf("%s can't stand beside %s, the branch that deploys", short(u.Ref), short(p.appBranch)),
			"push it under another name: git push REMOTE HERE:THERE")
	}
	if now, err := p.Repository.Ref(ctx, p.App, u.Ref); err != nil {
		return d.refused(p.internal("reading "+u.Ref, err))
	} else if now == u.New && now != u.Old {
		return p.there(d)
	} else if now != u.Old && (now != "" || u.Old != zero) {
		return d.refused(fmt.Sprintf("fetch first: %s has moved meanwhile", short(u.Ref)), fetchFirst...)
	}
	return p.judgeHistory(ctx, d, isBranch)
}

// there is the answer where another push brought the commit first, after this
// one was shown the refs: the pusher has what was wanted.
func (p *push) there(d decision) decision {
	d.action = keep
	if d.Ref == p.appBranch {
		d.hint = []string{fmt.Sprintf("%.7s is live already: another push of it was first", d.New)}
	} else {
		d.hint = []string{fmt.Sprintf("%.7s is what %s is already: another push of it was first", d.New, short(d.Ref))}
	}
	return d
}

func (p *push) judgeHistory(ctx context.Context, d decision, isBranch bool) decision {
	h, u := p.Repository, d.Update
	if isBranch {
		kind, err := h.Kind(ctx, p.App, u.New)
		if err != nil {
			return d.refused(p.internal("reading the pushed object", err))
		}
		if kind != "commit" {
			return d.refused(fmt.Sprintf("a branch must be a commit, this is a %s", kind), "push the commit: git push REMOTE NAME^{commit}:"+deployer.Neutral(u.Ref))
		}
	}
	complete, err := h.Complete(ctx, p.App, u.New)
	if err != nil {
		return d.refused(p.internal("looking through the pushed history", err))
	}
	if !complete {
		return d.refused("this clone is shallow: part of the history is missing",
			"fetch the rest and push again: git fetch --unshallow",
			"in CI, let the checkout fetch all: fetch-depth: 0 (GitHub), GIT_DEPTH: 0 (GitLab)")
	}
	if u.Old != zero && !p.may("force") {
		forward := false
		if isBranch { // a tag is never moved without force
			if forward, err = h.Descends(ctx, p.App, u.New, u.Old); err != nil {
				return d.refused(p.internal("comparing the histories", err))
			}
		}
		if !forward {
			return d.refused(fmt.Sprintf("fetch first: %s would lose commits, and key %q may not force", short(u.Ref), p.By), fetchFirst...)
		}
	}
	if d.action != deploy {
		return d
	}
	var no *deployer.RefusedError
	if err := h.Deployable(ctx, p.App, u.New); errors.As(err, &no) {
		return d.refused(no.Reason, hintLines(no.Hint)...)
	} else if err != nil {
		return d.refused(p.internal("reading the pushed tree", err))
	}
	return d
}

var fetchFirst = []string{"take in what is there, then push again: git pull --rebase"}

// badName says what is wrong with a branch's or tag's name, besides what git
// refuses itself (git-check-ref-format(1)).
func badName(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case strings.HasPrefix(name, "refs/"):
		// The client looks for refs/heads/main under refs/heads/ too, and then
		// finds two: nobody could push main any more (gitrevisions(7)).
		return `it begins with "refs/" and would be taken for the whole name of a ref`
	case name == "HEAD":
		return `"HEAD" would be taken for git's own`
	case strings.HasPrefix(name, "-"):
		return "it begins with a dash and would be taken for an option"
	case !utf8.ValidString(name) || deployer.Neutral(name) != name:
		return "it holds characters that can't be shown"
	case len(name) > 200:
		return "it is longer than 200 bytes"
	}
	return ""
}

// internal logs what failed on the server's side and words it for the pusher.
func (p *push) internal(what string, err error) string {
	p.log.WithError(err).Error(what)
	return fmt.Sprintf("the server failed while %s: %s", what, err)
}

// short is a ref's name as people write it, quoted.
func short(ref string) string { return fmt.Sprintf("%q", plain(ref)) }

func hintLines(s string) []string {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func (h *Handler) ssh() string {
	if h.SSH != "" {
		return h.SSH
	}
	return "ssh …"
}
