package deployer

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"scotch/config"
)

// plainServer is an application server that can do no more than it must.
type plainServer struct{ name string }

func (s plainServer) Name() string { return s.name }

func (plainServer) Plan(context.Context, *Instance, io.Writer) (*Plan, error) {
	return &Plan{Process: Process{Args: []string{"true"}}}, nil
}

func (s plainServer) Socket(runDir string) string { return filepath.Join(runDir, s.name+".sock") }

func (plainServer) Probe(context.Context, string, ProbeRequest) (int, error) {
	return 0, errors.New("asked for the health of an instance")
}

// countingServer is one that counts requests, or fails to.
type countingServer struct {
	plainServer
	requests int64
	err      error
}

func (s countingServer) Usage(context.Context, *Plan) (Usage, error) {
	return Usage{Requests: s.requests}, s.err
}

// witness is a web server that has seen that many failures of each socket.
type witness struct {
	NoWebServer
	failed map[string]int
}

func (w witness) Failures(_ context.Context, socket string, _ time.Time) (int, error) {
	return w.failed[filepath.Base(socket)], nil
}

// newTestDeployer is one of a site whose directories are all empty.
func newTestDeployer(t *testing.T, app AppServer, web WebServer) *Deployer {
	t.Helper()
	dir := t.TempDir()
	log := logrus.New()
	log.SetOutput(t.Output())
	file := filepath.Join(dir, "scotch.cfg")
	text := strings.ReplaceAll("[server]\nmode = standalone\n[paths]\nconfiguration = DIR\ninstances = DIR/instances\nrepositories = DIR/repositories\ndata = DIR/data\nlogs = DIR/logs\nrun = DIR/run\n", "DIR", dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	site, err := config.Open(config.Options{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Site: site, AppServer: app, WebServer: web, Repositories: noRepositories{}, Runner: noRunner{}, Log: log, SSH: "ssh scotch@host"})
}

// noRepositories are none.
type noRepositories struct{ Repositories }

func (noRepositories) Exists(string) bool { return false }
func (noRepositories) Path(string) string { return "/nonexistent" }

// noRunner starts nothing.
type noRunner struct{ Runner }

var errNotStarted = errors.New("nothing is started here")

func (noRunner) Start(Process) (Running, error) { return nil, errNotStarted }

// quietProcess is a process that runs, and notes that it was signalled.
type quietProcess struct {
	Running
	signals []int
}

func (*quietProcess) PID() int                { return 1 }
func (*quietProcess) Since() time.Time        { return time.Time{} }
func (p *quietProcess) Done() <-chan struct{} { return nil }
func (p *quietProcess) Signal(sig int) error  { p.signals = append(p.signals, sig); return nil }

func (p *quietProcess) Stop(context.Context) error { return p.Signal(int(syscall.SIGTERM)) }

// planOf is the record of an instance that an application server runs.
func planOf(d *Deployer, app, id, server string) *Record {
	dir := d.layout(app).instance(id)
	return &Record{App: app, Release: 1, Instance: id, Dir: dir, Plan: &Plan{
		Server: server, Socket: filepath.Join(dir, "run", server+".sock"), Process: Process{Args: []string{"true"}},
	}}
}

// All that is known of the requests to a release is that some failed: of how many
// nobody says. The watch took good releases back, because it took those that
// failed for all that there were.
func TestWatchJudgesNoShareOfRequestsThatNobodyCounts(t *testing.T) {
	uncounted := plainServer{"one"}
	for name, tt := range map[string]struct {
		server AppServer
		failed int
		back   bool
	}{
		"no meter":           {uncounted, 20, false},
		"a meter that fails": {countingServer{uncounted, 0, errors.New("busy")}, 20, false},
		"few of many":        {countingServer{uncounted, 1000, nil}, 20, false},
		"most":               {countingServer{uncounted, 30, nil}, 20, true},
		"none reached it":    {countingServer{uncounted, 0, nil}, 20, true},
		"too few":            {countingServer{uncounted, 5, nil}, 5, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTestDeployer(t, tt.server, witness{failed: map[string]int{"one.sock": tt.failed}})
			v := &vigil{d: d, app: "blog", new: &member{rec: planOf(d, "blog", "000002", "one")}}
			if why := v.judge(t.Context()); (why != "") != tt.back {
				t.Errorf("the watch says %q", why)
			}
		})
	}
}
