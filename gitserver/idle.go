package gitserver

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// fetchWord is how long a fetch may wait for its client's next word: git itself
// says something every five seconds while it works (uploadpack.keepAlive), so
// what is silent is a client that keeps a process of git for nothing.
const fetchWord = 2 * time.Minute

// errSilent is the cause of the end of a fetch whose client says nothing.
var errSilent = errors.New("nothing came from your git for too long")

// traffic tells when anything last went either way.
type traffic struct {
	io.Reader
	io.Writer
	last atomic.Int64 // time.Time.UnixNano
}

func (t *traffic) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.last.Store(time.Now().UnixNano())
	return n, err
}

func (t *traffic) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	t.last.Store(time.Now().UnixNano())
	return n, err
}

// watch calls end when nothing went either way for so long, until the function
// that it returns is called.
func (t *traffic) watch(limit time.Duration, end func()) (stop func()) {
	t.last.Store(time.Now().UnixNano())
	over := make(chan struct{})
	go func() {
		for left := limit; left > 0; left = limit - time.Since(time.Unix(0, t.last.Load())) {
			select {
			case <-over:
				return
			case <-time.After(left):
			}
		}
		end()
	}()
	return func() { close(over) }
}
