package deployer

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	var all []string
	for i := range 30000 {
		all = append(all, fmt.Sprintf("line %d", i))
	}
	os.WriteFile(path, []byte(strings.Join(all, "\n")+"\n"), 0o600)
	for _, n := range []int{0, 1, 2, 29999, 30000, 40000} {
		got, err := tail(path, n)
		if err != nil {
			t.Fatal(err)
		}
		if want := all[max(0, len(all)-n):]; len(got) != len(want) || (n > 0 && got[0] != want[0]) {
			t.Errorf("tail(%d): %d lines", n, len(got))
		}
	}
}

// Who asked for two thousand million lines got the whole log into the server's
// memory, some hundred bytes for each line of one, as often as they asked.
func TestLogsOfManyShortLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	const lines = 3 << 20
	if err := os.WriteFile(path, bytes.Repeat([]byte("a\n"), lines), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 10, lines - 1, lines, 2000000000} {
		size, from, got, err := tailOf(path, n)
		if want := min(n, lines); err != nil || size != 2*lines || got != want || from != int64(2*(lines-want)) {
			t.Errorf("the last %d lines are %d from %d, %v", n, got, from, err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	out := &countingWriter{}
	if err := showLines(t.Context(), out, path, 0, 2*lines); err != nil || out.n != 2*lines {
		t.Errorf("%d bytes are shown, %v", out.n, err)
	}
	runtime.ReadMemStats(&after)
	if got := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && got > 32<<20 {
		t.Errorf("the heap grew by %d bytes", got)
	}
}

type countingWriter struct{ n int }

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

// A process goes on writing to the same descriptor while its log is rotated,
// and no byte is lost or written twice.
func TestRotateKeepsEveryByte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "000001.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var want bytes.Buffer
	for i := range 5000 {
		line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", i%50))
		want.WriteString(line)
		if _, err := log.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 {
			if err := rotate(path, 10, 1<<30); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got bytes.Buffer
	for i := 9; i >= 0; i-- {
		name := path
		if i > 0 {
			name = fmt.Sprintf("%s.%d", path, i)
		}
		data, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		got.Write(data)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes are left of %d", got.Len(), want.Len())
	}
	if _, err := os.Stat(path + ".5"); err != nil {
		t.Error("five rotations made fewer files")
	}
}

func TestRotateKeepsSoMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "000001.log")
	for range 6 {
		os.WriteFile(path, bytes.Repeat([]byte("y\n"), 8000), 0o640)
		if err := rotate(path, 3, 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	old, _ := filepath.Glob(path + ".*")
	if len(old) != 3 {
		t.Errorf("kept %v", old)
	}
}

// An app that writes without end does not fill the disk with its past.
func TestRotateDropsAFlood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "000001.log")
	os.WriteFile(path, bytes.Repeat([]byte("flood\n"), 1<<20), 0o640)
	if err := rotate(path, 5, 1<<20); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(path + ".1")
	if err != nil || len(kept) > 1<<20+200 || !bytes.HasPrefix(kept, []byte("scotch: ")) {
		t.Errorf("kept %d bytes, %.60q, %v", len(kept), kept, err)
	}
	// Who follows the log knows how far it went back.
	left, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if cut := cutOff(path + ".1"); cut+left.Size() != 6<<20 {
		t.Errorf("%d bytes were cut off, %d are left, of %d", cut, left.Size(), 6<<20)
	}
}

// On a full disk each look at a log, every two seconds, pushed the rotated ones one
// further, until the last of them was gone.
func TestRotateOnAFullDiskEatsNoLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "000001.log")
	names := map[string]string{"": strings.Repeat("a line of the log\n", 20_000), ".1": "older\n", ".2": "oldest\n"}
	for ending, text := range names {
		if err := os.WriteFile(path+ending, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A disk that has no room for the copy: no file may grow to its size.
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 100_000, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	var errs []error
	for range 3 {
		errs = append(errs, rotate(path, 2, 1<<30))
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	for _, err := range errs {
		if err == nil {
			t.Error("no error")
		}
	}
	for ending, text := range names {
		if got, err := os.ReadFile(path + ending); err != nil || string(got) != text {
			t.Errorf("%q: %d bytes, want %d, %v", ending, len(got), len(text), err)
		}
	}
	if all, _ := filepath.Glob(path + "*"); len(all) != len(names) {
		t.Errorf("there are %q", all)
	}
	// With room again it goes on as ever.
	if err := rotate(path, 2, 1<<30); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path + ".2"); string(got) != "older\n" {
		t.Errorf("%d bytes in the place of the older", len(got))
	}
}
