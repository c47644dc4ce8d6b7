package deployer

import (
	"fmt"
	"os"
	"testing"
)

// manyReleases are the records of n releases, each of a commit of its own.
func manyReleases(t testing.TB, n int) layout {
	t.Helper()
	l := layout{dir: t.TempDir()}
	if err := os.Mkdir(l.releases(), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		r := &Record{App: "blog", Release: i, Instance: fmt.Sprintf("%06d", i), Commit: fmt.Sprintf("%040d", i), Packages: make([]string, 60)}
		if err := r.save(nil, "write-release", l.release(i)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// The newest come first by their numbers, not as text; no more are read than
// are asked for, so that a damaged one further back is nobody's business.
func TestNewestReleasesAreReadFirst(t *testing.T) {
	l := manyReleases(t, 12)
	if err := os.WriteFile(l.release(9), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	next := 12
	for r, err := range l.newest() {
		if err != nil || r.Release != next {
			t.Fatalf("got %+v, %v; want v%d", r, err, next)
		}
		if next--; next == 9 {
			break
		}
	}
	if all, err := l.history(); err == nil || len(all) != 11 {
		t.Errorf("%d releases, %v; want 11 and what is wrong with v9", len(all), err)
	}
}

// BenchmarkNewest is what retention reads at each deploy of an app with a
// thousand releases behind it.
func BenchmarkNewest(b *testing.B) {
	l := manyReleases(b, 1000)
	b.Run("five", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for range l.newest() {
				if n++; n == 5 {
					break
				}
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			if all, err := l.history(); err != nil || len(all) != 1000 {
				b.Fatal(err)
			}
		}
	})
}
