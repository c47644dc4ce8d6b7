package system

import (
	"strings"
	"testing"
)

// The runner's own tests, and the suite that every runner passes.
func TestRunner(t *testing.T) {
	each(t, func(t *testing.T, m *machine) {
		m.copy(build(t, "test", "scotch/deployer/systemd"), "/opt/scotch/systemd.test", 0o755)
		// What is confined has a /tmp of its own.
		m.run("mkdir", "-m", "1777", "/srv/tests")
		out, status := m.try("", "env", "SCOTCH_TEST_SYSTEMD=1", "TMPDIR=/srv/tests", "/opt/scotch/systemd.test", "-test.v", "-test.timeout=150s", "-test.bench=.")
		if status != 0 || strings.Contains(out, "--- SKIP") {
			t.Fatalf("exit status %d\n%s", status, out)
		}
		t.Log("\n" + out)
	})
}
