package deployer

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"
)

// BenchmarkReport is an installer's output on its way into a deploy's log and from
// there to a pusher: a megabyte of lines.
func BenchmarkReport(b *testing.B) {
	output := bytes.Repeat([]byte("Downloading a-package-with-a-name-1.2.3-py3-none-any.whl (123 kB)\n"), 1<<20/66)
	b.SetBytes(int64(len(output)))
	dir := b.TempDir()
	for b.Loop() {
		t, err := newTranscript(filepath.Join(dir, "deploy.log"))
		if err != nil {
			b.Fatal(err)
		}
		if err := t.join(); err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			defer t.leave()
			done <- t.follow(b.Context(), io.Discard)
		}()
		w := NewReport(t).Output()
		for rest := output; len(rest) > 0; { // as it comes out of a pipe
			n := min(4096, len(rest))
			w.Write(rest[:n])
			rest = rest[n:]
		}
		w.Close()
		t.close()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
