package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// among is a server with a number of other apps, and what was measured on it.
type among struct {
	*world
	others                         int
	p                              *project
	deploy, list, firstList, start sample
	domains, byHand, nginx         sample
	memory                         sample
}

// apps measures what other apps on a server cost: servers with none, 10, 100 and
// 500 of them run side by side and are measured in turns.
func apps(ctx context.Context, b *bench) (err error) {
	var servers []*among
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	for _, n := range []int{0, 10, 100, b.scaled(500, 500)} {
		w, err := newWorld(b.program)
		if err != nil {
			return err
		}
		s := &among{world: w, others: n}
		servers = append(servers, s)
		b.say("a server with %d other apps", n)
		if err := s.prepare(ctx); err != nil {
			return fmt.Errorf("a server with %d other apps: %w", n, err)
		}
	}
	for i := range b.rounds(7) + 1 {
		for _, s := range servers {
			if err := s.round(ctx, i); err != nil {
				return fmt.Errorf("with %d other apps: %w", s.others, err)
			}
		}
	}
	none := servers[0]
	last := servers[len(servers)-1]
	for _, s := range servers[1:] {
		r := row{What: fmt.Sprintf("redeploy beside %d other apps", s.others), Unit: "s", Peer: "beside none", Floor: &none.deploy, Ours: &s.deploy}
		if s == last {
			r.AtMostTimes = times(1.2)
		}
		b.add(r)
	}
	for _, s := range servers {
		r := row{What: fmt.Sprintf("the server's memory, idle, %d other apps", s.others), Unit: "MB", Ours: &s.memory}
		if s == last {
			r.AtMost = atMost(64)
			r.Note = "the others are deployed once and stopped: their uWSGI masters would take memory of their own"
		}
		b.add(r)
	}
	for _, s := range servers[1:] {
		b.add(row{What: fmt.Sprintf("list, %d other apps", s.others), Unit: "s", Peer: "none", Floor: &none.list, Ours: &s.list})
		b.add(row{What: fmt.Sprintf("start of the server until it is ready, %d other apps", s.others), Unit: "s", Peer: "none", Floor: &none.start, Ours: &s.start})
		b.add(row{What: fmt.Sprintf("the first list after it, %d other apps", s.others), Unit: "s", Peer: "none", Floor: &none.firstList, Ours: &s.firstList})
	}
	for _, s := range servers {
		b.add(row{What: fmt.Sprintf("new domain, %d other apps", s.others), Unit: "s", Peer: "boot + nginx by hand", Floor: &s.byHand, Ours: &s.domains})
		b.add(row{What: fmt.Sprintf("of the floor: nginx -t, nginx -s reload, new workers, %d other apps", s.others), Unit: "s", Peer: "none", Floor: &none.nginx, Ours: &s.nginx})
	}
	return b.atOnce(ctx, none)
}

func (s *among) prepare(ctx context.Context) error {
	if err := s.addOthers(ctx, s.others); err != nil {
		return err
	}
	if err := s.world.start(ctx); err != nil {
		return err
	}
	var err error
	if s.p, err = s.project(ctx, "blog"); err != nil {
		return err
	}
	if err := s.p.commit(ctx, "One", map[string]string{"app.py": flaskApp("first"), "requirements.txt": flaskRequirements, "scotch.cfg": briefWatch}); err != nil {
		return err
	}
	if _, err := s.p.push(ctx, "main"); err != nil {
		return err
	}
	out, err := s.scotch(ctx, "list", "--json")
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return err
	}
	if s.others > 0 && len(list) != s.others+2 { // and the template
		return fmt.Errorf("it lists %d apps", len(list))
	}
	return nil
}

// round measures everything once; the first one fills caches.
func (s *among) round(ctx context.Context, i int) error {
	version := fmt.Sprint(i)
	if err := s.p.commit(ctx, version, map[string]string{"app.py": flaskApp(version)}); err != nil {
		return err
	}
	if err := s.settle(ctx, "blog"); err != nil {
		return err
	}
	p, err := s.p.push(ctx, "main")
	if err != nil {
		return err
	}
	if err := s.answers(ctx, "blog", "version "+version+"."); err != nil {
		return err
	}
	took := time.Since(p.begin)
	if err := s.settle(ctx, "blog"); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := s.scotch(ctx, "list"); err != nil {
		return err
	}
	list := time.Since(begin)
	begin = time.Now()
	if _, err := s.scotch(ctx, "config", "blog", "set", fmt.Sprintf("domains=blog.localhost d%d.localhost", i)); err != nil {
		return err
	}
	domains := time.Since(begin)
	if err := s.settle(ctx, "blog"); err != nil {
		return err
	}
	nginx, err := s.reloadByHand(ctx)
	if err != nil {
		return err
	}
	boot, err := s.bootByHand(ctx, "blog")
	if err != nil {
		return err
	}
	memory := resident(s.server.Process.Pid)
	if err := s.end(syscall.SIGTERM); err != nil {
		return err
	}
	begin = time.Now()
	if err := s.world.start(ctx); err != nil {
		return err
	}
	start := time.Since(begin)
	begin = time.Now()
	if _, err := s.scotch(ctx, "list"); err != nil {
		return err
	}
	firstList := time.Since(begin)
	if i == 0 {
		return nil
	}
	s.deploy.took(took)
	s.list.took(list)
	s.start.took(start)
	s.firstList.took(firstList)
	s.domains.took(domains)
	s.nginx.took(nginx)
	s.byHand.took(nginx + boot)
	s.memory.add(memory)
	return nil
}

// atOnce measures pushes to many apps at the same moment against the same pushes
// one after another.
func (b *bench) atOnce(ctx context.Context, s *among) error {
	n := b.scaled(20, 5)
	var projects []*project
	for i := range n {
		p, err := s.project(ctx, fmt.Sprintf("many%d", i))
		if err != nil {
			return err
		}
		if err := p.commit(ctx, "0", plainApp("0")); err != nil {
			return err
		}
		if _, err := p.push(ctx, "main"); err != nil {
			return err
		}
		projects = append(projects, p)
	}
	commit := func(version string) error {
		for _, p := range projects {
			if err := p.commit(ctx, version, plainApp(version)); err != nil {
				return err
			}
			if err := s.settle(ctx, p.app); err != nil {
				return err
			}
		}
		return nil
	}
	if err := commit("1"); err != nil {
		return err
	}
	begin := time.Now()
	for _, p := range projects {
		if _, err := p.push(ctx, "main"); err != nil {
			return err
		}
	}
	inTurn := time.Since(begin)
	if err := commit("2"); err != nil {
		return err
	}
	begin = time.Now()
	failed := make([]error, n)
	var wg sync.WaitGroup
	for i, p := range projects {
		wg.Go(func() { _, failed[i] = p.push(ctx, "main") })
	}
	wg.Wait()
	b.add(row{What: fmt.Sprintf("%d pushes at once", n), Unit: "s", Peer: "one after another", Floor: one(inTurn.Seconds()), Ours: one(time.Since(begin).Seconds())})
	return errors.Join(failed...)
}
