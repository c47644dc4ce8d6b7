package traffic

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Target is an app behind its web server.
type Target struct {
	Address string    // of the web server: HOST:PORT
	Host    string    // of the requests
	Begin   time.Time // what the times in complaints count from
}

// Load is requests of many kinds to one app, from Start to End.
type Load struct {
	target Target
	plan   *Schedule
	stop   chan struct{}
	wg     sync.WaitGroup

	connected atomic.Int32 // requests that have got a connection

	mu     sync.Mutex
	counts map[string]int
	bad    []string
	quick  []Answer
	// idle counts keep-alive connections that the web server closed in a reload before it
	// answered a byte: the one thing that a reload may do.
	idle int
	// slowest is the longest time that a quick request took.
	slowest time.Duration
}

// Answer is when a quick request was sent, and how long its answer took.
type Answer struct {
	At   time.Time
	Took time.Duration
}

// Kind is how one client asks.
type Kind struct {
	Name  string
	Path  string
	Body  int           // bytes, 0 for a GET
	Over  time.Duration // an upload that takes so long
	Close bool          // a connection for each request, closed by the client
	Fresh bool          // a connection for each request, closed by nobody
	Pause time.Duration // between an answer and the next request
}

// Slow tells whether its answers take long by themselves.
func (k Kind) Slow() bool { return k.Over > 0 || k.Path == "/slow" }

// Kinds is a mixture of what browsers and others do: connections that are kept and
// such that are closed by the client, answers that take 3 s, uploads that take 4 s.
func Kinds() []Kind {
	return []Kind{
		{Name: "keep-alive GET", Path: "/"},
		{Name: "keep-alive GET", Path: "/"},
		{Name: "keep-alive POST", Path: "/", Body: 300},
		{Name: "keep-alive POST", Path: "/", Body: 60_000},
		{Name: "closing GET", Path: "/", Close: true, Pause: 5 * time.Millisecond},
		{Name: "closing POST", Path: "/", Body: 2000, Close: true, Pause: 5 * time.Millisecond},
		{Name: "slow GET", Path: "/slow", Fresh: true},
		{Name: "slow GET", Path: "/slow", Fresh: true, Pause: time.Second},
		{Name: "slow upload", Path: "/", Body: 40_000, Over: 4 * time.Second, Fresh: true},
		{Name: "slow upload", Path: "/", Body: 400_000, Over: 4 * time.Second, Fresh: true, Pause: time.Second},
	}
}

// Start starts a client for each kind. The caller ends them with End.
func Start(t Target, plan *Schedule, kinds ...Kind) *Load {
	tr := &Load{target: t, plan: plan, stop: make(chan struct{}), counts: map[string]int{}}
	for i, k := range kinds {
		tr.wg.Go(func() { tr.client(i, k) })
	}
	return tr
}

// End stops all clients, once their requests are answered, and returns what went
// wrong.
func (tr *Load) End() []string {
	close(tr.stop)
	tr.wg.Wait()
	return tr.bad
}

// Total is how many requests were answered.
func (tr *Load) Total() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, c := range tr.counts {
		n += c
	}
	return n
}

// Count is how many requests of a kind were answered.
func (tr *Load) Count(name string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.counts[name]
}

// Connected is how many requests have got a connection so far.
func (tr *Load) Connected() int { return int(tr.connected.Load()) }

// Quick are the answers to requests that are not slow by themselves, as they came.
func (tr *Load) Quick() []Answer {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.quick)
}

// String sums up what was asked.
func (tr *Load) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	total, parts := 0, []string{}
	for _, name := range slices.Sorted(maps.Keys(tr.counts)) {
		total += tr.counts[name]
		parts = append(parts, fmt.Sprintf("%d %s", tr.counts[name], name))
	}
	return fmt.Sprintf("%s: %d requests (%s), %d failed, %d idle connections closed by a reload, slowest quick one %s",
		tr.target.Host, total, strings.Join(parts, ", "), len(tr.bad), tr.idle, tr.slowest.Round(time.Millisecond))
}

func (tr *Load) client(number int, k Kind) {
	transport := &http.Transport{DisableKeepAlives: k.Close}
	defer func() { transport.CloseIdleConnections() }()
	for n := 0; ; n++ {
		if k.Fresh {
			transport.CloseIdleConnections()
			transport = &http.Transport{}
		}
		begin, at := time.Now(), tr.plan.now()
		why, idle := tr.request(transport, k, fmt.Sprintf("%d.%d ", number, n), at)
		took := time.Since(begin)
		tr.mu.Lock()
		tr.counts[k.Name]++
		if idle {
			tr.idle++
		}
		if why != "" {
			tr.bad = append(tr.bad, fmt.Sprintf("%s at %.2fs, after %s: %s", k.Name, begin.Sub(tr.target.Begin).Seconds(), took.Round(time.Millisecond), why))
		}
		if !k.Fresh {
			tr.slowest = max(tr.slowest, took)
			tr.quick = append(tr.quick, Answer{begin, took})
		}
		tr.mu.Unlock()
		select {
		case <-tr.stop:
			return
		case <-time.After(max(k.Pause, 2*time.Millisecond)): // the machine has others to serve
		}
	}
}

// request sends one request and tells what is wrong with its answer, "" where
// nothing is, and whether an idle connection was found closed by a reload.
func (tr *Load) request(transport *http.Transport, k Kind, mark string, at moment) (why string, idle bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// Go asks again, by itself, where a connection that it had used before fails
	// before the answer: that is seen by the second connection.
	var connections atomic.Int32
	var reused, answered atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			connections.Add(1)
			reused.Store(i.Reused)
			tr.connected.Add(1)
		},
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	method, body := http.MethodGet, []byte(nil)
	if k.Body > 0 {
		method, body = http.MethodPost, bytes.Repeat([]byte(mark), k.Body/len(mark)+1)[:k.Body]
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+tr.target.Address+k.Path, bytes.NewReader(body))
	if err != nil {
		return err.Error(), false
	}
	req.Host = tr.target.Host
	if k.Over > 0 {
		req.Body, req.GetBody = io.NopCloser(&trickle{data: body, pause: k.Over / trickles, piece: len(body)/trickles + 1}), nil
		req.ContentLength = int64(len(body))
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		if reused.Load() && !answered.Load() && tr.plan.reloaded(at) {
			return "", true // an idle connection, closed before a byte was answered
		}
		return err.Error(), false
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Sprintf("status %d, then %v after %d bytes", resp.StatusCode, err, len(answer)), false
	}
	idle = connections.Load() > 1
	if idle && !tr.plan.reloaded(at) {
		return fmt.Sprintf("asked on %d connections, though the web server had no reason to reload", connections.Load()), false
	}
	if err := tr.judge(resp.StatusCode, answer, body, at); err != nil {
		return err.Error(), idle
	}
	return "", idle
}

// judge checks an answer: the version in its first line, then what was sent.
func (tr *Load) judge(status int, answer, sent []byte, at moment) error {
	if status != http.StatusOK {
		return fmt.Errorf("status %d: %.200q", status, answer)
	}
	version, echo, _ := bytes.Cut(answer, []byte("\n"))
	if !bytes.Equal(echo, sent) {
		return fmt.Errorf("sent %d bytes, got %d other ones back from %q", len(sent), len(echo), version)
	}
	if allowed := tr.plan.since(at); !slices.Contains(allowed, string(version)) {
		return fmt.Errorf("answered by %q, and only %q may serve", version, allowed)
	}
	return nil
}

const trickles = 20

// trickle is a body that comes slowly.
type trickle struct {
	data  []byte
	pause time.Duration
	piece int
}

func (t *trickle) Read(p []byte) (int, error) {
	if len(t.data) == 0 {
		return 0, io.EOF
	}
	time.Sleep(t.pause)
	n := copy(p, t.data[:min(t.piece, len(t.data))])
	t.data = t.data[n:]
	return n, nil
}
