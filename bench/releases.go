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

// pastReleases measures what an app's past costs: a redeploy of one with a thousand
// releases behind it against one of the same app with few, in turns.
func pastReleases(ctx context.Context, b *bench) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	const past = 1000
	projects := map[string]*project{}
	took := map[string]*sample{"few": {}, "old": {}}
	for app := range took {
		p, err := b.project(ctx, app)
		if err != nil {
			return err
		}
		if err := p.commit(ctx, "First", plainApp("first")); err != nil {
			return err
		}
		if _, err := p.push(ctx, "main"); err != nil {
			return err
		}
		projects[app] = p
	}
	if err := b.settle(ctx, "old"); err != nil {
		return err
	}
	if err := b.addReleases(ctx, "old", past); err != nil {
		return err
	}
	for i := range b.rounds(7) + 1 {
		deploy := func(app string) func() error {
			return func() error {
				p, version := projects[app], fmt.Sprint(i)
				if err := p.commit(ctx, version, plainApp(version)); err != nil {
					return err
				}
				if err := b.settle(ctx, app); err != nil {
					return err
				}
				push, err := p.push(ctx, "main")
				if err != nil {
					return err
				}
				if i > 0 {
					took[app].took(push.took)
				}
				return nil
			}
		}
		if err := inTurns(i, deploy("few"), deploy("old")); err != nil {
			return err
		}
	}
	b.add(row{What: fmt.Sprintf("redeploy after %d releases", past), Unit: "s", Peer: "after few", Floor: took["few"], Ours: took["old"]})
	var list sample
	for range b.rounds(3) {
		begin := time.Now()
		if _, err := b.scotch(ctx, "releases", "old"); err != nil {
			return err
		}
		list.took(time.Since(begin))
	}
	b.add(row{What: fmt.Sprintf("`releases` of %d", past), Unit: "s", Ours: &list})
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
