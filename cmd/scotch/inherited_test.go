package main

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A descriptor that serve inherits reached apps, builds and run.
func TestInheritedDescriptorsStayHere(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD, 200) // without FD_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	there := func() bool {
		return exec.CommandContext(t.Context(), "test", "-e", "/proc/self/fd/"+strconv.Itoa(fd)).Run() == nil
	}
	if !there() {
		t.Fatal("the descriptor is not inherited to begin with")
	}
	if err := keepInherited(); err != nil {
		t.Fatal(err)
	}
	if there() {
		t.Error("a child has what the server inherited")
	}
}
