package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"scotch/bench/traffic"
)

// switches measures what clients notice of deploys: traffic of every kind (kept
// connections, closing ones, answers of 3 s, uploads of 4 s) while versions come,
// every second one of them such that its deploy must fail. An answer that is
// missing, cut off, not 200, or from a version that has no business to answer is
// lost. Latency is that of the quick requests, in the time of the switches against
// the time before them, at the same load.
func switches(ctx context.Context, b *bench) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	const file = "[app]\nworkers = 2\nthreads = 8\n"
	if _, err := b.scotch(ctx, "create", "busy"); err != nil {
		return err
	}
	if err := b.appFile("busy", file); err != nil {
		return err
	}
	p, err := b.project(ctx, "busy")
	if err != nil {
		return err
	}
	include := filepath.Join(b.home, "include.conf")
	if err := os.WriteFile(include, []byte("no_such_directive on;\n"), 0o644); err != nil {
		return err
	}
	plan := &traffic.Schedule{}
	live := "version 0"
	if err := p.commit(ctx, live, map[string]string{"app.py": traffic.App(live, ""), "scotch.cfg": briefWatch}); err != nil {
		return err
	}
	if _, err := p.push(ctx, "main"); err != nil {
		return err
	}
	plan.May(live)
	address := fmt.Sprintf("127.0.0.1:%d", b.http)
	load := traffic.Start(traffic.Target{Address: address, Host: fmt.Sprintf("busy.localhost:%d", b.http), Begin: time.Now()}, plan, traffic.Kinds()...)
	ended := false
	defer func() {
		if !ended {
			load.End()
		}
	}()

	steady := 10 * time.Second
	if err := pause(ctx, steady); err != nil {
		return err
	}
	begin := time.Now()
	failures := traffic.Failures()
	n := b.scaled(20, 10)
	for i := range n {
		version := fmt.Sprintf("version %d", i+1)
		if i%2 == 0 {
			plan.May(live, version)
			err = p.replace(ctx, version, map[string]string{"app.py": traffic.App(version, ""), "scotch.cfg": briefWatch})
			if err == nil {
				_, err = p.push(ctx, "main")
			}
			plan.May(version)
			live = version
		} else {
			err = refused(ctx, b, p, plan, failures[i/2%len(failures)], version, file, include)
		}
		if err != nil {
			return err
		}
	}
	during := time.Since(begin)
	bad := load.End()
	ended = true
	for i, why := range bad {
		if b.say("%s", why); i == 20 {
			break
		}
	}
	b.say("%s", load)
	b.add(row{What: fmt.Sprintf("requests lost in %d pushes, half of them refused", n), Unit: "requests", Ours: one(float64(len(bad))), AtMost: atMost(0),
		Note: fmt.Sprintf("%d requests of 10 clients, %d of them slow, in %s", load.Total(), load.Count("slow GET")+load.Count("slow upload"), (steady + during).Round(time.Second))})
	var before, while []float64
	for _, a := range load.Quick() {
		if at := a.At.Sub(begin); at < 0 {
			before = append(before, a.Took.Seconds())
		} else if at < during {
			while = append(while, a.Took.Seconds())
		}
	}
	for _, q := range []float64{0.5, 0.99} {
		b.add(row{What: fmt.Sprintf("latency while deploys boot and switch, %g %% of the quick requests", 100*q), Unit: "ms", Peer: "steady state",
			Floor: one(1000 * quantileOf(before, q)), Ours: one(1000 * quantileOf(while, q))})
	}
	return nil
}

// refused pushes a version that must be refused and never answer.
func refused(ctx context.Context, b *bench, p *project, plan *traffic.Schedule, how traffic.Failure, version, file, include string) error {
	before, err := p.git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	if how.Include {
		if err := b.appFile("busy", file+"[nginx]\ninclude = "+include+"\n"); err != nil {
			return err
		}
		plan.BeginReload() // the files are put back, and nginx reads them again
		defer plan.EndReload()
	}
	if err := p.replace(ctx, version, map[string]string{"app.py": traffic.App(version, how.Python), "scotch.cfg": how.Config}); err != nil {
		return err
	}
	push, err := p.push(ctx, "main")
	if err == nil || !strings.Contains(push.String(), "remote rejected") {
		return fmt.Errorf("a push with %s is not refused:\n%s%w", how.Name, push, errors.Join(err))
	}
	if err := b.appFile("busy", file); err != nil {
		return err
	}
	_, err = p.git(ctx, "reset", "-q", "--hard", before)
	return err
}

// replace commits these files and no others.
func (p *project) replace(ctx context.Context, message string, files map[string]string) error {
	have, err := filepath.Glob(filepath.Join(p.dir, "[^.]*"))
	if err != nil {
		return err
	}
	for _, f := range have {
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	return p.commit(ctx, message, files)
}
