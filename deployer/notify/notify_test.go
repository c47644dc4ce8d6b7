package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"scotch/config"
	"scotch/deployer"
)

func event(app string) deployer.Event {
	return deployer.Event{State: deployer.EventLive, What: "deploy", App: app, Release: 3, Commit: "0123456789", Subject: "a\x1b[31m", By: deployer.Actor{Name: "ruben"}, URL: "http://x/"}
}

func messages(log *test.Hook) string {
	var all []string
	for _, e := range log.AllEntries() {
		all = append(all, e.Message)
	}
	return strings.Join(all, "\n")
}

// TestPostAgain: an answer of 5xx or 429 is tried again, in order, another is not;
// no token is logged.
func TestPostAgain(t *testing.T) {
	var mu sync.Mutex
	var got []string
	answers := []int{503, 429, 200, 200, 404}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var m Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v %v", err, r.Header)
		}
		if strings.ContainsRune(m.Text+m.Subject, 0x1b) {
			t.Errorf("control characters: %q", m.Text)
		}
		got = append(got, m.Event+" "+m.App)
		w.WriteHeader(answers[0])
		answers = answers[1:]
	}))
	defer srv.Close()
	log, hook := test.NewNullLogger()
	n := New(Options{Notify: config.Notify{URL: strings.Replace(srv.URL, "://", "://user:pass@", 1) + "/TOKEN?x=TOKEN", Timeout: 5 * time.Second}, Log: log, Pause: time.Millisecond, Grace: 20 * time.Second})
	for _, app := range []string{"a", "b", "c"} {
		n.Observe(event(app))
	}
	n.Close()
	if want := "deploy.live a, deploy.live a, deploy.live a, deploy.live b, deploy.live c"; strings.Join(got, ", ") != want {
		t.Errorf("got %v", got)
	}
	said := messages(hook)
	if !strings.Contains(said, "404 Not Found") || strings.Contains(said, "TOKEN") || strings.Contains(said, "pass") {
		t.Errorf("logged:\n%s", said)
	}
	n.Observe(event("late")) // after Close: nothing
}

// TestNobodyTakes: a URL that never answers holds up nobody; the queue is bounded.
func TestNobodyTakes(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(release)
	log, hook := test.NewNullLogger()
	n := New(Options{Notify: config.Notify{URL: srv.URL, Timeout: time.Minute}, Log: log, Queue: 10, Grace: 50 * time.Millisecond})
	begin := time.Now()
	for range 10000 {
		n.Observe(event("a"))
	}
	n.Close()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	said := messages(hook)
	if c := strings.Count(said, "further ones are dropped"); c < 1 || c > 2 {
		t.Errorf("logged:\n%s", said)
	}
}

type runner struct {
	deployer.Runner
	commands chan deployer.Command
}

func (r runner) Run(_ context.Context, c deployer.Command) error {
	in, _ := io.ReadAll(c.Stdin)
	c.Args = append(c.Args, string(in))
	io.WriteString(c.Stderr, "first\nwhat it said\n")
	r.commands <- c
	return errors.New("sh exited with 3")
}

func TestCommand(t *testing.T) {
	log, hook := test.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	r := runner{commands: make(chan deployer.Command, 10)}
	n := New(Options{Notify: config.Notify{Command: "tell", Timeout: 7 * time.Second}, Runner: r, User: "scotch", Log: log})
	n.Observe(event("a"))
	n.Observe(deployer.Event{State: deployer.EventLive, What: "restart", App: "a"})
	n.Observe(deployer.Event{State: deployer.EventFailed, What: "rollback", App: "a"})
	n.Observe(deployer.Event{State: deployer.EventLive, What: "rollback", App: "a", OldRelease: 2, Release: 1, Reason: "it died", By: deployer.Actor{Name: "scotch"}})
	n.Close()
	close(r.commands)
	var events []string
	for c := range r.commands {
		if c.User != "scotch" || c.Timeout != 7*time.Second || c.Args[2] != "tell" {
			t.Errorf("%+v", c)
		}
		var m Message
		if err := json.Unmarshal([]byte(c.Args[3]), &m); err != nil {
			t.Error(err)
		}
		events = append(events, m.Event+": "+m.Text)
	}
	want := []string{`deploy.live: a: v3 is live at http://x/: 0123456 "a?[31m" (ruben)`, "deploy.rolled_back: a: rolled back from v2 to v1: it died (scotch)"}
	if len(events) != 2 || events[1] != want[1] || !strings.HasPrefix(events[0], "deploy.live: a: v3 is live") {
		t.Errorf("%q", events)
	}
	if said := messages(hook); !strings.Contains(said, "sh exited with 3: what it said") {
		t.Errorf("logged:\n%s", said)
	}
}
