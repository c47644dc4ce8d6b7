package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// export measures the copy of a commit's files, as a deploy's report has it,
// against git archive and tar. What tar wrote stays until the end, as releases do:
// a file system gives inodes that were freed just before out again much faster.
func export(ctx context.Context, b *bench) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	const files = 20_000
	p, err := b.project(ctx, "wide")
	if err != nil {
		return err
	}
	tree := map[string]string{"app.py": "def app(environ, start_response):\n    start_response(\"200 OK\", [])\n    return [b\"version 0.\"]\n", "scotch.cfg": briefWatch}
	for i := range files {
		tree[fmt.Sprintf("assets/%02d/%02d/file%d.txt", i%40, i/40%20, i)] = strings.Repeat(fmt.Sprintf("line %d of what a template or an image may be\n", i), 20)
	}
	if err := p.commit(ctx, "Many files", tree); err != nil {
		return err
	}
	var ours, tar sample
	for i := range b.rounds(4) + 1 {
		if _, err := p.git(ctx, "commit", "-q", "--allow-empty", "-m", fmt.Sprint("Again ", i)); err != nil {
			return err
		}
		theirs := func() error {
			dir, err := os.MkdirTemp(b.home, "tar")
			if err != nil {
				return err
			}
			return b.timed(ctx, &tar, p.dir, "sh", "-c", `git archive HEAD | tar -x -C "$1"`, "sh", dir)
		}
		deploy := func() error {
			push, err := p.push(ctx, "main")
			if err != nil {
				return err
			}
			begin, _ := push.find("deploying ")
			end, ok := push.find(" source  ")
			if !ok {
				return fmt.Errorf("the push does not tell of its source\n%s", push)
			}
			ours.took(end - begin)
			return b.settle(ctx, "wide")
		}
		if i == 0 { // caches are filled
			if err := deploy(); err != nil {
				return err
			}
			ours = sample{}
			continue
		}
		if err := inTurns(i, deploy, theirs); err != nil {
			return err
		}
	}
	b.add(row{What: "export of 20,000 files", Unit: "s", Peer: "git archive | tar", Floor: &tar, Ours: &ours})
	return nil
}
