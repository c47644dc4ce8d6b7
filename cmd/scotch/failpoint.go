//go:build failpoint

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"scotch/deployer"
)

// failpoints makes a program for tests that can be stopped or broken at each
// named operation (deployer.Files). SCOTCH_FAILPOINTS names a file that the test
// writes: "ACTION N" acts at the N-th operation from then on, "ACTION NAME" at the
// first of that name, "ACTION new NAME…" at the first of another name than those.
// Each operation's name is appended to the file of that name with .log behind it.
// The actions:
//
//	kill    SIGKILL for this process
//	fail    the operation fails with ENOSPC; FILE.done names it
//	fails   each operation of the names that follow does
//	pause   the operation waits until the test writes something else; FILE.paused
//	        exists meanwhile
//	log     nothing
func failpoints() *deployer.Files {
	path := os.Getenv("SCOTCH_FAILPOINTS")
	if path == "" {
		return nil
	}
	p := &failpoint{path: path}
	return &deployer.Files{Before: p.before}
}

type failpoint struct {
	path string
	mu   sync.Mutex
	last string
	n    int
	done bool
}

func (p *failpoint) before(op string) error {
	p.mu.Lock()
	wanted, err := os.ReadFile(p.path)
	if err != nil {
		p.last, p.n, p.done = "", 0, false
		p.mu.Unlock()
		return nil
	}
	if s := string(wanted); s != p.last {
		p.last, p.n, p.done = s, 0, false
	}
	p.n++
	action, at, _ := strings.Cut(strings.TrimSpace(string(wanted)), " ")
	if f, err := os.OpenFile(p.path+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
		fmt.Fprintf(f, "%d %s\n", p.n, op)
		f.Close()
	}
	hit := at == strconv.Itoa(p.n) || at == op
	if but, isNew := strings.CutPrefix(at, "new"); isNew {
		hit = !slices.Contains(strings.Fields(but), op)
	}
	if action == "fails" {
		hit, action, p.done = slices.Contains(strings.Fields(at), op), "fail", false
	}
	hit = hit && !p.done
	p.done = p.done || hit
	p.mu.Unlock()
	if !hit {
		return nil
	}
	switch action {
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "fail":
		os.WriteFile(p.path+".done", []byte(op), 0o644)
		return &os.PathError{Op: op, Path: "failpoint", Err: syscall.ENOSPC}
	case "pause":
		os.WriteFile(p.path+".paused", []byte(op), 0o644)
		for {
			now, err := os.ReadFile(p.path)
			if err != nil || string(now) != string(wanted) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		os.Remove(p.path + ".paused")
	}
	return nil
}
