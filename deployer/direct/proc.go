package direct

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// stat is what proc_pid_stat(5) says of a process.
type stat struct {
	pid, ppid, pgrp, session int
	state                    byte
	start                    uint64 // clock ticks after boot
}

// gone tells that nothing runs any more: what is left waits for its parent.
func (s stat) gone() bool { return s.state == 'Z' || s.state == 'X' }

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The second field is the program's name in brackets, which may hold
	// anything, brackets and spaces too.
	_, rest, ok := bytes.Cut(b[max(0, bytes.LastIndexByte(b, ')')):], []byte(") "))
	f := strings.Fields(string(rest)) // from field 3 on
	if !ok || len(f) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: unknown form", pid)
	}
	s := stat{pid: pid, state: f[0][0]}
	for i, to := range map[int]*int{1: &s.ppid, 2: &s.pgrp, 3: &s.session} {
		if *to, err = strconv.Atoi(f[i]); err != nil {
			return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	if s.start, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return s, nil
}

// processes reads all that run, from a number on. Those that end meanwhile are left out.
func processes(from int) ([]stat, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return nil, err
	}
	var all []stat
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || pid < from {
			continue
		}
		if s, err := readStat(pid); err == nil && !s.gone() {
			all = append(all, s)
		}
	}
	return all, nil
}

// mark is the mark in the environment of a process.
type mark struct{ site, run, record string }

// readMark reads what a process was started with. The environment of other
// users' processes can't be read but by root: they have no mark.
func readMark(pid int) mark {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !bytes.Contains(b, []byte("SCOTCH_")) {
		return mark{}
	}
	var m mark
	for kv := range strings.SplitSeq(string(b), "\x00") {
		switch k, v, _ := strings.Cut(kv, "="); k {
		case envSite:
			m.site = v
		case envRun:
			m.run = v
		case envRecord:
			m.record = v
		}
	}
	return m
}

// lastPID is the number that was given away last.
func lastPID() int {
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 5 {
		return 0
	}
	n, _ := strconv.Atoi(f[4])
	return n
}

// widePIDs tells that numbers are so many that they do not come round within
// the life of a command.
func widePIDs() bool {
	b, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && n >= 1<<20
}

// bootID tells one boot of the machine from another.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
