package main

import (
	"context"
	"fmt"
	"time"
)

// rollback measures the way back: to the instance that is still warm, within the
// watch, where nothing is started, and to one that has ended. Both from the start
// of the command, on the server, until it has returned and the older version
// answers. The floor of the second is the app's own boot, by hand.
func rollback(ctx context.Context, b *bench) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	p, err := b.project(ctx, "blog")
	if err != nil {
		return err
	}
	var warm, cold, boot, command sample
	deploy := func(version, cfg string) error {
		files := map[string]string{"app.py": flaskApp(version), "requirements.txt": flaskRequirements, "scotch.cfg": cfg}
		if err := p.commit(ctx, version, files); err != nil {
			return err
		}
		if _, err := p.push(ctx, "main", "--force"); err != nil {
			return err
		}
		return b.answers(ctx, "blog", "version "+version+".")
	}
	back := func(to string, s *sample) error {
		begin := time.Now()
		if _, err := b.scotch(ctx, "rollback", "blog"); err != nil {
			return err
		}
		if err := b.answers(ctx, "blog", "version "+to+"."); err != nil {
			return err
		}
		if s != nil {
			s.took(time.Since(begin))
		}
		return nil
	}
	for i := range b.rounds(7) + 1 {
		measured := func(s *sample) *sample {
			if i == 0 {
				return nil
			}
			return s
		}
		// The older one has a long watch, to be warm when the newer one goes.
		older, newer := fmt.Sprintf("%d.old", i), fmt.Sprintf("%d.new", i)
		if err := deploy(older, briefWatch); err != nil {
			return err
		}
		if err := deploy(newer, "[health]\nwatch = 30\n"); err != nil {
			return err
		}
		if err := back(older, measured(&warm)); err != nil {
			return err
		}
		if err := deploy(newer+"er", briefWatch); err != nil {
			return err
		}
		if err := b.settle(ctx, "blog"); err != nil {
			return err
		}
		took, err := b.bootByHand(ctx, "blog")
		if err != nil {
			return err
		}
		if err := back(older, measured(&cold)); err != nil {
			return err
		}
		if err := b.settle(ctx, "blog"); err != nil {
			return err
		}
		begin := time.Now()
		if _, err := b.scotch(ctx, "version"); err != nil {
			return err
		}
		if i > 0 {
			boot.took(took)
			command.took(time.Since(begin))
		}
	}
	b.add(row{What: "rollback to a version that has ended", Unit: "s", Peer: "its boot", Floor: &boot, Ours: &cold, AtMostMore: atMost(0.2)})
	b.add(row{What: "rollback within the watch, the old one still warm", Unit: "s", Ours: &warm, AtMost: atMost(0.1)})
	b.add(row{What: "of both: the start of the scotch command itself", Unit: "s", Ours: &command})
	return nil
}
