package direct

import (
	"os/exec"
	"testing"
)

// The way for containers, which forbid unshare(2), gives the same process.
func TestViaShell(t *testing.T) {
	args := viaShell("/usr/bin/env", []string{"env", "sh", "-c", `umask; echo "$1"; env`, "sh", "a  b$c"}, 0o027)
	cmd := exec.Command("/bin/sh", args[1:]...)
	cmd.Env = []string{"A=1"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// PWD is of the inner shell, which prints.
	want := "0027\na  b$c\n"
	if got := string(out); len(got) < len(want) || got[:len(want)] != want {
		t.Errorf("%q", got)
	}
	cmd = exec.Command("/bin/sh", viaShell("/usr/bin/env", []string{"env"}, 0o027)[1:]...)
	cmd.Env = []string{"A=1"}
	if out, err := cmd.Output(); err != nil || string(out) != "A=1\n" {
		t.Errorf("the environment is %q, %v", out, err)
	}
}
