package deployer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"scotch/config"
)

// No two apps answer at one place on the web.

// claim is a place on the web that an app answers at.
type claim struct{ domain, prefix string }

// checkClaims refuses two apps at one place. Only what is live claims: an app
// that was never deployed holds no place. The caller holds the web server's lock.
func (d *Deployer) checkClaims(app string, domains []string, prefix string) error {
	if !d.claimsOK {
		if err := d.readClaims(); err != nil {
			return err
		}
	}
	if other, c := d.taken(app, domains, prefix); other != "" {
		return fmt.Errorf("%q and %q both claim %s%s\n%s", app, other, c.domain, c.prefix, d.wayOut(app, other, c))
	}
	return nil
}

// taken names another app that has one of these places, "" where all are free. The
// caller holds the web server's lock.
func (d *Deployer) taken(app string, domains []string, prefix string) (other string, at claim) {
	for other, claims := range d.claims {
		if other == app {
			continue
		}
		for _, dom := range domains {
			if c := (claim{dom, prefix}); claims[c] {
				return other, c
			}
		}
	}
	return "", claim{}
}

// wayOut is the next step of an app that may not have a place that another one has.
func (d *Deployer) wayOut(app, other string, c claim) string {
	a, err := d.app(other)
	if gone, ok := errors.AsType[*fileGoneError](err); ok {
		return fmt.Sprintf("the file of %q is gone, and it serves on: put %s back, or take %q away: destroy %s --force", other, gone.file, other, other)
	}
	if err == nil && (a.URLPrefix != c.prefix || !slices.Contains(a.Domains, c.domain)) {
		return fmt.Sprintf("%q serves there, and its file says otherwise by now: deploy %q first\nwhere two apps change places, give one of them a third place meanwhile", other, other)
	}
	return "set [app] domains or url_prefix of one of them, in " + d.filesOf(app, other)
}

// filesOf names the files of two apps, for people.
func (d *Deployer) filesOf(one, other string) string {
	a, err := d.site.AppFile(one)
	b, err2 := d.site.AppFile(other)
	if err != nil || err2 != nil {
		return "apps-enabled/NAME.cfg on the server"
	}
	return a + " or " + b
}

// placeIsFree is checkClaims before anything is built; the switch asks again.
func (d *Deployer) placeIsFree(ctx context.Context, a *config.App) error {
	return d.placeIsFreeFor(ctx, a, nil)
}

func (d *Deployer) placeIsFreeFor(ctx context.Context, a *config.App, tell *Report) error {
	if err := d.lockWeb(ctx, a.Name, tell); err != nil {
		return err
	}
	defer d.unlockWeb()
	return d.checkClaims(a.Name, a.Domains, a.URLPrefix)
}

// claimed notes what an app that is live now answers at; nil for none. The
// caller holds the web server's lock.
func (d *Deployer) claimed(app string, live *Record) {
	d.mu.Lock()
	d.state(app).displaced = ""
	d.mu.Unlock()
	delete(d.claims, app)
	if live == nil || !d.claimsOK {
		return
	}
	d.claims[app] = map[claim]bool{}
	for _, dom := range live.Domains {
		d.claims[app][claim{dom, live.URLPrefix}] = true
	}
}

// readClaims reads, once, what each live app claims: by the record of what is
// live, for the app's file may say by now what was refused.
func (d *Deployer) readClaims() error {
	names, err := d.names()
	if err != nil {
		d.log.Warnf("reading the apps' files: %v", err)
	}
	d.claims = map[string]map[claim]bool{}
	d.claimsOK = true
	for _, name := range names {
		if live, err := d.layout(name).live(); err == nil {
			d.claimed(name, live)
		}
	}
	return nil
}
