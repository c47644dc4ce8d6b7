package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"scotch/bench/traffic"
)

// liveApps is how many live apps the server is restarted with, memory permitting:
// each is a uWSGI with a master and a worker.
const (
	liveApps     = 100
	memoryOfLive = 60e6 // bytes
)

// restart measures an upgrade of scotch: the server ends by SIGTERM and starts again
// while its apps go on, with one of them under constant requests; the same with
// SIGKILL. Ready means that every app is adopted: Start returns after that.
func restart(ctx context.Context, b *bench) error {
	n := min(b.scaled(liveApps, 20), int(memoryTotal()*0.6/memoryOfLive))
	if err := b.start(ctx); err != nil {
		return err
	}
	b.say("deploying %d apps", n)
	names := make(chan string)
	failed := make([]error, runtime.NumCPU())
	var wg sync.WaitGroup
	for i := range failed {
		wg.Go(func() {
			for name := range names {
				if failed[i] == nil {
					failed[i] = b.liveApp(ctx, name)
				}
			}
		})
	}
	for i := range n {
		names <- fmt.Sprintf("live%d", i)
	}
	close(names)
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	before, err := b.pids(ctx)
	if err != nil {
		return err
	}
	if len(before) != n {
		return fmt.Errorf("%d apps run, %d were deployed", len(before), n)
	}
	b.add(row{What: fmt.Sprintf("the server's memory with %d live apps", n), Unit: "MB", Ours: one(resident(b.server.Process.Pid))})
	plan := &traffic.Schedule{}
	plan.May("one")
	var gone, back sample
	load := traffic.Start(traffic.Target{Address: fmt.Sprintf("127.0.0.1:%d", b.http), Host: fmt.Sprintf("live0.localhost:%d", b.http), Begin: time.Now()}, plan, traffic.Kinds()...)
	err = func() error {
		for i := range b.rounds(5) {
			signal := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i%2]
			begin := time.Now()
			if err := b.end(signal); err != nil {
				return err
			}
			gone.took(time.Since(begin))
			begin = time.Now()
			if err := b.start(ctx); err != nil {
				return err
			}
			back.took(time.Since(begin))
		}
		return pause(ctx, 5*time.Second) // for the slow ones that began meanwhile
	}()
	bad := load.End()
	if err != nil {
		return err
	}
	for i, why := range bad {
		if b.say("%s", why); i == 20 {
			break
		}
	}
	b.say("%s", load)
	after, err := b.pids(ctx)
	if err != nil {
		return err
	}
	lost := 0
	for app, pid := range before {
		if after[app] != pid {
			lost++
		}
	}
	b.add(row{What: fmt.Sprintf("start until all of %d live apps are adopted", n), Unit: "s", Ours: &back})
	b.add(row{What: "end by SIGTERM or SIGKILL", Unit: "s", Ours: &gone})
	b.add(row{What: "apps whose process is another one afterwards", Ours: one(float64(lost)), AtMost: atMost(0)})
	b.add(row{What: fmt.Sprintf("requests lost in %d restarts of the server", b.rounds(5)), Unit: "requests", Ours: one(float64(len(bad))), AtMost: atMost(0),
		Note: fmt.Sprintf("%d requests, of them %d slow", load.Total(), load.Count("slow GET")+load.Count("slow upload"))})
	return nil
}

// liveApp deploys a small app with one worker; the first has what traffic needs.
func (b *bench) liveApp(ctx context.Context, name string) error {
	if _, err := b.scotch(ctx, "create", name); err != nil {
		return err
	}
	threads := 1
	if strings.HasSuffix(name, "live0") {
		threads = 16
	}
	if err := b.appFile(name, fmt.Sprintf("[app]\nworkers = 1\nthreads = %d\n", threads)); err != nil {
		return err
	}
	p, err := b.project(ctx, name)
	if err != nil {
		return err
	}
	if err := p.commit(ctx, "One", map[string]string{"app.py": traffic.App("one", ""), "scotch.cfg": briefWatch}); err != nil {
		return err
	}
	_, err = p.push(ctx, "main")
	return err
}

// pids are the processes of all live apps.
func (w *world) pids(ctx context.Context) (map[string]int, error) {
	list, err := w.ps(ctx)
	if err != nil {
		return nil, err
	}
	pids := map[string]int{}
	for _, s := range list {
		if s.State == "live" {
			pids[s.App] = s.PID
		}
	}
	return pids, nil
}
