package deployer

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// words are told to whoever asked for something, in order, by a goroutine of their
// own: one that reads slowly, or not at all, holds up neither an app's turn, nor a
// slot, nor the server's end.
type words struct {
	mu    sync.Mutex
	wake  *sync.Cond
	queue []func()
	ended bool
	told  chan struct{} // closed when all is told after end
}

func newWords() *words {
	w := &words{told: make(chan struct{})}
	w.wake = sync.NewCond(&w.mu)
	go w.run()
	return w
}

func (w *words) run() {
	defer close(w.told)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.queue) == 0 && !w.ended {
			w.wake.Wait()
		}
		if len(w.queue) == 0 {
			return
		}
		tell := w.queue[0]
		w.queue = w.queue[1:]
		w.mu.Unlock()
		tell()
		w.mu.Lock()
	}
}

// say has tell called once all before it is told. It waits for nothing.
func (w *words) say(tell func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, tell)
	w.wake.Signal()
}

// end waits until all is told, which is as long as a client that reads nothing
// stays. Nobody waits behind it: the caller has let go of all that others need.
func (w *words) end() {
	w.mu.Lock()
	w.ended = true
	w.wake.Signal()
	w.mu.Unlock()
	<-w.told
}

// lastOutput is how long a reader may take for a piece of a command's output, once
// the command is to end.
const lastOutput = 2 * time.Second

// errNotRead is why the output of a command that is to end goes nowhere.
var errNotRead = errors.New("the output was not read in time")

// patient is a writer whose reader may take its time until over is closed. A piece
// that it does not take then, within lastOutput, is the last one: it stays with the
// goroutine that writes it, until the client's connection ends. It is for one at a time.
type patient struct {
	w    io.Writer
	over <-chan struct{}
	err  error
}

// patiently is w, or a patient w where that may hold up its writer.
func patiently(w io.Writer, over <-chan struct{}) io.Writer {
	switch w.(type) {
	case nil, *os.File:
		return w
	}
	return &patient{w: w, over: over}
}

func (p *patient) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	b = append([]byte(nil), b...) // the caller's own, once this has returned
	go func() {
		n, err := p.w.Write(b)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-p.over:
	}
	late := time.NewTimer(lastOutput)
	defer late.Stop()
	select {
	case r := <-done:
		return r.n, r.err
	case <-late.C:
		p.err = errNotRead
		return 0, p.err
	}
}
