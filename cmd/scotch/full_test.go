package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRoomOnFullDisk: df, prune and [server] min_free need no byte of room, and
// neither does what they free make anything worse. A deploy works again afterwards.
func TestRoomOnFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs takes root")
	}
	s := newStandaloneWorld(t)
	s.configure("blog", "")
	if err := s.world.end(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	// The server's whole directory moves onto a small file system.
	aside := s.dir + ".aside"
	if err := errors.Join(os.Rename(s.dir, aside), os.Mkdir(s.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", s.dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		s.world.end(syscall.SIGINT)
		if err := syscall.Unmount(s.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("cp", "-a", aside+"/.", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	site := filepath.Join(s.dir, "scotch.cfg")
	text, err := os.ReadFile(site)
	if err == nil {
		err = os.WriteFile(site, []byte(strings.Replace(string(text), "[server]\n", "[server]\nmin_free = 1m\n", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	s.must("deploy", "blog")
	s.must("create", "gone")
	s.must("destroy", "gone", "--force")
	leftover := filepath.Join(s.dir, "logs", "blog", "000999.log")
	if err := os.WriteFile(leftover, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ballast, err := os.Create(filepath.Join(s.dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = ballast.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}

	var u struct{ Disks []struct{ Free int64 } }
	if err := json.Unmarshal([]byte(s.must("df", "--json")), &u); err != nil || len(u.Disks) != 1 || u.Disks[0].Free != 0 {
		t.Errorf("df: %v %+v", err, u)
	}
	if out := s.must("df"); !strings.Contains(out, "pushes are refused, [server] min_free") {
		t.Errorf("df says nothing of it:\n%s", out)
	}
	for range 10 { // lines that fill what is left of the audit log's last block
		if out, status := s.scotch("keys", "remove", strings.Repeat("x", 500)); status != 1 {
			t.Errorf("keys remove exits with %d:\n%s", status, out)
		}
	}
	if out, status := s.scotch("deploy", "blog"); status != 1 || !strings.Contains(out, "min_free") {
		t.Errorf("a deploy exits with %d:\n%s", status, out)
	}
	if out := s.must("prune", "--dry-run"); !strings.Contains(out, "blog  logs  4.2 MB") {
		t.Errorf("prune --dry-run:\n%s", out)
	}
	if status, body, _, err := s.request("blog.localhost", "/"); status != 200 {
		t.Errorf("it does not serve: %d %s %v", status, body, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := s.must("prune", "--destroyed", "0")
	if !strings.Contains(out, "blog") || !strings.Contains(out, "gone-") {
		t.Errorf("prune:\n%s", out)
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("the old log is still there")
	}
	s.must("deploy", "blog")
	if !strings.Contains(s.log.String(), "cannot be written") {
		t.Error("nothing is said of the audit log, which could not be written")
	}
	cmd := exec.CommandContext(ctx, s.program, "-c", site, "logs", "--audit", "-n", "1")
	cmd.Env = s.env
	if last, err := cmd.Output(); err != nil || !strings.Contains(string(last), "deploy") {
		t.Errorf("the audit log goes on with %q, %v", last, err)
	}
}
