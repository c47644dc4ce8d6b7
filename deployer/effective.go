package deployer

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"scotch/config"
)

// Setting is one value of an app's configuration as it counts.
type Setting struct {
	config.Entry
	// Because says in words where a value comes from that counts in place of
	// what the files say: "standalone: the caller", "detected in v3". Empty for
	// all others, whose Origin is a file or scotch.
	Because string `json:"because,omitempty"`
}

// From is where the value comes from, for people.
func (s Setting) From() string {
	if s.Because != "" {
		return s.Because
	}
	return s.Origin.String()
}

// Configuration returns all of an app's merged configuration as it counts: the
// files as they are now, with the scotch.cfg of the source that is live, and
// what scotch finds out by itself where they leave it to it. What nobody can
// know yet is a rule in words.
func (d *Deployer) Configuration(ctx context.Context, app string) ([]Setting, error) {
	var o config.AppOptions
	live, err := d.layout(app).live()
	if err != nil {
		live = nil
	} else if o.Source, err = treeConfig(live); err == nil { // who may not read the source sees the rest
		o.SourceName = filepath.Join(live.Source, filepath.FromSlash(live.Root), "scotch.cfg")
	}
	a, err := d.site.App(app, o)
	if err != nil {
		return nil, d.ofApp(app, err)
	}
	counts := map[key]value{}
	d.whoCounts(counts)
	d.branchCounts(ctx, a, live, counts)
	entryPointCounts(a, live, counts)

	entries := a.Entries()
	all := make([]Setting, 0, len(entries))
	for _, e := range entries {
		s := Setting{Entry: e}
		if v, ok := counts[key{e.Section, e.Key}]; ok {
			s.Value, s.Because = v.text, v.because
			s.Origin = config.Origin{Layer: config.LayerScotch}
		}
		all = append(all, s)
	}
	return all, nil
}

type key struct{ section, name string }

// value is one that counts in place of what the files say.
type value struct{ text, because string }

// whoCounts is who apps and git run as where the files don't decide: in
// standalone mode, and where the server could not switch users.
func (d *Deployer) whoCounts(counts map[key]value) {
	because := "standalone: the caller"
	if d.site.Mode != "standalone" {
		d.mu.Lock()
		started := d.started
		d.mu.Unlock()
		if !started || os.Geteuid() == 0 {
			return // without a server this is some reader's program
		}
		because = "the server does not run as root: its own user"
	}
	name, group := strconv.Itoa(os.Geteuid()), strconv.Itoa(os.Getegid())
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	counts[key{"server", "git_user"}] = value{name, because}
	if d.site.Mode == "standalone" {
		counts[key{"app", "user"}] = value{name, because}
		counts[key{"app", "group"}] = value{group, because}
	}
}

// branchCounts is the branch that deploys where no file names one.
func (d *Deployer) branchCounts(ctx context.Context, a *config.App, live *Record, counts map[key]value) {
	branch := key{"git", "branch"}
	switch {
	case a.BranchSet:
	case a.Source != "":
		counts[branch] = value{"the branch that HEAD of [app] src names", "not set: found out at each deploy"}
	case live != nil && strings.HasPrefix(live.Ref, "refs/heads/"):
		counts[branch] = value{strings.TrimPrefix(live.Ref, "refs/heads/"), fmt.Sprintf("deployed as v%d", live.Release)}
	default:
		for _, b := range []string{a.Branch, "master"} {
			if !d.Repositories.Exists(a.Name) {
				break
			}
			if id, err := d.Repositories.Ref(ctx, a.Name, "refs/heads/"+b); err == nil && id != "" {
				counts[branch] = value{b, "not set: the app's repository has it"}
				return
			}
		}
		counts[branch] = value{a.Branch + " or master, whichever is pushed first", "not set"}
	}
}

// entryPointCounts is the entry point where no file names one.
func entryPointCounts(a *config.App, live *Record, counts map[key]value) {
	if a.EntryPoint != "" {
		return
	}
	entryPoint := key{"app", "entry_point"}
	_, how, detected := strings.Cut(live.entryPointWhy(), "detected: ")
	switch {
	case live == nil:
		counts[entryPoint] = value{"detected at the first deploy, else " + a.Name + ":create_app()", "not set"}
	case detected:
		counts[entryPoint] = value{live.EntryPoint.String(), fmt.Sprintf("detected in v%d: %s", live.Release, Neutral(how))}
	case live.EntryPoint.Why == "configured": // by a file that says it no more
		counts[entryPoint] = value{"detected at the next deploy, else " + a.Name + ":create_app()", fmt.Sprintf("not set; v%d runs %s", live.Release, live.EntryPoint)}
	default:
		counts[entryPoint] = value{live.EntryPoint.String(), fmt.Sprintf("the default, as in v%d", live.Release)}
	}
}

func (r *Record) entryPointWhy() string {
	if r == nil {
		return ""
	}
	return r.EntryPoint.Why
}
