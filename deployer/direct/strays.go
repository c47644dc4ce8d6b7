package direct

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Strays implements deployer.Runner. It never touches what this runner started
// itself, this process, or anything of another site. When ctx is done it kills
// at once what it would have asked to end.
func (r *Runner) Strays(ctx context.Context, keep []string) (int, error) {
	kept := make(map[string]bool, len(keep))
	for _, k := range keep {
		kept[k] = true
	}
	hurry := make(chan struct{})
	stop := context.AfterFunc(ctx, sync.OnceFunc(func() { close(hurry) }))
	defer stop()

	type key struct {
		pid   int
		start uint64
	}
	seen := map[key]bool{}
	// Led by one that is ended, or that has ended: its members follow it.
	sessions := r.orphaned()
	err := endAll(func() ([]stat, error) {
		found, err := r.strays(kept, sessions)
		for _, s := range found {
			seen[key{s.pid, s.start}] = true
			if s.pid == s.session {
				sessions[s.session] = true
			}
		}
		return found, err
	}, r.opts.Terminate, hurry)
	if err == nil {
		_, err = r.noted(kept) // the notes of what has ended by now
	}
	if err != nil {
		return len(seen), fmt.Errorf("end what an earlier server left running: %w", err)
	}
	return len(seen), nil
}

// strays finds them by the mark and by the notes of earlier servers.
func (r *Runner) strays(kept map[string]bool, sessions map[int]bool) ([]stat, error) {
	noted, err := r.noted(kept)
	if err != nil {
		return nil, err
	}
	all, err := processes(0)
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	return closure(all, func(s stat) verdict {
		if s.pid == self || s.pid == 1 {
			return foreign
		}
		m := readMark(s.pid)
		switch {
		case m.site != "" && m.site != r.site:
			return foreign
		case m.site == "" && sessions[s.session]:
			return root
		case m.site == "":
			return noted[s.pid]
		case strings.HasPrefix(m.run, r.id+"."), kept[m.record]:
			return foreign
		}
		return root
	}), nil
}

// orphaned returns the sessions whose leader is noted and gone: an nginx that was
// killed leaves workers that hold its port. The kernel gives a process id to
// nobody else while a session of that id has members (setsid(2)).
func (r *Runner) orphaned() map[int]bool {
	sessions := map[int]bool{}
	boot, err := bootID()
	if err != nil {
		return sessions
	}
	notes, _ := filepath.Glob(filepath.Join(r.site, "sessions", "*.json"))
	for _, path := range notes {
		rec, err := readRecord(path)
		if err != nil || rec.Boot != boot || rec.PID <= 1 || strings.HasPrefix(filepath.Base(path), r.id+".") {
			continue
		}
		if s, err := readStat(rec.PID); err != nil || s.start == rec.Start && s.gone() {
			sessions[rec.PID] = true
		}
	}
	return sessions
}

// noted returns the leaders that are noted and still run, and removes the
// notes of those that don't.
func (r *Runner) noted(kept map[string]bool) (map[int]verdict, error) {
	dir := filepath.Join(r.site, "sessions")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	leaders := map[int]verdict{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(path, ".json") {
			continue
		}
		ours := strings.HasPrefix(e.Name(), r.id+".")
		rec, err := readRecord(path)
		switch {
		case err == nil && rec.alive():
			leaders[rec.PID] = root
			if ours || kept[rec.Record] {
				leaders[rec.PID] = foreign
			}
		case !ours: // half-written by a server that was killed, or of an earlier boot
			os.Remove(path)
		}
	}
	return leaders, nil
}
