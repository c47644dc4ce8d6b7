package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// hosted is the web server's process where scotch runs it.
func (d *Deployer) hosted() *Process {
	h, ok := d.WebServer.(Hosted)
	if !ok {
		return nil
	}
	p := h.Process()
	if p != nil && p.Record == "" {
		p.Record = filepath.Join(d.site.Paths.Run, filepath.Base(p.Name)+".process.json")
	}
	return p
}

// startWeb writes the files that serve no app in particular and starts the web
// server where scotch runs it.
func (d *Deployer) startWeb(ctx context.Context, names []string, lives map[string]*Record, p *Process) error {
	if err := d.lockWeb(ctx, "", nil); err != nil {
		return err
	}
	defer d.unlockWeb()
	d.claims, d.claimsOK = map[string]map[claim]bool{}, true
	displaced := d.claimLive(lives)
	base, err := d.WebServer.Base()
	if err != nil {
		return err
	}
	pending := isThere(d.reloadMark()) // an earlier server did not come to that
	pub := &publication{d: d, before: map[string][]byte{}, modes: map[string]fs.FileMode{}}
	for _, f := range base {
		if err := d.files.Tidy("tidy-web", filepath.Dir(f.Path), filepath.Ext(f.Path)); err != nil {
			return err
		}
		if err := pub.put(f); err != nil {
			return errors.Join(err, pub.restore())
		}
	}
	if err := pub.putLive(names, lives, displaced, base); err != nil {
		d.log.Errorf("making the web server's files agree with what is live: %v", err)
	}
	if p == nil {
		if pending || len(pub.order) > 0 {
			if err := pub.testAndReload(ctx, pub.order); err != nil {
				// Blocks deploys, not serving.
				d.log.Errorf("%v", errors.Join(err, pub.restore()))
			}
		}
		return nil
	}
	if err := d.files.MkdirAll("make-logs", filepath.Dir(p.Log), d.site.DirMode); err != nil {
		return err
	}
	running, err := d.Runner.Adopt(*p)
	if err == nil {
		d.web = d.watch(p.Name, *p, "", nil, running)
		if pending || len(pub.order) > 0 {
			if err := pub.testAndReload(ctx, pub.order); err != nil {
				d.log.Errorf("%v", errors.Join(err, pub.restore()))
			}
		}
		return nil
	}
	if err := addressesFree(d.WebServer.(Hosted).Addresses()); err != nil {
		return err
	}
	if err := d.testWeb(ctx, pub.order); err != nil {
		return err
	}
	if running, err = d.Runner.Start(*p); err != nil {
		return fmt.Errorf("starting %s: %w", p.Name, err)
	}
	d.reloaded()
	d.web = d.watch(p.Name, *p, "", nil, running)
	return nil
}

// claimLive notes what each live app answers at. Of two at one place, as when
// directories were moved by hand, the one that went live last has it. The others
// are returned: with the files of both the web server would serve nobody.
func (d *Deployer) claimLive(lives map[string]*Record) (displaced map[string]bool) {
	displaced = map[string]bool{}
	names := slices.SortedFunc(maps.Keys(lives), func(a, b string) int {
		return cmp.Or(lives[b].Live.Compare(lives[a].Live), strings.Compare(a, b))
	})
	for _, name := range names {
		other, at := d.taken(name, lives[name].Domains, lives[name].URLPrefix)
		if other == "" {
			d.claimed(name, lives[name])
			continue
		}
		why := fmt.Sprintf("%q has its place, %s%s", other, at.domain, at.prefix)
		d.log.WithField("app", name).Errorf("it is not on the web: %s; set [app] domains or url_prefix of one of them, then restart %s", why, name)
		displaced[name] = true
		d.mu.Lock()
		d.state(name).displaced = why
		d.mu.Unlock()
	}
	return displaced
}

// putLive writes the files that the live records name, without those of the
// displaced apps, and removes the web
// server's other files of apps: those of a deploy or a destroy that a crash cut
// off. A record that cannot be read leaves all that is there.
func (p *publication) putLive(names []string, lives map[string]*Record, displaced map[string]bool, base []File) error {
	wanted := map[string]bool{}
	for _, f := range base {
		wanted[f.Path] = true
	}
	for _, name := range names {
		if displaced[name] {
			continue
		}
		if p.d.isDamaged(name) {
			return fmt.Errorf("what %q serves is not known: no file is changed", name)
		}
		live := lives[name]
		if live == nil {
			var err error
			live, err = p.d.layout(name).live()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
		}
		for _, f := range live.WebFiles {
			wanted[f.Path] = true
			if err := p.put(f); err != nil {
				return err
			}
		}
	}
	o, ok := p.d.WebServer.(Owner)
	if !ok {
		return nil
	}
	for _, pattern := range o.Owned() {
		dirs, err := filepath.Glob(filepath.Dir(pattern))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := p.d.files.Tidy("tidy-web", dir, filepath.Ext(pattern)); err != nil {
				return err
			}
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range files {
			if wanted[path] {
				continue
			}
			if err := p.remove(File{Path: path, Mode: 0o600}); err != nil {
				return err
			}
		}
	}
	return nil
}

// addressesFree tells of an address that is taken before a web server is
// started that would end again and again.
func addressesFree(addresses []string) error {
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return fmt.Errorf("the web server cannot listen at %q: %w\nanother program has that address, or it is not yours to take; [nginx] listen says which to take", a, err)
		}
		l.Close()
	}
	return nil
}
