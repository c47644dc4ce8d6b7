package plugintest

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scotch/deployer"
)

func run(t *testing.T, r deployer.Runner, c deployer.Command) {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = patience
	}
	if err := r.Run(t.Context(), c); err != nil {
		t.Fatalf("%q: %v", c.Args, err)
	}
}

func background(t *testing.T, r deployer.Runner, ctx context.Context, c deployer.Command) <-chan error {
	t.Helper()
	errs := make(chan error, 1)
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		errs <- r.Run(ctx, c)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return errs
}

func await(t *testing.T, errs <-chan error) error {
	t.Helper()
	select {
	case err := <-errs:
		return err
	case <-time.After(patience):
		t.Fatal("the command does not end")
		return nil
	}
}

func start(t *testing.T, r deployer.Runner, p deployer.Process) deployer.Running {
	t.Helper()
	got, err := r.Start(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := got.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return got
}

func done(t *testing.T, p deployer.Running) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("process %d does not end", p.PID())
	}
}

// gone fails the test if a process runs. One that is not reaped has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n == 0 && err == nil {
		t.Errorf("process %d is left running", pid)
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// fifo is a named pipe through which the processes of a test report.
type fifo struct {
	path string
	f    *os.File
	r    *bufio.Reader
}

func newFIFO(t *testing.T) *fifo {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
	// Open for both, so that it has no end when a writer goes.
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &fifo{path, f, bufio.NewReader(f)}
}

func (f *fifo) pid(t *testing.T) int {
	t.Helper()
	f.f.SetReadDeadline(time.Now().Add(patience))
	line, err := f.r.ReadString('\n')
	if err != nil {
		t.Fatalf("no process reports: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
