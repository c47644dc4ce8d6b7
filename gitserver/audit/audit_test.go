package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func read(t *testing.T, l *Log, n int) []Entry {
	t.Helper()
	var all []Entry
	err := l.Read(context.Background(), n, false, func(line []byte) error {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Logf("%q: %v", line, err)
			return nil
		}
		all = append(all, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRecord(t *testing.T) {
	l := &Log{Path: filepath.Join(t.TempDir(), "audit.log"), Size: 1000, Keep: 2}
	defer l.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 5 {
				l.Record(Entry{Kind: Command, Verb: fmt.Sprintf("v%d-%d", i, k), Result: OK})
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"audit.log", "audit.log.1", "audit.log.2"} {
		fi, err := os.Stat(filepath.Join(filepath.Dir(l.Path), name))
		if err != nil || fi.Mode().Perm() != 0o600 || fi.Size() > 1000 {
			t.Errorf("%s: %v %v", name, fi, err)
		}
	}
	if _, err := os.Stat(l.Path + ".3"); err == nil {
		t.Error("a third rotated file is kept")
	}
	all := read(t, l, 1000)
	if len(all) < 10 || len(all) >= 40 {
		t.Errorf("%d entries are left of 40", len(all))
	}
	last := read(t, l, 3)
	if len(last) != 3 || last[2].Verb != all[len(all)-1].Verb {
		t.Errorf("the last three of %d: %v", len(all), last)
	}
}

// TestBroken: whatever is wrong with the file, Record returns, somebody is told
// once, and recording goes on when it is mended.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	var told []error
	l := &Log{Path: filepath.Join(dir, "audit.log"), Report: func(err error) { told = append(told, err) }}
	defer l.Close()
	breaks := map[string]func() error{
		"a directory": func() error { return os.Mkdir(l.Path, 0o755) },
		"a pipe":      func() error { return syscall.Mkfifo(l.Path, 0o600) },
		"a link":      func() error { return os.Symlink(filepath.Join(dir, "elsewhere"), l.Path) },
	}
	for name, make := range breaks {
		told = nil
		if err := os.RemoveAll(l.Path); err != nil {
			t.Fatal(err)
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
		done := time.AfterFunc(10*time.Second, func() { panic(name + ": Record hangs") })
		l.Record(Entry{Kind: Push})
		l.Record(Entry{Kind: Push})
		done.Stop()
		if len(told) != 1 || told[0] == nil || !strings.Contains(told[0].Error(), "cannot be written") {
			t.Errorf("%s: told %v", name, told)
		}
		if err := os.RemoveAll(l.Path); err != nil {
			t.Fatal(err)
		}
		l.Record(Entry{Kind: Push})
		if len(told) != 2 || told[1] != nil {
			t.Errorf("%s: then told %v", name, told)
		}
		if got := read(t, l, 10); len(got) != 1 {
			t.Errorf("%s: %d entries", name, len(got))
		}
	}
}

// TestTorn: a line that a full disk cut off takes no other with it.
func TestTorn(t *testing.T) {
	l := &Log{Path: filepath.Join(t.TempDir(), "audit.log")}
	defer l.Close()
	if err := os.WriteFile(l.Path, []byte(`{"kind":"pu`), 0o644); err != nil {
		t.Fatal(err)
	}
	l.Record(Entry{Kind: Switch})
	if got := read(t, l, 10); len(got) != 1 || got[0].Kind != Switch {
		t.Errorf("%v", got)
	}
	if fi, _ := os.Stat(l.Path); fi.Mode().Perm() != 0o600 {
		t.Errorf("its mode stays %v", fi.Mode())
	}
}

func TestFlood(t *testing.T) {
	l := &Log{Path: filepath.Join(t.TempDir(), "audit.log")}
	defer l.Close()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range 1000 {
		l.Record(Entry{Time: now, Kind: Refused})
	}
	l.Record(Entry{Time: now, Kind: Push})
	l.Record(Entry{Time: now.Add(time.Minute), Kind: Refused})
	got := read(t, l, 2000)
	if len(got) != refusedPerMinute+2 || got[len(got)-1].More != 900 {
		t.Errorf("%d lines, the last %v", len(got), got[len(got)-1])
	}
}

// A key that may only read wrote 25 KB of record with each command that was denied
// to it, and within seconds had the log rotate away all that came before.
func TestNobodyRotatesAwayWhatWasDone(t *testing.T) {
	l := &Log{Path: filepath.Join(t.TempDir(), "audit.log"), Size: 1 << 20, Keep: 1}
	defer l.Close()
	now := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	l.Record(Entry{Time: now, Kind: Command, Key: "evil", Verb: "run", Result: OK})
	long := strings.Repeat("x", 500)
	for range 20_000 {
		for _, e := range []Entry{
			{Verb: "config", Args: []string{long, long, long, long, long}, Result: Denied, Idle: true},
			{Verb: "list", Result: OK, Idle: true},
			{Verb: long, Result: Failed, Status: 2, Idle: true},
			{Verb: "lock", Result: OK},
			{Kind: Push, Verb: "push", Refs: []Ref{{Ref: long, Reason: long}, {Ref: long, Reason: long}}, Idle: true},
		} {
			e.Time, e.Key = now.Add(time.Second), "evil"
			if e.Kind == "" {
				e.Kind = Command
			}
			l.Record(e)
		}
	}
	// Others, the machine itself and switches are not held up by that.
	for range 1000 {
		l.Record(Entry{Time: now, Kind: Switch, Key: "evil", Verb: "deploy"})
		l.Record(Entry{Time: now, Kind: Command, Verb: "list", By: "root", Idle: true})
	}
	l.Record(Entry{Time: now.Add(2 * time.Second), Kind: Command, Key: "ada", Verb: "list", Idle: true})
	l.Record(Entry{Time: now.Add(time.Minute), Kind: Command, Key: "evil", Verb: "list", Idle: true})
	got := read(t, l, 1_000_000)
	if len(got) < 2000 || got[0].Verb != "run" {
		t.Fatalf("%d lines, the first %v", len(got), got[0])
	}
	if n := len(got); got[n-1].More != 20_000-idlePerMinute || got[n-2].Key != "ada" {
		t.Errorf("the last are %+v, %+v", got[n-2], got[n-1])
	}
}

func TestBound(t *testing.T) {
	l := &Log{Path: filepath.Join(t.TempDir(), "audit.log")}
	defer l.Close()
	long := strings.Repeat("x", 1<<20)
	e := Entry{Kind: Push, Reason: long}
	for range 1000 {
		e.Refs = append(e.Refs, Ref{Ref: long, Reason: long})
		e.Args = append(e.Args, long)
	}
	l.Record(e)
	if fi, _ := os.Stat(l.Path); fi.Size() > 10<<10 {
		t.Errorf("a line of %d bytes", fi.Size())
	}
	if got := read(t, l, 1); len(got) != 1 || got[0].More != 999 || got[0].Args[len(got[0].Args)-1] != "… 997 more" {
		t.Errorf("%d lines: %+v", len(got), got)
	}
}

// TestFollow: lines come, also those of the next file.
func TestFollow(t *testing.T) {
	l := &Log{Path: filepath.Join(t.TempDir(), "audit.log"), Size: 300, Keep: 50}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l.Record(Entry{Kind: Command, Verb: "v0"})
	seen := make(chan []byte, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- l.Read(ctx, 1, true, func(line []byte) error {
			seen <- bytes.Clone(line)
			return nil
		})
	}()
	for i := range 20 {
		if i > 0 {
			l.Record(Entry{Kind: Command, Verb: fmt.Sprintf("v%d", i)})
		}
		select {
		case line := <-seen:
			if !strings.Contains(string(line), fmt.Sprintf(`"v%d"`, i)) {
				t.Fatalf("line %d is %s", i, line)
			}
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		}
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
