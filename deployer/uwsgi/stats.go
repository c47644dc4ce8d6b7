package uwsgi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"scotch/deployer"
)

// Stats is what an instance's master counts since its start.
type Stats struct {
	Requests   int64 // answered; a worker that is replaced keeps its count
	Exceptions int64 // requests that ended in an exception of the app
	Workers    int   // processes
	Busy       int   // requests under way
	Harakiri   int64 // workers ended because a request took too long
	RSS        int64 // bytes of memory of the master and its workers; pages that they share count for each
}

// Stats asks the master of the instance with that run directory, which runs as user.
func (u *UWSGI) Stats(ctx context.Context, runDir, user string) (Stats, error) {
	conn, err := deployer.DialApp(ctx, statsSocket(runDir), user)
	if err != nil {
		return Stats{}, fmt.Errorf("asking uWSGI for its counts: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// The master writes one JSON document and closes. It lists what each thread
	// does, so its size grows with [app] workers and threads.
	s, err := readStats(io.LimitReader(conn, 16<<20))
	if err != nil {
		return Stats{}, failed(ctx, "asking uWSGI for its counts", err)
	}
	return s, nil
}

func readStats(r io.Reader) (Stats, error) {
	var doc struct {
		PID     int
		Workers tally
	}
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return Stats{}, err
	}
	s := Stats(doc.Workers)
	s.RSS += resident(doc.PID)
	return s, nil
}

// maxWorkers is far above what anybody's [app] workers are.
const maxWorkers = 4096

// tally adds up the list of workers as it is read. The app can put something else
// in the socket's place: what is written there must not grow in memory.
type tally Stats

func (s *tally) UnmarshalJSON(list []byte) error {
	if string(list) == "null" {
		return nil
	}
	in := json.NewDecoder(bytes.NewReader(list))
	if open, err := in.Token(); err != nil || open != json.Delim('[') {
		return errors.Join(err, errors.New("it lists no workers"))
	}
	for n := 0; in.More(); n++ {
		var w struct {
			PID           int
			Requests      int64
			Exceptions    int64
			HarakiriCount int64 `json:"harakiri_count"`
			Status        string
			Cores         []struct {
				InRequest int `json:"in_request"`
			}
		}
		if err := in.Decode(&w); err != nil {
			return err
		}
		if n >= maxWorkers {
			return fmt.Errorf("it lists more than %d workers", maxWorkers)
		}
		s.Requests += w.Requests
		s.Exceptions += w.Exceptions
		s.Harakiri += w.HarakiriCount
		if w.PID == 0 || w.Status == "cheap" {
			continue
		}
		s.Workers++
		s.RSS += resident(w.PID)
		for _, c := range w.Cores {
			s.Busy += c.InRequest
		}
	}
	return nil
}

// resident is the resident set of a process in bytes (proc(5), statm), 0 where
// it has gone.
func resident(pid int) int64 {
	if pid <= 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
