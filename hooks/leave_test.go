package hooks_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"scotch/deployer"
)

// Lines arrive while the deploy runs, not at its end.
func TestOutputIsLive(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	read := make(chan struct{})
	s.deployer.run = func(_ context.Context, _ deployer.Request, out io.Writer) error {
		fmt.Fprintln(out, "installing")
		select {
		case <-read:
			return nil
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the line did not arrive")
		}
	}
	r, w := io.Pipe()
	_, wait := s.start(s.work, w, "scotch", "main")
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "installing") {
			break
		}
	}
	close(read)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(io.Discard, r)
	}()
	if status := wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	w.Close()
	<-copied
}

// The pusher is killed while the deploy runs: the deploy is told, and finished.
func TestPusherDies(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.gone = make(chan struct{})
	begun, told := make(chan struct{}), false
	s.deployer.run = func(ctx context.Context, _ deployer.Request, out io.Writer) error {
		close(begun)
		<-ctx.Done()
		told = true
		for range 1000 {
			fmt.Fprintln(out, strings.Repeat("still working ", 20))
		}
		return nil
	}
	var out bytes.Buffer
	cmd, wait := s.start(s.work, &out, "scotch", "main")
	<-begun
	cmd.Process.Signal(syscall.SIGKILL)
	close(s.gone) // as the ssh server notices
	wait()
	if !told {
		t.Error("the deploy did not learn of it")
	}
	s.wantRef("refs/heads/main", one)
	s.push(0, []string{"Everything up-to-date"}, "main")
}

// git and its hooks die without the ssh server's notice: the end of the socket says so.
func TestGitDies(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	begun := make(chan struct{})
	s.deployer.run = func(ctx context.Context, _ deployer.Request, out io.Writer) error {
		close(begun)
		<-ctx.Done()
		return fmt.Errorf("dropped while it waited: %w", ctx.Err())
	}
	var out bytes.Buffer
	cmd, wait := s.startGroup(&out, "scotch", "main")
	<-begun
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	wait()
	s.wantRef("refs/heads/main", "")
	s.deployer.run = nil
	s.push(0, []string{"live at"}, "main")
}
