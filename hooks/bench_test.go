package hooks

import (
	"io"
	"strings"
	"testing"
)

// BenchmarkStream is what a push response goes through: lines in packets for the
// relay, which hands them to git's side-band.
func BenchmarkStream(b *testing.B) {
	line := "         | " + strings.Repeat("x", 60)
	b.SetBytes(int64(1000 * len(line)))
	for b.Loop() {
		s := newStream(io.Discard)
		out := newPrinter(s, "1")
		for range 1000 {
			out.note("%s", line)
		}
		out.end(0)
		s.close()
	}
}
