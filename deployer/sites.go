package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"scotch/config"
)

// Two sites of scotch can be on one machine, a trial beside what is in
// production. What belongs to the other one is neither removed nor overwritten,
// and its processes are not ended.

// Attributed is an extra ability of a WebServer whose files lie where another
// site's may lie too: the [paths] instances of the site that wrote a file, by
// its content; "" where it names none.
type Attributed interface {
	Instances(data []byte) string
}

// SelfCheck is an extra ability of a plugin: what would keep it from working,
// such as a program that a site file names and that is not there.
type SelfCheck interface {
	SelfCheck(ctx context.Context) error
}

// Check tells what this server must not be started with. It changes nothing:
// call it before Start.
func (d *Deployer) Check(ctx context.Context) error {
	if err := d.checkRun(); err != nil {
		return err
	}
	if err := d.checkWebFiles(); err != nil {
		return err
	}
	var errs []error
	for _, part := range []any{d.AppServer, d.WebServer} {
		if c, ok := part.(SelfCheck); ok {
			errs = append(errs, c.SelfCheck(ctx))
		}
	}
	return errors.Join(errs...)
}

// checkWebFiles refuses a start that would take the web server's files from the
// apps of another site. The same happens when [paths] instances was moved and
// its apps stayed behind.
func (d *Deployer) checkWebFiles() error {
	o, ok := d.WebServer.(Owner)
	if _, attributed := d.WebServer.(Attributed); !ok || !attributed {
		return nil
	}
	var paths []string
	for _, pattern := range o.Owned() {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		paths = append(paths, found...)
	}
	base, err := d.WebServer.Base()
	if err != nil {
		return err
	}
	for _, f := range base {
		paths = append(paths, f.Path)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := d.ofThisSite(path, data); err != nil {
			return err
		}
	}
	return nil
}

// ofThisSite refuses to change a file of the web server's that another site
// wrote, for apps that are live there.
func (d *Deployer) ofThisSite(path string, data []byte) error {
	w, ok := d.WebServer.(Attributed)
	if !ok || data == nil {
		return nil
	}
	other := w.Instances(data)
	live := d.liveElsewhere(other)
	if live == "" {
		return nil
	}
	hint := fmt.Sprintf("one %s serves one site: give this one its own with [%s] config_path, pid_path, test_command and reload_command, or try things out with scotch serve --standalone DIR\n", d.webName(), d.webName())
	if d.site.Mode == "standalone" {
		hint = fmt.Sprintf("give this one a directory of its own: [%s] config_path\n", d.webName())
	}
	return d.wrongInstances(fmt.Sprintf("%q is the file of another site, whose apps are in %q and live (%s)", path, other, live),
		hint+fmt.Sprintf("where it is this site, moved: set [paths] instances back to %s; what it names can be a link", other))
}

// runOf is the file in [paths] run that says which [paths] instances its
// processes are from.
func (d *Deployer) runOf() string { return filepath.Join(d.site.Paths.Run, "instances") }

// checkRun refuses a [paths] run whose processes are of other apps than those in
// [paths] instances: nobody would claim them, and they would be ended.
func (d *Deployer) checkRun() error {
	data, err := os.ReadFile(d.runOf())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	other := strings.TrimSpace(string(data))
	live := d.liveElsewhere(other)
	if live == "" {
		return nil
	}
	return d.wrongInstances(fmt.Sprintf("the processes of [paths] run, %q, are of the apps in %q, which are live (%s)", d.site.Paths.Run, other, live),
		fmt.Sprintf("set [paths] instances back to %s (what it names can be a link), or give this site another [paths] run", other))
}

// noteSite writes what checkRun reads.
func (d *Deployer) noteSite() error {
	want := d.site.Paths.Instances + "\n"
	if have, err := os.ReadFile(d.runOf()); err == nil && string(have) == want {
		return nil
	}
	return d.files.Write("note-site", d.runOf(), []byte(want), 0o600)
}

func (d *Deployer) wrongInstances(problem, hint string) error {
	at := d.site.Origin("paths", "instances")
	return &config.Error{
		File: at.File, Line: at.Line, Section: "paths", Key: "instances",
		Problem: fmt.Sprintf("is %q, but %s", d.site.Paths.Instances, problem), Hint: hint,
	}
}

// liveElsewhere names the apps that are live in another directory of instances,
// "" where there are none or it is this site's own by another name.
func (d *Deployer) liveElsewhere(instances string) string {
	if instances == "" || instances == d.site.Paths.Instances {
		return ""
	}
	theirs, err := os.Stat(instances)
	if err != nil {
		return "" // that site is gone
	}
	if ours, err := os.Stat(d.site.Paths.Instances); err == nil && os.SameFile(ours, theirs) {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join(instances, "*", "current", recordName))
	var names []string
	for _, path := range found {
		names = append(names, filepath.Base(filepath.Dir(filepath.Dir(path))))
	}
	const shown = 5
	if more := len(names) - shown; more > 0 {
		names = append(names[:shown], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
