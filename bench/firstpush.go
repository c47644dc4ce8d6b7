package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// firstPush measures git over ssh, without a deploy: the first push of a large
// repository to a branch that does not deploy, the clone of it, and a small push
// onto a thousand packs, each against OpenSSH's sshd with stock git; besides, the
// server's own memory meanwhile.
func firstPush(ctx context.Context, b *bench) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	stock, err := b.startPeer(ctx)
	if err != nil {
		if !errors.Is(err, errNoPeer) {
			return err
		}
		b.skip("git over ssh", err.Error())
		return nil
	}
	defer stock.close()
	src := filepath.Join(b.home, "large")
	if err := b.history(ctx, src, b.scaled(3000, 300), 2000); err != nil {
		return err
	}
	counted, err := b.run(ctx, src, "git", "rev-list", "--objects", "--all", "--count")
	if err != nil {
		return err
	}
	objects := strings.TrimSpace(counted)
	var push, peerPush, clone, peerClone, idle, peak sample
	var app, url, bare string
	for i := range b.rounds(3) {
		app = fmt.Sprintf("large%d", i)
		if _, err := b.scotch(ctx, "create", app); err != nil {
			return err
		}
		if bare, url, err = stock.repository(ctx, app); err != nil {
			return err
		}
		ours := func() error {
			idle.add(resident(b.server.Process.Pid))
			most, err := peakOf(b.server.Process.Pid, func() error {
				return b.timed(ctx, &push, src, "git", "push", "-q", b.remote(app), "main:refs/heads/import")
			})
			peak.add(most)
			return err
		}
		theirs := func() error { return b.timed(ctx, &peerPush, src, "git", "push", "-q", url, "main:refs/heads/import") }
		if err := inTurns(i, ours, theirs); err != nil {
			return err
		}
		ours = func() error { return b.cloned(ctx, &clone, b.remote(app)) }
		theirs = func() error { return b.cloned(ctx, &peerClone, url) }
		if err := inTurns(i, ours, theirs); err != nil {
			return err
		}
	}
	b.add(row{What: "first push of " + objects + " objects", Unit: "s", Peer: "sshd + git", Floor: &peerPush, Ours: &push, AtMostTimes: times(1.15)})
	b.add(row{What: "the server's own memory meanwhile, at most", Unit: "MB", Peer: "idle", Floor: &idle, Ours: &peak})
	b.add(row{What: "clone of it", Unit: "s", Peer: "sshd + git", Floor: &peerClone, Ours: &clone})
	return b.manyPacks(ctx, src, app, url, bare)
}

// inTurns does both, every other time the second first.
func inTurns(round int, one, other func() error) error {
	if round%2 == 1 {
		one, other = other, one
	}
	if err := one(); err != nil {
		return err
	}
	return other()
}

// timed runs a program that must succeed and adds how long it took.
func (w *world) timed(ctx context.Context, s *sample, dir, name string, args ...string) error {
	begin := time.Now()
	_, err := w.run(ctx, dir, name, args...)
	if err == nil && s != nil {
		s.took(time.Since(begin))
	}
	return err
}

func (w *world) cloned(ctx context.Context, s *sample, url string) error {
	dir := filepath.Join(w.home, "clone")
	defer os.RemoveAll(dir)
	return w.timed(ctx, s, w.home, "git", "clone", "-q", "--bare", url, dir)
}

// manyPacks measures a push of one commit to a repository that nobody has packed
// for long.
func (b *bench) manyPacks(ctx context.Context, src, app, url, bare string) error {
	ours := filepath.Join(b.dir, "repositories", app+".git")
	made, err := b.run(ctx, bare, "sh", "-c", `set -e
		for i in $(seq 1000); do echo "pack $i" | git hash-object -w --stdin; done | while read id; do echo $id | git pack-objects -q objects/pack/pack; done`)
	if err != nil {
		return fmt.Errorf("making packs: %w\n%s", err, lastLines(made, 3))
	}
	if _, err := b.run(ctx, bare, "sh", "-c", `cp objects/pack/* "$1/objects/pack/"; git prune-packed -q`, "sh", ours); err != nil {
		return err
	}
	var small, peerSmall sample
	for i := range b.rounds(7) {
		if _, err := b.run(ctx, src, "git", "commit", "-q", "--allow-empty", "-m", fmt.Sprint("Small ", i)); err != nil {
			return err
		}
		err := inTurns(i,
			func() error {
				return b.timed(ctx, &small, src, "git", "push", "-q", b.remote(app), "main:refs/heads/import")
			},
			func() error { return b.timed(ctx, &peerSmall, src, "git", "push", "-q", url, "main:refs/heads/import") })
		if err != nil {
			return err
		}
	}
	b.add(row{What: "push of one commit onto 1,000 packs", Unit: "s", Peer: "sshd + git", Floor: &peerSmall, Ours: &small})
	return nil
}
