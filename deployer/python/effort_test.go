package python_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer/python"
)

// A lock of many packages that need each other, 1 MB in a push, kept the server
// busy for hours, for each was compared with all others, and nothing ended that.
func TestLockThatTakesForEver(t *testing.T) {
	app := &config.App{Name: "blog", InstanceID: "1"}
	const many = 5500
	packages := func(n int, more func(i int) string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "[[package]]\nname = 'p%d'\nversion = '1'\n%s", i, more(i))
		}
		return b.String()
	}
	chain := func(i int) string { return fmt.Sprintf("dependencies = ['p%d']\n", i+1) }
	tables := func(i int) string { return fmt.Sprintf("[package.dependencies]\np%d = '1'\n", i+1) }
	var all strings.Builder
	for i := range 320 {
		fmt.Fprintf(&all, "'p%d',", i)
	}
	each := func(int) string { return "dependencies = [" + all.String() + "]\n" }
	hashes := strings.Repeat("{file = 'x', hash = 'sha256:aaaa'},", 10_000)
	markers := func(i int) string { return fmt.Sprintf("groups = ['default']\nmarker = 'os_name == \"%d\"'\n", i) }
	const pdm = "[metadata]\nlock_version = '4.5.0'\n"
	const inherit = pdm + "strategy = ['inherit_metadata']\n"
	const pdmProject = "[project]\nname = 'blog'\ndependencies = ['p0']\n"
	const poetryEnd = "[metadata]\nlock-version = '1.1'\ncontent-hash = ''\n"
	for name, c := range map[string]struct{ file, project, lock, err string }{
		"pdm, a chain":     {"pdm.lock", pdmProject, pdm + packages(many, chain), "packages, and 5000 are taken"},
		"pdm, all of all":  {"pdm.lock", pdmProject, pdm + packages(320, each), "need each other in too many ways"},
		"pdm, hashes":      {"pdm.lock", pdmProject, pdm + packages(1, func(int) string { return "files = [" + hashes + "]\n" }), ""},
		"pdm, markers":     {"pdm.lock", pdmProject, inherit + strings.ReplaceAll(packages(5000, markers), "'p", "'q' #"), "of q have more than 10000 bytes"},
		"poetry, a chain":  {"poetry.lock", pyprojectPoetry("[tool.poetry.dependencies]\np0 = '1'\n"), packages(many, tables) + poetryEnd, "packages, and 5000 are taken"},
		"poetry, a marker": {"poetry.lock", pyprojectPoetry("[tool.poetry.dependencies]\np0 = {version = '1', markers = '" + strings.Repeat("(", 200_000) + "'}\n"), packages(1, func(int) string { return "" }) + poetryEnd, "is no marker"},
	} {
		src := tree(t, "pyproject.toml", c.project, c.file, c.lock)
		done := make(chan error, 1)
		begin := time.Now()
		go func() {
			_, _, err := python.Exported(app, src, "3.11.2")
			done <- err
		}()
		select {
		case err := <-done:
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%s: error %.300v", name, err)
			}
			t.Logf("%s: %s", name, time.Since(begin))
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: still reading after 30 s", name)
		}
	}
}
