package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"scotch/config"
	"scotch/deployer"
)

// Options is what a Notifier is made of.
type Options struct {
	config.Notify
	Runner deployer.Runner // runs the command
	User   string          // who it runs as, "" for the caller
	Log    logrus.FieldLogger
	// Queue is how many events may wait for each of the two. 0: 100.
	Queue int
	// Pause is the first one before a request is sent again; each next one is
	// twice as long. 0: 1 s.
	Pause time.Duration
	// Tries is how often a request is sent at most. 0: 6.
	Tries int
	// Grace is how long Close lets what waits be sent. 0: 3 s.
	Grace time.Duration
}

// Notifier sends events. It is a deployer.Observer.
type Notifier struct {
	Options
	server  string
	targets []*target
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
}

// target is one of the two that are told.
type target struct {
	name  string // for the log, without secrets
	queue chan []byte
	send  func(ctx context.Context, body []byte) error

	mu     sync.Mutex
	closed bool
	lost   int // events that found the queue full, since one found room
}

// New starts to send. Close it.
func New(o Options) *Notifier {
	n := &Notifier{Options: o}
	n.Queue, n.Tries = or(n.Queue, 100), or(n.Tries, 6)
	n.Pause, n.Grace = or(n.Pause, time.Second), or(n.Grace, 3*time.Second)
	n.server, _ = os.Hostname() // without a name it is left empty
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if n.Command != "" {
		n.add("the command of [notify]", n.run)
	}
	if n.URL != "" {
		n.add("the url of [notify], "+host(n.URL), n.post)
	}
	return n
}

func or[T int | time.Duration](v, fallback T) T {
	if v > 0 {
		return v
	}
	return fallback
}

// host is what may be shown of a URL: the rest of it may be a token.
func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "…"
	}
	return u.Scheme + "://" + u.Host + "/…"
}

func (n *Notifier) add(name string, send func(context.Context, []byte) error) {
	t := &target{name: name, queue: make(chan []byte, n.Queue), send: send}
	n.targets = append(n.targets, t)
	n.work.Go(func() {
		for body := range t.queue {
			if n.ctx.Err() != nil {
				return
			}
			if err := t.send(n.ctx, body); err != nil {
				n.Log.Warnf("%s was not told of an event: %v", t.name, err)
			}
		}
	})
}

// Observe implements deployer.Observer.
func (n *Notifier) Observe(e deployer.Event) {
	if len(n.targets) == 0 {
		return
	}
	m, ok := message(e, n.server, time.Now())
	if !ok {
		return
	}
	body, err := json.Marshal(m)
	if err != nil {
		n.Log.Errorf("an event for [notify]: %v", err)
		return
	}
	for _, t := range n.targets {
		n.offer(t, body)
	}
}

func (n *Notifier) offer(t *target, body []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	select {
	case t.queue <- body:
		if t.lost > 0 {
			n.Log.Warnf("%s is told of events again; %d were dropped", t.name, t.lost)
		}
		t.lost = 0
	default:
		if t.lost++; t.lost == 1 {
			n.Log.Warnf("%s does not take events: %d wait, further ones are dropped", t.name, cap(t.queue))
		}
	}
}

// Close lets what waits be sent for Options.Grace, then gives up the rest. It
// returns when nothing runs any more.
func (n *Notifier) Close() {
	for _, t := range n.targets {
		t.mu.Lock()
		if !t.closed {
			t.closed = true
			close(t.queue)
		}
		t.mu.Unlock()
	}
	late := time.AfterFunc(n.Grace, n.cancel)
	n.work.Wait()
	late.Stop()
	n.cancel()
}

// run runs the command.
func (n *Notifier) run(ctx context.Context, body []byte) error {
	var said tail
	err := n.Runner.Run(ctx, deployer.Command{
		Args: []string{"/bin/sh", "-c", n.Command}, Dir: "/",
		Env:  []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/nonexistent"},
		User: n.User, Stdin: bytes.NewReader(append(body, '\n')), Stdout: &said, Stderr: &said, Timeout: n.Timeout,
	})
	if last := said.last(); err != nil && last != "" {
		return fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// tail keeps the end of what the command says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxSaid = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-maxSaid):]
	return len(p), nil
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	return deployer.Neutral(lines[len(lines)-1])
}

// post sends a message, again after a pause while that may help.
func (n *Notifier) post(ctx context.Context, body []byte) error {
	pause := n.Pause
	for try := 1; ; try++ {
		again, err := n.postOnce(ctx, body)
		if err == nil || !again || try == n.Tries {
			return err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return fmt.Errorf("%w, and the server ends", err)
		}
	}
}

// postOnce tells whether sending it again may help. Its error names no URL.
func (n *Notifier) postOnce(ctx context.Context, body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the URL is not understood")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "scotch")
	client := &http.Client{
		// A redirect would turn the POST into a GET, and may lead anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		// What url.Error says besides its cause is the URL.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return true, err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection serves again
	switch {
	case resp.StatusCode < 300:
		return false, nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		return true, fmt.Errorf("it answered %s", resp.Status)
	}
	return false, fmt.Errorf("it answered %s", resp.Status)
}
