package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// facts are what a reader needs to know of the machine. Nothing in them names it.
type facts struct {
	Date   string  `json:"date"`
	Cores  int     `json:"cores"`
	Memory float64 `json:"memory_gb"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
	Git    string  `json:"git"`
	SSH    string  `json:"openssh"`
	Nginx  string  `json:"nginx"`
	UWSGI  string  `json:"uwsgi"`
	Python string  `json:"python"`
	Scotch string  `json:"scotch"`
	Load   float64 `json:"load_before"` // of the minute before, to tell a quiet machine
}

func (f facts) String() string {
	return fmt.Sprintf("%s; %d cores, %.0f GB, Linux %s, load %.1f before; scotch %s, %s, git %s, OpenSSH %s, nginx %s, uWSGI %s, Python %s",
		f.Date, f.Cores, f.Memory, f.Kernel, f.Load, f.Scotch, f.Go, f.Git, f.SSH, f.Nginx, f.UWSGI, f.Python)
}

// factsOf asks each program for its version; one that is missing is an error
// that names it.
func factsOf(ctx context.Context, program string) (facts, error) {
	f := facts{Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Go: runtime.Version()}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		f.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-") // the rest may name its builder
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		f.Load, _ = strconv.ParseFloat(first, 64)
	}
	f.Memory = memoryTotal() / 1e9
	for _, of := range []struct {
		to   *string
		args []string
	}{
		{&f.Scotch, []string{program, "version"}},
		{&f.Git, []string{"git", "--version"}},
		{&f.SSH, []string{"ssh", "-V"}},
		{&f.Nginx, []string{"nginx", "-v"}},
		{&f.UWSGI, []string{"uwsgi", "--version"}},
		{&f.Python, []string{"/usr/bin/python3", "--version"}},
	} {
		out, err := exec.CommandContext(ctx, of.args[0], of.args[1:]...).CombinedOutput()
		if err != nil {
			return f, fmt.Errorf("%s: %w\n%s`make bench` installs what is missing", strings.Join(of.args, " "), err, out)
		}
		*of.to = versionIn(string(out))
	}
	return f, nil
}

func versionIn(text string) string {
	return regexp.MustCompile(`\d+(\.\d+)+[\w.-]*`).FindString(text)
}

func memoryTotal() float64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kB float64
		if n, _ := fmt.Sscanf(s.Text(), "MemTotal: %f kB", &kB); n == 1 {
			return kB * 1024
		}
	}
	return 0
}
