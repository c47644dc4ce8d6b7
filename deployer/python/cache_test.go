package python

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A build left a pipe where its cache was, and the deploy waited for the other end.
// And one that lies ever deeper cost a walk from the top for each directory.
func TestHostileCache(t *testing.T) {
	dir := t.TempDir()
	pipe, deep := filepath.Join(dir, "pip"), filepath.Join(dir, "uv")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(deep, strings.Repeat("d/", 2*maxNested))
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{below, deep} {
		if err := os.WriteFile(filepath.Join(p, "file"), []byte("1234"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan [2]int64, 1)
	go func() {
		evict(pipe, []cached{{path: "x"}}, 2, 1)
		done <- [2]int64{sizeOf(pipe, nil), sizeOf(deep, nil)}
	}()
	select {
	case got := <-done:
		if got != [2]int64{0, 4} {
			t.Errorf("%d", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
}
