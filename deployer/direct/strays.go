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
	noted, err := r.noted(kept, false)
	if err != nil {
		return 0, fmt.Errorf("find what an earlier server left running: %w", err)
	}
	err = endAll(func() ([]stat, error) {
		found, err := r.strays(kept, sessions, noted.stamps)
		for _, s := range found {
			seen[key{s.pid, s.start}] = true
			if s.pid == s.session {
				sessions[s.session] = true
			}
		}
		return found, err
	}, r.opts.Terminate, hurry)
	if err == nil {
		_, err = r.noted(kept, true)
		r.sweepBoxes(keep)
	}
	if err != nil {
		return len(seen), fmt.Errorf("end what an earlier server left running: %w", err)
	}
	return len(seen), nil
}

// sweepBoxes removes what boxes of earlier servers had for themselves, unless a
// record can't be read of what is to stay.
func (r *Runner) sweepBoxes(keep []string) {
	if r.opts.Box == nil {
		return
	}
	stay := map[string]bool{}
	for _, path := range keep {
		rec, err := readRecord(path)
		switch {
		case err == nil && rec.Private != "":
			stay[filepath.Base(rec.Private)] = true
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return
		}
	}
	r.opts.Box.sweep(func(name string) bool { return stay[name] || strings.HasPrefix(name, r.id+".") })
}

// strays finds them by the mark, by the notes of earlier servers, and by the
// stamps that are in those.
func (r *Runner) strays(kept map[string]bool, sessions map[int]bool, stamps map[stamp]bool) ([]stat, error) {
	noted, err := r.noted(kept, false)
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
		case m.site == "" && (sessions[s.session] || len(stamps) > 0 && stamps[stampOf(s.pid)]):
			return root
		case m.site == "":
			return noted.leaders[s.pid]
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

// notes are what earlier servers noted.
type notes struct {
	leaders map[int]verdict // that still run
	stamps  map[stamp]bool  // of what is to go, whether its leader runs or not
}

// noted reads the notes. With sweep it removes those of earlier servers whose
// leaders have ended.
func (r *Runner) noted(kept map[string]bool, sweep bool) (notes, error) {
	found := notes{map[int]verdict{}, map[stamp]bool{}}
	dir := filepath.Join(r.site, "sessions")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	} else if err != nil {
		return found, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(path, ".json") {
			continue
		}
		stays := strings.HasPrefix(e.Name(), r.id+".") // this server's own
		ours := stays
		rec, err := readRecord(path)
		stays = stays || err == nil && kept[rec.Record]
		if err == nil && rec.Stamp != 0 && !stays {
			found.stamps[rec.Stamp] = true
		}
		switch {
		case err == nil && rec.alive():
			found.leaders[rec.PID] = root
			if stays {
				found.leaders[rec.PID] = foreign
			}
		case sweep && !ours: // half-written by a server that was killed, or of an earlier boot
			os.Remove(path)
		}
	}
	return found, nil
}
