package deployer

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
)

// transcript is the log of one operation: written by the operation, read at
// their own pace by any number of readers, the pusher among them. A reader
// that is slow or gone never holds up the writer.
type transcript struct {
	mu      sync.Mutex
	file    *os.File
	size    int64
	changed chan struct{} // closed and replaced at each write
	done    bool
	err     error // the first error of a write: a full disk
	readers int
	// verdict is where the failure of the operation begins, -1 for nowhere yet.
	verdict int64
}

// newTranscript makes the log file; close ends the transcript and the file.
func newTranscript(path string) (*transcript, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	return &transcript{file: f, changed: make(chan struct{}), verdict: -1}, nil
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return 0, os.ErrClosed
	}
	n, err := t.file.WriteAt(p, t.size)
	t.size += int64(n)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.wake()
	return n, err
}

func (t *transcript) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// close says that nothing more comes. Readers finish what is there; the last
// of them closes the file.
func (t *transcript) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.done {
		t.done = true
		t.wake()
		t.closeFile()
	}
}

func (t *transcript) closeFile() {
	if t.done && t.readers == 0 {
		t.file.Close()
	}
}

func (t *transcript) isDone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

// join counts a reader; a reader that comes after the end is told so.
func (t *transcript) join() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return os.ErrClosed
	}
	t.readers++
	return nil
}

func (t *transcript) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readers--
	t.closeFile()
}

// judge says that what is written from here on is why the operation failed.
func (t *transcript) judge() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.verdict = t.size
}

// follow copies the transcript to w from its beginning until it is closed, ctx
// is done or w fails. The caller has joined and leaves afterwards.
func (t *transcript) follow(ctx context.Context, w io.Writer) error {
	return t.copyTo(ctx, w, true)
}

// followWork is follow without the verdict, for a reader who gets the
// operation's error anyway.
func (t *transcript) followWork(ctx context.Context, w io.Writer) error {
	return t.copyTo(ctx, w, false)
}

func (t *transcript) copyTo(ctx context.Context, w io.Writer, all bool) error {
	var at int64
	buf := make([]byte, 16<<10)
	for {
		t.mu.Lock()
		size, changed, done := t.size, t.changed, t.done
		if !all && t.verdict >= 0 {
			size = min(size, t.verdict)
		}
		t.mu.Unlock()
		for at < size {
			n, err := t.file.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
			if n > 0 {
				if _, err := w.Write(buf[:n]); err != nil {
					return err
				}
				at += int64(n)
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if n == 0 {
				break
			}
		}
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if t.isDone() {
				continue // its last words are there
			}
			return ctx.Err()
		}
	}
}
