package git

import (
	"context"
	"fmt"
	"io"
	"strings"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"scotch/config"
	"scotch/deployer"
)

// sourceRefs is where the refs of [app] src are kept, apart from those that
// people push. They are hidden from clients.
const sourceRefs = "refs/scotch/source/"

// Resolve finds the commit that ref names: a branch, a tag, a release ("v12"),
// a whole ref or an object name, also a shortened one. A branch wins over a tag
// of the same name, as for `git push` and `git switch`; gitrevisions(7) has it
// the other way round, which deploys surprises.
func (g *Git) Resolve(ctx context.Context, app *config.App, ref string, out io.Writer) (deployer.Commit, error) {
	under := "refs/"
	if app.Source != "" {
		if err := g.fetch(ctx, app, out); err != nil {
			return deployer.Commit{}, err
		}
		under = sourceRefs
	}
	id, err := g.find(ctx, app, under, ref)
	if err != nil {
		return deployer.Commit{}, err
	}
	return g.Lookup(ctx, app.Name, id)
}

var (
	release   = pattern(`^v[0-9]+$`)
	shortName = pattern(`^[0-9a-fA-F]{4,40}$`)
)

// find returns the name of the commit that ref names among the refs below under.
func (g *Git) find(ctx context.Context, app *config.App, under, ref string) (string, error) {
	r, err := g.open(app.Name)
	if err != nil {
		return "", err
	}
	var names []string
	switch {
	case ref != "":
		if strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/") {
			names = append(names, under+strings.TrimPrefix(ref, "refs/"))
		} else if strings.HasPrefix(ref, "refs/releases/") {
			names = append(names, ref)
		} else {
			names = append(names, under+"heads/"+ref, under+"tags/"+ref)
			if release().MatchString(ref) {
				names = append(names, "refs/releases/"+ref)
			}
		}
	case app.BranchSet:
		names = append(names, under+"heads/"+app.Branch)
		if app.Source != "" {
			names = append(names, under+"tags/"+app.Branch) // scotch 0.3 took one
		}
	case app.Source != "":
		names = append(names, under+"HEAD")
	default:
		head, err := g.Head(ctx, app.Name)
		if err != nil {
			return "", err
		}
		names = append(names, head)
	}
	for _, n := range names {
		if plumbing.ReferenceName(n).Validate() != nil {
			continue
		}
		id, err := refIn(r, n)
		if err != nil {
			return "", err
		}
		if id != "" {
			return g.peel(ctx, app.Name, id, n)
		}
	}
	if shortName().MatchString(ref) {
		return g.peel(ctx, app.Name, strings.ToLower(ref), ref)
	}
	return "", notFound(app, ref, names, onlyBranch(r))
}

// onlyBranch is the one branch that a repository has, "" for none and for several.
func onlyBranch(r *gogit.Repository) string {
	all, err := r.Branches()
	if err != nil {
		return ""
	}
	defer all.Close()
	only, n := "", 0
	all.ForEach(func(ref *plumbing.Reference) error {
		only = ref.Name().Short()
		if n++; n > 1 {
			return storer.ErrStop
		}
		return nil
	})
	if n != 1 {
		return ""
	}
	return only
}

// notFound says so, and where the repository has one branch alone, only, how that is
// deployed.
func notFound(app *config.App, ref string, names []string, only string) error {
	where := fmt.Sprintf("the repository of %q", app.Name)
	branch, asked := strings.CutPrefix(ref, "refs/heads/")
	if ref == "" {
		branch, asked = strings.CutPrefix(strings.TrimPrefix(strings.TrimPrefix(names[0], sourceRefs), "refs/"), "heads/")
	}
	switch {
	case app.Source == "" && asked:
		next := "push it first: git push REMOTE " + deployer.Neutral(branch)
		if name := deployer.Neutral(only); only != "" {
			next += fmt.Sprintf("\nor deploy the branch that it has: deploy %s --ref %s; and each push of that: config %s set git:branch=%s", app.Name, name, app.Name, name)
		}
		if !app.BranchSet {
			next += "\nor say where its code comes from, in its own file: [app] src = ADDRESS"
		}
		return fmt.Errorf("there is no branch %q in %s\n%s", branch, where, next)
	case app.Source == "":
		return fmt.Errorf("there is no branch, tag or commit %q in %s\npush it first: git push REMOTE %s", ref, where, deployer.Neutral(ref))
	}
	where = fmt.Sprintf("%q", redact(app.Source))
	next := "the names that it has are listed by: git ls-remote " + redact(app.Source)
	if ref != "" {
		return fmt.Errorf("there is no branch, tag or commit %q in %s\n%s", ref, where, next)
	}
	return fmt.Errorf("there is no %q in %s\nname a branch: [git] branch = NAME\n%s", branch, where, next)
}

// peel returns the commit that an object name, whole or shortened, leads to.
func (g *Git) peel(ctx context.Context, app, id, named string) (string, error) {
	out, err := g.run(ctx, app, "rev-parse", "--verify", "--end-of-options", id+"^{commit}")
	if status(err) > 0 {
		return "", fmt.Errorf("%q is no commit in the repository of %q: %w", named, app, err)
	}
	return out, err
}
