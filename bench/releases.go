package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pastReleases measures what an app's past costs: a redeploy, a rollback and a list of
// one with a thousand releases behind it against those of the same app with few, in turns.
func pastReleases(ctx context.Context, b *bench) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	const past = 1000
	app := func(version string) map[string]string {
		files := plainApp(version)
		files["scotch.cfg"] = "[health]\nwatch = 30\n" // what a rollback goes back to is warm
		return files
	}
	projects := map[string]*project{}
	deploys, rollbacks, lists := map[string]*sample{}, map[string]*sample{}, map[string]*sample{}
	names := []string{"few", "old"}
	for _, name := range names {
		deploys[name], rollbacks[name], lists[name] = &sample{}, &sample{}, &sample{}
		p, err := b.project(ctx, name)
		if err != nil {
			return err
		}
		if err := p.commit(ctx, "First", app("first")); err != nil {
			return err
		}
		if _, err := p.push(ctx, "main"); err != nil {
			return err
		}
		projects[name] = p
	}
	if err := b.settle(ctx, "old"); err != nil {
		return err
	}
	if err := b.addReleases(ctx, "old", past); err != nil {
		return err
	}
	for i := range b.rounds(7) + 1 {
		round := func(name string) func() error {
			return func() error {
				p := projects[name]
				var push pushed
				for _, version := range []string{fmt.Sprintf("%d.old", i), fmt.Sprintf("%d.new", i)} {
					if err := p.commit(ctx, version, app(version)); err != nil {
						return err
					}
					var err error
					if push, err = p.push(ctx, "main"); err != nil {
						return err
					}
				}
				begin := time.Now()
				if _, err := b.scotch(ctx, "rollback", name); err != nil {
					return err
				}
				rollback := time.Since(begin)
				begin = time.Now()
				if _, err := b.scotch(ctx, "releases", name); err != nil {
					return err
				}
				list := time.Since(begin)
				if err := b.settle(ctx, name); err != nil {
					return err
				}
				if i > 0 {
					deploys[name].took(push.took)
					rollbacks[name].took(rollback)
					lists[name].took(list)
				}
				return nil
			}
		}
		if err := inTurns(i, round("few"), round("old")); err != nil {
			return err
		}
	}
	for _, r := range []struct {
		what string
		took map[string]*sample
	}{{"redeploy", deploys}, {"rollback, the old one still warm,", rollbacks}, {"`releases`", lists}} {
		b.add(row{What: fmt.Sprintf("%s after %d releases", r.what, past), Unit: "s", Peer: "after few", Floor: r.took["few"], Ours: r.took["old"]})
	}
	return nil
}

// addReleases gives an app that was deployed once a past: records as that of its
// release, each of another commit, and a ref for each.
func (w *world) addReleases(ctx context.Context, app string, n int) error {
	dir := filepath.Join(w.dir, "instances", app, "releases")
	first, err := os.ReadFile(filepath.Join(dir, "v1.json"))
	if err != nil {
		return err
	}
	var record map[string]any
	if err := json.Unmarshal(first, &record); err != nil {
		return err
	}
	commit := fmt.Sprint(record["commit"])
	var refs strings.Builder
	for i := 2; i <= n; i++ {
		record["release"], record["commit"], record["instance"] = i, fmt.Sprintf("%040x", i), "000000"
		data, err := json.MarshalIndent(record, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("v%d.json", i)), data, 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&refs, "create refs/releases/v%d %s\n", i, commit)
	}
	list := filepath.Join(w.home, "refs")
	if err := os.WriteFile(list, []byte(refs.String()), 0o600); err != nil {
		return err
	}
	_, err = w.run(ctx, filepath.Join(w.dir, "repositories", app+".git"), "sh", "-c", `git update-ref --stdin < "$1"`, "sh", list)
	return err
}
