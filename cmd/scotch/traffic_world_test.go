package main

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

// schedule tells which versions of an app may answer, over time. During a
// switch that is the old one and the new one, at all other times one alone.
type schedule struct {
	mu   sync.Mutex
	sets [][]string
	// reloads counts the times that nginx may reload, and reloading those that
	// are not over.
	reloads, reloading int
}

func (s *schedule) may(versions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets = append(s.sets, versions)
}

func (s *schedule) beginReload() { s.mu.Lock(); s.reloads++; s.reloading++; s.mu.Unlock() }
func (s *schedule) endReload()   { s.mu.Lock(); s.reloading--; s.mu.Unlock() }

// moment is when a request began.
type moment struct{ set, reloads, reloading int }

func (s *schedule) now() moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return moment{len(s.sets) - 1, s.reloads, s.reloading}
}

// since returns the versions that were allowed at a moment and later.
func (s *schedule) since(m moment) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	allowed := map[string]bool{}
	for _, set := range s.sets[m.set:] {
		for _, v := range set {
			allowed[v] = true
		}
	}
	return slices.Sorted(maps.Keys(allowed))
}

// reloaded tells whether nginx may have reloaded since a moment.
func (s *schedule) reloaded(m moment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.reloading > 0 || s.reloads != m.reloads
}

// traffic sends requests of many kinds to one app through nginx, until stopped,
// and judges each answer.
type traffic struct {
	w    *pushWorld
	host string
	plan *schedule
	stop chan struct{}
	wg   sync.WaitGroup

	connected atomic.Int32 // requests that have got a connection

	mu     sync.Mutex
	counts map[string]int
	bad    []string
	// idle counts keep-alive connections that nginx closed in a reload before it
	// answered a byte: the one thing that a reload may do.
	idle int
	// slowest is the longest time that a quick request took.
	slowest time.Duration
}

// kind is how one client asks.
type kind struct {
	name  string
	path  string
	body  int           // bytes, 0 for a GET
	over  time.Duration // an upload that takes so long
	close bool          // a connection for each request, closed by the client
	fresh bool          // a connection for each request, closed by nobody
	pause time.Duration
}

// everyKind is the mixture that the issue names.
func everyKind() []kind {
	return []kind{
		{name: "keep-alive GET", path: "/"},
		{name: "keep-alive GET", path: "/"},
		{name: "keep-alive POST", path: "/", body: 300},
		{name: "keep-alive POST", path: "/", body: 60_000},
		{name: "closing GET", path: "/", close: true, pause: 5 * time.Millisecond},
		{name: "closing POST", path: "/", body: 2000, close: true, pause: 5 * time.Millisecond},
		{name: "slow GET", path: "/slow", fresh: true},
		{name: "slow GET", path: "/slow", fresh: true, pause: time.Second},
		{name: "slow upload", path: "/", body: 40_000, over: 4 * time.Second, fresh: true},
		{name: "slow upload", path: "/", body: 400_000, over: 4 * time.Second, fresh: true, pause: time.Second},
	}
}

func (w *pushWorld) traffic(app string, plan *schedule, kinds ...kind) *traffic {
	tr := &traffic{w: w, host: fmt.Sprintf("%s.localhost:%d", app, w.http), plan: plan, stop: make(chan struct{}), counts: map[string]int{}}
	for i, k := range kinds {
		tr.wg.Go(func() { tr.client(i, k) })
	}
	return tr
}

// end stops all clients, once their requests are answered, and returns what went
// wrong.
func (tr *traffic) end() []string {
	close(tr.stop)
	tr.wg.Wait()
	return tr.bad
}

// total is how many requests were answered.
func (tr *traffic) total() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, c := range tr.counts {
		n += c
	}
	return n
}

func (tr *traffic) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	total, parts := 0, []string{}
	for _, name := range slices.Sorted(maps.Keys(tr.counts)) {
		total += tr.counts[name]
		parts = append(parts, fmt.Sprintf("%d %s", tr.counts[name], name))
	}
	return fmt.Sprintf("%s: %d requests (%s), %d failed, %d idle connections closed by a reload, slowest quick one %s",
		tr.host, total, strings.Join(parts, ", "), len(tr.bad), tr.idle, tr.slowest.Round(time.Millisecond))
}

func (tr *traffic) client(number int, k kind) {
	transport := &http.Transport{DisableKeepAlives: k.close}
	defer func() { transport.CloseIdleConnections() }()
	for n := 0; ; n++ {
		if k.fresh {
			transport.CloseIdleConnections()
			transport = &http.Transport{}
		}
		begin, at := time.Now(), tr.plan.now()
		why, idle := tr.request(transport, k, fmt.Sprintf("%d.%d ", number, n), at)
		took := time.Since(begin)
		tr.mu.Lock()
		tr.counts[k.name]++
		if idle {
			tr.idle++
		}
		if why != "" {
			tr.bad = append(tr.bad, fmt.Sprintf("%s at %.2fs, after %s: %s", k.name, begin.Sub(tr.w.begin).Seconds(), took.Round(time.Millisecond), why))
		}
		if !k.fresh {
			tr.slowest = max(tr.slowest, took)
		}
		tr.mu.Unlock()
		select {
		case <-tr.stop:
			return
		case <-time.After(max(k.pause, 2*time.Millisecond)): // the machine has others to serve
		}
	}
}

// request sends one request and tells what is wrong with its answer, "" where
// nothing is, and whether an idle connection was found closed by a reload.
func (tr *traffic) request(transport *http.Transport, k kind, mark string, at moment) (why string, idle bool) {
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
	if k.body > 0 {
		method, body = http.MethodPost, bytes.Repeat([]byte(mark), k.body/len(mark)+1)[:k.body]
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", tr.w.http, k.path), bytes.NewReader(body))
	if err != nil {
		return err.Error(), false
	}
	req.Host = tr.host
	if k.over > 0 {
		req.Body, req.GetBody = io.NopCloser(&trickle{data: body, pause: k.over / trickles, piece: len(body)/trickles + 1}), nil
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
		return fmt.Sprintf("asked on %d connections, though nginx had no reason to reload", connections.Load()), false
	}
	if err := tr.judge(resp.StatusCode, answer, body, at); err != nil {
		return err.Error(), idle
	}
	return "", idle
}

// judge checks an answer: the version in its first line, then what was sent.
func (tr *traffic) judge(status int, answer, sent []byte, at moment) error {
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
