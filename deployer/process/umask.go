package process

import (
	"os"
	"strconv"
	"strings"
)

// Umask is this process's own, -1 where it can't be known without changing it.
func Umask() int {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return -1
	}
	_, rest, ok := strings.Cut(string(b), "\nUmask:")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(strings.TrimSpace(line), 8, 32)
	if !ok || err != nil {
		return -1
	}
	return int(n)
}
