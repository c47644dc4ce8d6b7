package git_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"scotch/deployer/direct"
	"scotch/deployer/git"
)

// BenchmarkExport writes a tree of 2,000 files, as each deploy does.
func BenchmarkExport(b *testing.B) {
	dir := b.TempDir()
	s := &site{root: filepath.Join(dir, "repositories"), work: filepath.Join(dir, "work")}
	s.Git = git.New(s.root, direct.New(filepath.Join(dir, "run"), direct.Options{}), git.Options{})
	must := func(out string, err error) string {
		b.Helper()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	must("", s.Create(b.Context(), "blog", "main"))
	must(s.try("", "init", "-q", "-b", "main", s.work))
	for i := range 2000 {
		p := filepath.Join(s.work, fmt.Sprintf("part%02d/sub%02d", i%20, i/20%20), fmt.Sprintf("module%d.py", i))
		must("", os.MkdirAll(filepath.Dir(p), 0o755))
		must("", os.WriteFile(p, []byte(strings.Repeat(fmt.Sprintf("line %d\n", i), 100)), 0o644))
	}
	must(s.try(s.work, "add", "-A"))
	must(s.try(s.work, "commit", "-q", "-m", "Many files"))
	must(s.try(s.Path("blog"), "fetch", "-q", "--no-write-fetch-head", s.work, "HEAD"))
	c, err := s.Lookup(b.Context(), "blog", must(s.try(s.work, "rev-parse", "HEAD")))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		dst := filepath.Join(dir, fmt.Sprint("src", i))
		must("", os.Mkdir(dst, 0o755))
		if stats, err := s.Export(b.Context(), "blog", c, dst); err != nil || stats.Files != 2000 {
			b.Fatalf("%+v: %v", stats, err)
		}
	}
}
