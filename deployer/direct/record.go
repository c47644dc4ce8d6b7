package direct

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// record says which process a start gave, so that another server finds it.
type record struct {
	PID    int       `json:"pid"`
	Start  uint64    `json:"start"` // field 22 of /proc/PID/stat: clock ticks after boot
	Boot   string    `json:"boot"`  // /proc/sys/kernel/random/boot_id
	When   time.Time `json:"when"`
	Run    string    `json:"run"`
	Record string    `json:"record,omitempty"` // for Start: Process.Record
	Stamp  stamp     `json:"stamp,omitempty"`
	User   int       `json:"user,omitempty"` // its number; 0 where the family may be anybody
	// Private is the directory of its box, to be removed when it has ended.
	Private string   `json:"private,omitempty"`
	Args    []string `json:"args"`
}

func (r *Runner) family(rec record) family {
	return family{leader: rec.PID, start: rec.Start, token: rec.Run, stamp: rec.Stamp, user: rec.User, stamps: r.stamps}
}

// alive tells that the very process is there and has not ended.
func (r record) alive() bool {
	boot, err := bootID()
	if err != nil || boot != r.Boot || r.PID <= 1 {
		return false
	}
	s, err := readStat(r.PID)
	return err == nil && s.start == r.Start && !s.gone()
}

// write writes the record durably: the file and its name are on disk.
func (r record) write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// Beside it, so that the deployer finds what a server leaves that is killed now.
	if err := renameio.WriteFile(path, append(b, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func readRecord(path string) (record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("read %q: %w", path, err)
	}
	return r, nil
}

// remove removes the record if it is still this process's.
func (r record) remove(path string) {
	if now, err := readRecord(path); err == nil && now.PID == r.PID && now.Start == r.Start && now.Boot == r.Boot {
		os.Remove(path)
	}
}

// note leaves a record in the site's own directory for Strays, and returns its
// path. Programs that write a title over their environment (nginx, PostgreSQL,
// Python's setproctitle) are found by it alone. It is not synced, since it
// matters only while the machine is up, and a failure is none of the start's:
// the mark in the environment does for everything else.
func (r *Runner) note(rec record) string {
	dir := filepath.Join(r.site, "sessions")
	path := filepath.Join(dir, rec.Run+".json")
	b, err := json.Marshal(rec)
	if err != nil {
		return path
	}
	if os.WriteFile(path, b, 0o600) == nil {
		return path
	}
	if os.MkdirAll(dir, 0o700) == nil {
		os.WriteFile(path, b, 0o600)
	}
	return path
}
