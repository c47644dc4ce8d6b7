package deployer

import (
	"context"
	"errors"
	"testing"
	"time"

	"scotch/config"
)

// prune --caches stood in line for all slots at once: while one deploy was under way
// all others waited behind it, with slots free. At the server's stop it waited on.
func TestPruneOfCachesHoldsNoDeploysUp(t *testing.T) {
	site := &config.Site{}
	site.Server.Deploys = 2
	d := New(Options{Site: site})
	site.Paths.Instances = t.TempDir()
	d.files = &Files{}
	if err := d.files.MkdirAll("", d.sharedCache(), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &pruning{d: d, m: newMeasure(), report: func(Freed) {}}
	d.slots.TryAcquire(1) // a deploy
	pruned := make(chan error, 1)
	go func() { pruned <- p.sharedCache(t.Context()) }()
	for range 50 {
		if !d.slots.TryAcquire(1) {
			t.Fatal("a free slot is not to be had")
		}
		d.slots.Release(1)
		time.Sleep(time.Millisecond) // the prune may begin to wait at any time
	}
	if !isThere(d.sharedCache()) {
		t.Fatal("it was freed while a deploy is under way")
	}
	d.slots.Release(1)
	if err := <-pruned; err != nil || isThere(d.sharedCache()) {
		t.Fatalf("it is not freed: %v", err)
	}
	d.slots.TryAcquire(1)
	d.shut(errClosing)
	if err := d.allSlots(context.Background()); !errors.As(err, new(*RefusedError)) {
		t.Errorf("at the server's stop: %v", err)
	}
}
