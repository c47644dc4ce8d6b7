package deployer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"

	"scotch/config"
)

// stuck is the writer of a client that reads nothing until open is closed.
type stuck struct {
	open chan struct{}
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.open
	return s.Buffer.Write(p)
}

// A client with a closed window held whatever its operation held: its words are said
// without waiting for it, in order, and end waits for them alone.
func TestWordsWaitForNoReader(t *testing.T) {
	out := &stuck{open: make(chan struct{})}
	w := newWords()
	for _, s := range []string{"one ", "two ", "three"} {
		w.say(func() { io.WriteString(out, s) })
	}
	close(out.open)
	w.end()
	if got := out.String(); got != "one two three" {
		t.Errorf("%q", got)
	}
}

// A command that was to end with the server waited for whoever read its output.
func TestOutputOfWhatEndsWaitsForNoReader(t *testing.T) {
	out, over := &stuck{open: make(chan struct{})}, make(chan struct{})
	w := patiently(out, over)
	close(over)
	for range 3 {
		if _, err := io.WriteString(w, "x"); !errors.Is(err, errNotRead) {
			t.Fatal(err)
		}
	}
	close(out.open)
	// Who reads has all of it, also then.
	var read bytes.Buffer
	w = patiently(&read, over)
	for range 3 {
		io.WriteString(w, "x")
	}
	if read.String() != "xxx" {
		t.Errorf("%q", read.String())
	}
}

// A reader whose context ends just after the transcript does misses nothing of it.
func TestTranscriptsLastWordsAreRead(t *testing.T) {
	for range 100 {
		log, err := newTranscript(filepath.Join(t.TempDir(), "deploy.log"))
		if err != nil {
			t.Fatal(err)
		}
		if err := log.join(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var read bytes.Buffer
		done := make(chan error, 1)
		go func() { done <- log.follow(ctx, &read) }()
		io.WriteString(log, "live at")
		log.close()
		cancel()
		if err := <-done; err != nil || read.String() != "live at" {
			t.Fatalf("%q, %v", read.String(), err)
		}
		log.leave()
	}
}

// The server's stop waited without end for whatever was under way.
func TestCloseIsBounded(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	d := New(Options{Site: &config.Site{}, Log: log})
	d.started, d.lastOfWork = true, 1
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.Close(ctx)
	if d.ctx.Err() == nil {
		t.Error("what is under way was not cancelled")
	}
	d.work.Done()
}
