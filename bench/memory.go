package main

import (
	"bufio"
	"fmt"
	"os"
	"sync"
	"time"
)

// resident is what a process has in memory, in MB (VmRSS of proc_pid_status(5)).
func resident(pid int) float64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kB float64
		if n, _ := fmt.Sscanf(s.Text(), "VmRSS: %f kB", &kB); n == 1 {
			return kB * 1024 / 1e6
		}
	}
	return 0
}

// peakOf runs do and returns the most that a process had in memory meanwhile, in MB.
func peakOf(pid int, do func() error) (peak float64, err error) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, resident(pid))
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	err = do()
	close(stop)
	wg.Wait()
	return peak, err
}
