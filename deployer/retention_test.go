package deployer

import (
	"path/filepath"
	"testing"
)

// A record without a virtualenv made the server's own working directory a store
// of virtualenvs that nobody uses.
func TestRetentionStaysBelowTheApp(t *testing.T) {
	d := newTestDeployer(t, plainServer{"one"}, NoWebServer{})
	l := d.layout("blog")
	rec := &Record{App: "blog", Release: 1, Instance: "000001"}
	if err := d.files.MkdirAll("make", l.instance("000001"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := rec.save(d.files, "write", filepath.Join(l.instance("000001"), recordName)); err != nil {
		t.Fatal(err)
	}
	list, err := d.sweepable("blog", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if !within(l.dir, r.path) {
			t.Errorf("%s of %q is no longer kept", r.op, r.path)
		}
	}
	if paths, err := l.outside(); err != nil || len(paths) > 0 {
		t.Errorf("outside of the app lie %v, %v", paths, err)
	}
}
