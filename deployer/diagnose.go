package deployer

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"scotch/config"
)

// Diagnoser is an extra ability of a Toolchain and of an AppServer: it tells the
// next step from what an instance that did not start has left in its log, "" where
// it knows none.
type Diagnoser interface {
	Diagnose(f Failure) (next string)
}

// Adviser is an extra ability of a Toolchain: what a person should know of a source
// that can go live as it is, a note each. packages is what Install returned.
type Adviser interface {
	Advise(ctx context.Context, app *config.App, src string, e EntryPoint, packages []string) []string
}

// advise tells what of a source works otherwise than its author may think.
func (op *operation) advise(ctx context.Context, a *config.App, rec *Record, src string) {
	if fi, err := os.Lstat(filepath.Join(src, ".env")); err == nil && fi.Mode().IsRegular() {
		op.report.Note("note: scotch reads no .env, the app itself may; its variables are set by: %s env %s set < .env", op.d.SSH, op.app)
	}
	if t, ok := op.d.Toolchain.(Adviser); ok {
		for _, n := range t.Advise(ctx, a, src, rec.EntryPoint, rec.Packages) {
			op.report.Note("note: %s", n)
		}
	}
}

// Failure is an instance that did not start.
type Failure struct {
	App        string
	Lines      []string // of its log, those that explain it; they are the app's own words
	Source     string   // where the code is, [app] root applied
	EntryPoint EntryPoint
	// Dependencies is the file that declares them, "" for none; Packages is what
	// was installed for it, as Toolchain.Install returned it.
	Dependencies string
	Packages     []string
	Deploy       bool   // new code, and not what was live before
	SSH          string // how commands are given from elsewhere: "ssh -p 2222 scotch@host"
	Again        string // the last step: "push again"
}

// diagnose is the next step for an instance that did not start, "" where nobody
// knows one.
func (op *operation) diagnose(a *config.App, rec *Record, lines []string) string {
	f := Failure{
		App: op.app, Lines: lines, Source: filepath.Join(rec.Source, filepath.FromSlash(rec.Root)), EntryPoint: rec.EntryPoint,
		Dependencies: rec.Dependencies, Packages: rec.Packages, Deploy: op.what == "deploy", SSH: op.d.SSH, Again: op.again(a),
	}
	for _, plugin := range []any{op.d.Toolchain, op.d.AppServer} {
		if d, ok := plugin.(Diagnoser); ok {
			if next := d.Diagnose(f); next != "" {
				return next
			}
		}
	}
	return ""
}

// unhealthy is the next step for an answer that is not healthy.
func (op *operation) unhealthy(a *config.App, rec *Record, status int, host string) string {
	next := fmt.Sprintf("healthy is %s ([health] status), asked with host %q; mend the app or set [health] path, status or host", a.Health.Status, host)
	if status == http.StatusBadRequest && rec.EntryPoint.Framework == "Django" {
		// https://docs.djangoproject.com/en/stable/ref/settings/#allowed-hosts
		next += fmt.Sprintf("\nDjango answers 400 to a host that is not in ALLOWED_HOSTS: add %q to it in the settings, or set [health] host to one that is", host)
	}
	return next
}

// colour matches the sequences that colour text and move the cursor (ECMA-48, 5.4),
// which logging for a terminal leaves in logs.
var colour = pattern("\x1b\\[[0-?]*[ -/]*[@-~]")

// damagedVenv tells whether a virtualenv lacks what none can be without.
func damagedVenv(dir string) bool {
	for _, name := range []string{venvRecord, "pyvenv.cfg", "bin/python"} {
		if !isThere(filepath.Join(dir, name)) {
			return true
		}
	}
	return false
}

// wholeVenv refuses to start a release whose virtualenv somebody has removed.
func (d *Deployer) wholeVenv(rec *Record) error {
	if rec.Venv == "" || !damagedVenv(rec.Venv) {
		return nil
	}
	return &RefusedError{Reason: fmt.Sprintf("the virtualenv of v%d is damaged or gone", rec.Release), Hint: d.anotherVenv(rec)}
}

// anotherVenv is how a release gets a virtualenv that can be used.
func (d *Deployer) anotherVenv(rec *Record) string {
	if live, err := d.liveRecord(rec.App); err != nil || live.Release != rec.Release {
		return fmt.Sprintf("to deploy its commit again: %s deploy %s --ref %s", d.SSH, rec.App, releaseRef(rec.Release))
	}
	return fmt.Sprintf("this makes it anew: %s rebuild %s", d.SSH, rec.App)
}

// packageName is what a requirement (PEP 508) and a line of Record.Packages begin with.
var packageName = pattern(`^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?`)

// sameName is a name as all ways to write it compare (PEP 503).
func sameName(requirement string) string {
	name := packageName().FindString(strings.TrimSpace(requirement))
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("._-", r) })
	return strings.Join(parts, "-")
}

// fitVenv refuses to start a release whose virtualenv lacks what the application
// server needs: it was built for another one.
func (d *Deployer) fitVenv(ctx context.Context, rec *Record) error {
	r, ok := d.AppServer.(Requirer)
	if !ok || rec.Venv == "" {
		return nil
	}
	needs, err := r.Requires(ctx, rec.Interpreter)
	if err != nil {
		return err
	}
	for _, n := range needs {
		if !slices.ContainsFunc(rec.Packages, func(p string) bool { return sameName(p) == sameName(n) }) {
			return &RefusedError{
				Reason: fmt.Sprintf("the virtualenv of v%d has no %s, which [plugins] %s needs", rec.Release, packageName().FindString(n), d.serverName()),
				Hint:   d.anotherVenv(rec),
			}
		}
	}
	return nil
}
