package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"scotch/config"
)

// fileWeb is a web server with one file for an app, which says where its requests go.
type fileWeb struct {
	dir    string
	loaded string // the file as it was read last
}

func (w *fileWeb) file() string         { return filepath.Join(w.dir, "blog.conf") }
func (*fileWeb) Base() ([]File, error)  { return nil, nil }
func (*fileWeb) Test() Command          { return Command{Args: []string{"true"}} }
func (*fileWeb) URL(*config.App) string { return "http://blog/" }
func (w *fileWeb) Owned() []string      { return []string{filepath.Join(w.dir, "*.conf")} }
func (w *fileWeb) Render(r Route) ([]File, error) {
	return []File{{Path: w.file(), Data: []byte(r.Protocol + " " + r.Socket), Mode: 0o600}}, nil
}

func (w *fileWeb) Reload(context.Context, Runner) error {
	text, err := os.ReadFile(w.file())
	w.loaded = string(text)
	return err
}

// request is answered by an instance, by its id, where its socket is there and speaks
// as the web server does. Sockets are files that say their protocol and instance.
func (w *fileWeb) request() (string, error) {
	protocol, socket, _ := strings.Cut(w.loaded, " ")
	text, err := os.ReadFile(socket)
	if err != nil {
		return "", fmt.Errorf("502: %w", err)
	}
	speaks, id, _ := strings.Cut(string(text), " ")
	if speaks != protocol {
		return "", fmt.Errorf("502: it speaks %q, and is asked in %q", speaks, protocol)
	}
	return id, nil
}

type httpServer struct{ plainServer }

func (httpServer) Protocol() string { return ProtocolHTTP }

// runAll runs commands, which all succeed.
type runAll struct{ noRunner }

func (runAll) Run(context.Context, Command) error { return nil }

// changeover is an app of which uWSGI runs the live instance, on the point of a
// switch to one that speaks HTTP, with a web server that has loaded the live files.
func changeover(t *testing.T) (d *Deployer, web *fileWeb, op *operation, rec, old *Record) {
	t.Helper()
	web = &fileWeb{dir: t.TempDir()}
	d = newTestDeployer(t, plainServer{"uwsgi"}, web)
	d.Runner = runAll{}
	old, rec = planOf(d, "blog", "000001", "uwsgi"), planOf(d, "blog", "000002", "two")
	rec.Release, rec.Plan.Protocol = 2, ProtocolHTTP
	goneLive(t, d, rec, old)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Remove(d.layout("blog").release(2)))
	for _, r := range []*Record{old, rec} {
		must(os.WriteFile(r.Plan.Socket, []byte(r.Plan.Protocol+" "+r.Instance), 0o600))
	}
	a, err := d.configureTree(old, config.AppOptions{})
	must(err)
	must(d.render(a, d.layout("blog"), old))
	must(old.save(d.files, "write", filepath.Join(old.Dir, recordName)))
	must(os.WriteFile(web.file(), old.WebFiles[0].Data, 0o600))
	must(web.Reload(t.Context(), nil))

	d.AppServer = httpServer{plainServer{"two"}}
	op = &operation{d: d, app: "blog", what: "restart", l: d.layout("blog"), id: rec.Instance, dir: rec.Dir, report: NewReport(io.Discard)}
	must(d.render(a, op.l, rec))
	must(op.between(a, rec, old))
	return d, web, op, rec, old
}

// killed is what a kill at one operation of the disk is here.
type killed struct{}

// After a change of [plugins] the first switch of each app was answered with 502
// until current was renamed: nginx was told of the new socket's name before there
// was one at that place. At each operation of the disk a request must be answered,
// also where the switch fails there, or the server is killed there and started again.
func TestSwitchBetweenApplicationServers(t *testing.T) {
	const live, next = "000001", "000002"
	count := 0
	for _, way := range []string{"none", "fails", "killed"} {
		for at := 1; way == "none" && at == 1 || way != "none" && at <= count; at++ {
			d, web, op, rec, old := changeover(t)
			n, name, switched := 0, "", false
			answered := func(by string) {
				t.Helper()
				if got, err := web.request(); err != nil || got != by {
					t.Errorf("%s at %q: a request is answered by %q, %v; want %q", way, name, got, err, by)
				}
			}
			d.files.Before = func(op string) error {
				n++
				name = op
				if got, err := web.request(); err != nil {
					t.Errorf("%s at %d, before %q: %v", way, at, op, err)
				} else if got == next && d.layout("blog").liveID() != next {
					t.Errorf("%s at %d, before %q: what is not live answers", way, at, op)
				}
				switch {
				case way == "fails" && n == at:
					return errors.New("broken")
				case way == "killed" && n == at:
					panic(killed{})
				}
				return nil
			}
			err := func() (err error) {
				defer func() {
					if p := recover(); p != nil && p != (killed{}) {
						panic(p)
					}
				}()
				return op.goLive(t.Context(), rec, nil, old)
			}()
			d.files.Before = nil
			switched = d.layout("blog").liveID() == next
			want := live
			if switched {
				want = next
			}
			switch way {
			case "none":
				if err != nil || !switched {
					t.Fatalf("the switch: %v", err)
				}
				count = n
				answered(next)
				if text, _ := os.ReadFile(web.file()); string(text) != string(rec.WebFiles[0].Data) || !strings.Contains(string(text), "/current/run/two.sock") {
					t.Errorf("afterwards the file says %q", text)
				}
			case "fails":
				if (err == nil) != switched {
					t.Errorf("broken at %q: %v, and live is %s", name, err, d.layout("blog").liveID())
				}
				answered(want)
				if text, _ := os.ReadFile(web.file()); !strings.Contains(string(text), "/current/run/") {
					t.Errorf("broken at %q: the file says %q", name, text)
				}
			case "killed":
				if _, err := web.request(); err != nil {
					t.Errorf("killed at %q: %v", name, err)
				}
				again := New(d.Options)
				lives, _ := again.lives([]string{"blog"})
				if err := again.startWeb(t.Context(), []string{"blog"}, lives, nil); err != nil {
					t.Error(err)
				}
				answered(want)
				if text, _ := os.ReadFile(web.file()); string(text) != string(lives["blog"].WebFiles[0].Data) {
					t.Errorf("killed at %q, and started again: the file says %q", name, text)
				}
			}
		}
	}
	if count < 8 {
		t.Errorf("only %d operations were broken", count)
	}
}

// What the watch switches back to is reached by the other socket again.
func TestSwitchBackToTheOtherApplicationServer(t *testing.T) {
	d, web, op, rec, old := changeover(t)
	if err := op.goLive(t.Context(), rec, nil, old); err != nil {
		t.Fatal(err)
	}
	d.files.Before = func(op string) error {
		if _, err := web.request(); err != nil {
			t.Errorf("before %q: %v", op, err)
		}
		return nil
	}
	back := &operation{d: d, app: "blog", what: "rollback", l: op.l, id: rec.Instance, dir: rec.Dir, report: NewReport(io.Discard), by: itself()}
	if err := back.switchToWarm(t.Context(), rec, &member{d: d, rec: old, running: &quietProcess{}}); err != nil {
		t.Fatal(err)
	}
	if got, err := web.request(); err != nil || got != old.Instance || !strings.HasSuffix(web.loaded, "/current/run/uwsgi.sock") {
		t.Errorf("a request is answered by %q by way of %q, %v", got, web.loaded, err)
	}
}

// Between instances of one server nothing changes for the web server.
func TestSwitchOfOneApplicationServerNeedsNoReload(t *testing.T) {
	d, _, op, rec, _ := changeover(t)
	a, err := d.configureTree(rec, config.AppOptions{})
	if err != nil {
		t.Fatal(err)
	}
	op.meanwhile = nil
	if err := op.between(a, rec, rec); err != nil || op.meanwhile != nil {
		t.Errorf("meanwhile the web server has %v, %v", op.meanwhile, err)
	}
}
