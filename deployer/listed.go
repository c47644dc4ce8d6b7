package deployer

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// listed is what a list shows of an app's own file and of the record of what is
// live. Both are read again only when they have changed: reading them is nearly
// all that a list of hundreds of apps costs.
type listed struct {
	file   string // the app's own, "" where its name cannot be told
	config stamp
	err    error // in the configuration
	url    string
	urls   []string

	record stamp
	live   *Record // without the contents of files
}

// stamp tells whether a file is still the one that was read.
type stamp struct{ info fs.FileInfo }

// stampOf looks at a file before it is read. One that was changed just now has
// none: a second change could leave it with the same time.
func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil || time.Since(info.ModTime()) < 2*time.Second {
		return stamp{}
	}
	return stamp{info}
}

func (a stamp) same(b stamp) bool {
	return a.info != nil && b.info != nil && os.SameFile(a.info, b.info) &&
		a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime())
}

// listed reads what a list shows of an app, or knows it. liveErr is why there is
// no record of what is live.
func (d *Deployer) listed(app string, l layout) (now listed, liveErr error) {
	d.mu.Lock()
	was := d.state(app).listed
	d.mu.Unlock()
	now.file = was.file
	if now.file == "" {
		now.file, _ = d.site.AppFile(app) // the site's files alone say where it is
	}
	if now.config = stampOf(now.file); now.config.same(was.config) {
		now.err, now.url, now.urls = was.err, was.url, was.urls
	} else if a, err := d.app(app); err != nil {
		now.err = err
	} else {
		now.url, now.urls = d.WebServer.URL(a), d.urls(app, a.Domains, a.URLPrefix)
	}
	if now.record = stampOf(filepath.Join(l.current(), recordName)); now.record.same(was.record) {
		now.live = was.live
	} else if rec, err := l.live(); err != nil {
		liveErr = err
	} else {
		now.live = rec.brief()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started { // a command alone asks once
		d.state(app).listed = now
	}
	return now, liveErr
}

// brief is what lists need of a record.
func (r *Record) brief() *Record {
	b := &Record{
		App: r.App, Instance: r.Instance, Release: r.Release, Commit: r.Commit, Subject: r.Subject,
		URL: r.URL, Domains: r.Domains, URLPrefix: r.URLPrefix,
	}
	if r.Plan != nil {
		b.Plan = &Plan{Process: r.Plan.Process}
	}
	return b
}
