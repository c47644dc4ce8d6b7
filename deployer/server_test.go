package deployer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scotch/config"
)

// goneLive puts releases on disk that were live, the last one as what is.
func goneLive(t *testing.T, d *Deployer, recs ...*Record) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, rec := range recs {
		l := d.layout(rec.App)
		rec.Source, rec.Venv = filepath.Join(l.sources(), rec.Instance), filepath.Join(l.dir, ".venvs", "key")
		file, err := d.site.AppFile(rec.App)
		must(err)
		for _, dir := range []string{filepath.Join(rec.Dir, "run"), rec.Source, filepath.Join(rec.Venv, "bin"), l.releases(), filepath.Join(d.site.Paths.Logs, rec.App), filepath.Dir(file)} {
			must(os.MkdirAll(dir, 0o755))
		}
		for _, name := range []string{venvRecord, "pyvenv.cfg", "bin/python"} {
			must(os.WriteFile(filepath.Join(rec.Venv, name), []byte("{}"), 0o644))
		}
		must(os.WriteFile(file, nil, 0o600))
		for _, path := range []string{filepath.Join(rec.Dir, recordName), l.release(rec.Release)} {
			must(rec.save(d.files, "write", path))
		}
		must(d.files.Symlink("switch", rec.Instance, l.current()))
	}
}

// changedServer is an app whose live v2 is run by the server two, as [plugins] has
// it, and watched; v1, which another server runs, is warm.
func changedServer(t *testing.T, other string) (d *Deployer, old, now *Record, warm *quietProcess) {
	t.Helper()
	d = newTestDeployer(t, plainServer{"two"}, NoWebServer{Socket: func(string) string { return "" }})
	t.Cleanup(func() { d.stop(errClosing); d.watchers.Wait() })
	old, now = planOf(d, "blog", "000001", "uwsgi"), planOf(d, "blog", "000002", "two")
	old.Plan.Server, now.Release = other, 2
	now.Previous, now.Live, now.Watch = old.Instance, time.Now(), time.Hour
	goneLive(t, d, old, now)
	a, err := d.configureTree(old, config.AppOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old.Environment, old.Domains, old.URLPrefix = instanceFor(a, old).environment(nil), a.Domains, a.URLPrefix
	warm = &quietProcess{}
	live := &member{d: d, rec: now, running: &quietProcess{}, ended: make(chan struct{})}
	over := make(chan struct{})
	close(over)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.started = true
	d.state("blog").live = live
	d.state("blog").vigil = &vigil{d: d, app: "blog", new: live, old: &member{d: d, rec: old, running: warm, ended: make(chan struct{})}, stop: func() {}, done: over}
	return d, old, now, warm
}

// rollBack is a rollback by a person, with its output.
func rollBack(t *testing.T, d *Deployer) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out strings.Builder
	_, err := d.Rollback(ctx, "blog", 0, "", Actor{Name: "ann"}, &out)
	return out.String(), err
}

// After a change of [plugins] the warm instance of the other application server
// was asked for its health by today's, in a protocol that it does not speak, and
// then ended for not answering.
func TestRollbackLeavesTheOtherServersWarmInstanceAlone(t *testing.T) {
	for _, recorded := range []string{"uwsgi", ""} { // records of before name none
		d, _, _, warm := changedServer(t, recorded)
		out, err := rollBack(t, d)
		if !errors.Is(err, errNotStarted) {
			t.Errorf("no new instance was tried: %v\n%s", err, out)
		}
		if want := "v1 ran with uwsgi, and [plugins] has two by now: it takes a new instance"; !strings.Contains(out, want) {
			t.Errorf("%q is not said:\n%s", want, out)
		}
		if len(warm.signals) > 0 {
			t.Errorf("the warm instance was sent the signals %v", warm.signals)
		}
	}
}

// Nor does today's server know how to count the other's requests.
func TestTheOtherServersInstanceIsNotMetered(t *testing.T) {
	d := newTestDeployer(t, countingServer{plainServer{"two"}, 7, nil}, NoWebServer{})
	for server, known := range map[string]bool{"two": true, "uwsgi": false, "": false} {
		rec := planOf(d, "blog", "000001", "uwsgi")
		rec.Plan.Server = server
		m := &member{rec: rec, running: &quietProcess{}}
		if n, ok := d.requests(t.Context(), m); ok != known {
			t.Errorf("of an instance of %q: %d requests, known %v", server, n, ok)
		}
		if p := d.processStatus(t.Context(), m, "warm"); p.Requests >= 0 != known {
			t.Errorf("ps of an instance of %q says %d requests", server, p.Requests)
		}
	}
}

// The failures of each are those of its own socket.
func TestTheOtherServersFailuresAreThoseOfItsSocket(t *testing.T) {
	d := newTestDeployer(t, countingServer{plainServer{"two"}, 20, nil}, witness{failed: map[string]int{"uwsgi.sock": 1, "two.sock": 15}})
	old, now := planOf(d, "blog", "000001", "uwsgi"), planOf(d, "blog", "000002", "two")
	v := &vigil{d: d, app: "blog", old: &member{rec: old}, new: &member{rec: now}}
	for rec, want := range map[*Record]int{old: 1, now: 15} {
		if n := v.failures(t.Context(), rec, time.Time{}); n != want {
			t.Errorf("of %s %d failed, want %d", rec.Plan.Server, n, want)
		}
	}
}

// The question where it hangs ends a process. It is for one that the operation has
// started, not for the one that was warm and is needed if the watch takes the new
// release back.
func TestRollbackThatIsNotAnsweredEndsNoWarmInstance(t *testing.T) {
	d, _, _, warm := changedServer(t, "uwsgi")
	d.AppServer = plainServer{"uwsgi"}
	file, err := d.site.AppFile("blog")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[health]\ntimeout = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := rollBack(t, d)
	if err == nil || !strings.Contains(err.Error(), "not healthy after 1s") {
		t.Errorf("the rollback: %v\n%s", err, out)
	}
	if len(warm.signals) > 0 {
		t.Errorf("the warm instance was sent the signals %v", warm.signals)
	}
}

// needyServer is one that each virtualenv must have something for.
type needyServer struct {
	plainServer
	needs string
}

func (s needyServer) Requires(context.Context, Interpreter) ([]string, error) {
	return []string{s.needs}, nil
}

// After a change of [plugins] what was built for the other server lacks what today's
// needs. The plugin's own words for that named rebuild, which means what is live,
// for kept releases too.
func TestVirtualenvsThatWereBuiltForAnotherServer(t *testing.T) {
	for needs, has := range map[string]string{"gunicorn>=20.1": "gunicorn==23.0.0", "Zope.Server [x]": "zope_server @ file:///x"} {
		d, old, now, _ := changedServer(t, "uwsgi")
		d.AppServer = needyServer{plainServer{"two"}, needs}
		old.Packages, now.Packages = []string{"flask==3.0.0"}, []string{"flask==3.0.0", has}
		goneLive(t, d, old, now)
		out, err := rollBack(t, d)
		name := strings.Fields(strings.ReplaceAll(needs, ">", " "))[0]
		if r, ok := errors.AsType[*RefusedError](err); !ok || r.Reason != "the virtualenv of v1 has no "+name+", which [plugins] two needs" || !strings.Contains(r.Hint, "deploy blog --ref refs/releases/v1") {
			t.Errorf("the rollback: %v\n%s", err, out)
		}
		if err := d.Restart(t.Context(), "blog", Actor{Name: "ann"}, &strings.Builder{}); !errors.Is(err, errNotStarted) {
			t.Errorf("a restart of what was built for it: %v", err)
		}
		now.Packages = nil
		goneLive(t, d, old, now)
		err = d.Restart(t.Context(), "blog", Actor{Name: "ann"}, &strings.Builder{})
		if r, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(r.Hint, "rebuild blog") {
			t.Errorf("a restart of what was not: %v", err)
		}
	}
}
