package deployer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// From a release on, as a rollback from it needs them.
func TestReleasesFromOneOn(t *testing.T) {
	l := manyReleases(t, 12)
	var got []int
	for r, err := range l.from(3) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Release)
	}
	if want := []int{3, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("from v3 on there are %v, want %v", got, want)
	}
}

// Of a thousand releases those whose instance is there are found by the
// instances; of several of one release the last one counts.
func TestReleasesThatArePresent(t *testing.T) {
	l := manyReleases(t, 12)
	for id, release := range map[string]int{"000009": 9, "000011": 11, "000020": 9, "000021": 13} {
		if err := os.Mkdir(l.instance(id), 0o755); err != nil {
			t.Fatal(err)
		}
		r := &Record{App: "blog", Release: release, Instance: id, Source: "/src/" + id}
		if err := r.save(nil, "write-record", filepath.Join(l.instance(id), recordName)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(l.instance("000022"), 0o755); err != nil { // of a deploy that failed
		t.Fatal(err)
	}
	again := &Record{App: "blog", Release: 9, Instance: "000020"}
	if err := again.save(nil, "write-release", l.release(9)); err != nil {
		t.Fatal(err)
	}
	all, err := l.present()
	if err != nil || len(all) != 2 || all[0].release.Release != 11 || all[1].instance.Source != "/src/000020" {
		t.Errorf("present are %+v, %v; want v11 and v9 in instance 000020", all, err)
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
