package gitserver

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// nextWord is how long a fetch, or a push in its pack, may wait for its client's
// next word: git itself says something every five seconds while it works
// (uploadpack.keepAlive, receive.keepAlive), so what is silent is a client that
// keeps a process of git for nothing. Before its pack a push may take longer: a
// pre-push hook runs by then, and a large pack is made.
const nextWord = 2 * time.Minute

// The causes of the end of a fetch and a push whose client says nothing.
var (
	errSilentFetch = errors.New("nothing came from your git for too long")
	errSilentPush  = errors.New("nothing came from your git for too long\na pre-push hook that takes its time? run it first, then: git push --no-verify\n[server] idle_timeout is how long a push may wait for its pack")
)

// traffic tells for how long a client is waited for.
type traffic struct {
	io.Reader
	io.Writer
	slow    atomic.Bool  // it may take its time
	waiting atomic.Int32 // reads and writes under way
	last    atomic.Int64 // when one began or ended: time.Time.UnixNano
}

func (t *traffic) Read(p []byte) (int, error) { return t.wait(t.Reader.Read, p) }

func (t *traffic) Write(p []byte) (int, error) { return t.wait(t.Writer.Write, p) }

func (t *traffic) wait(do func([]byte) (int, error), p []byte) (int, error) {
	t.touch()
	t.waiting.Add(1)
	defer func() {
		t.touch()
		t.waiting.Add(-1)
	}()
	return do(p)
}

func (t *traffic) touch() { t.last.Store(time.Now().UnixNano()) }

// silence is how long nothing went either way; none while the client is not what
// is waited for.
func (t *traffic) silence() time.Duration {
	if t.waiting.Load() == 0 {
		return 0
	}
	return time.Since(time.Unix(0, t.last.Load()))
}

// watch calls end, once, when nothing went either way for idle, or for nextWord
// where that is less and the client may not take its time. The function that it
// returns ends it; it may be called more than once.
func (t *traffic) watch(idle time.Duration, end func()) (stop func()) {
	t.touch()
	quick := min(idle, nextWord)
	over := make(chan struct{})
	go func() {
		for {
			limit := quick
			if t.slow.Load() {
				limit = idle
			}
			left := limit - t.silence()
			if left <= 0 {
				end()
				return
			}
			select {
			case <-over:
				return
			case <-time.After(min(left, quick)):
			}
		}
	}()
	return sync.OnceFunc(func() { close(over) })
}
