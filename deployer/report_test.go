package deployer

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestReportLines(t *testing.T) {
	var b bytes.Buffer
	r := NewReport(&b)
	r.Headline("blog: deploying %s %q as v%d", "3f2c1ab", "Fix \x1b[1mheader", 13)
	r.Stage("checkout")
	r.Step("source", "214 files, 1.2 MB", 40*time.Millisecond)
	r.Step("health", "GET / 200 in 12 ms", -1)
	w := r.Output()
	w.Write([]byte("Collecting fl"))
	w.Write([]byte("ask\n10%\r20%\r\n\nlast \x1b[2J"))
	w.Close()
	want := strings.Join([]string{
		`-----> blog: deploying 3f2c1ab "Fix \x1b[1mheader" as v13`,
		"       checkout",
		"         source      214 files, 1.2 MB                                 0.04s",
		"         health      GET / 200 in 12 ms",
		"         | Collecting flask",
		"         | 10%",
		"         | 20%",
		`         | last \x1b[2J`,
		"",
	}, "\n")
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A flood without an end of line must not grow in memory.
func TestOutputBoundsALine(t *testing.T) {
	var b bytes.Buffer
	w := NewReport(&b).Output()
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	for range 256 {
		w.Write(chunk)
		if len(w.buf) > maxLine {
			t.Fatalf("%d bytes are held", len(w.buf))
		}
	}
	w.Close()
	if got := strings.Count(b.String(), "x"); got > maxOutput+(lastLines+1)*maxLine || got < maxOutput*9/10 {
		t.Errorf("%d bytes came out of %d", got, 256*len(chunk))
	}
	if !strings.Contains(b.String(), "lines are left out here") {
		t.Error("nothing says that lines are left out")
	}
}

// A flood of short lines once cost twenty times the bytes that were to be shown,
// and time with the square of a piece's length.
func TestFloodOfShortLines(t *testing.T) {
	var b bytes.Buffer
	w := NewReport(&b).Output()
	const lines = 4 << 20
	piece := bytes.Repeat([]byte("y\n"), 128<<10)
	for range lines * 2 / len(piece) {
		w.Write(piece)
	}
	for i := range 100 {
		fmt.Fprintf(w, "last %d\n", i)
	}
	w.Close()
	if b.Len() > maxOutput+8<<10 {
		t.Errorf("%d bytes were written", b.Len())
	}
	shown := strings.Split(strings.TrimSpace(b.String()), "\n")
	end := shown[len(shown)-lastLines-1:]
	if !strings.HasSuffix(end[0], "lines are left out here") {
		t.Errorf("%q stands before the last lines", end[0])
	}
	for i, l := range end[1:] {
		if want := fmt.Sprintf("         | last %d", 100-lastLines+i); l != want {
			t.Errorf("line %d of the end is %q, want %q", i, l, want)
		}
	}
	var left int
	if _, err := fmt.Sscanf(strings.TrimSpace(end[0]), "| … %d lines", &left); err != nil || left+len(shown)-1 != lines+100 {
		t.Errorf("%d shown and %d left out of %d: %v", len(shown)-1, left, lines+100, err)
	}
}
