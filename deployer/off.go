package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"scotch/config"
)

// What stands in for a part that [plugins] turns off.

// NoWebServer answers nobody: an operator's own web server connects to the
// apps' sockets, which is what URL names.
type NoWebServer struct {
	// Plugins are those that would fill the part, for people to read.
	Plugins []string
	// Socket is where an app answers, through the link current.
	Socket func(app string) string
	// SocketGroup is the group that may connect there, empty for none.
	SocketGroup string
}

// Group makes it a Grouped: the operator's web server runs as somebody else too.
func (n NoWebServer) Group() string { return n.SocketGroup }

// Off makes it an Absent.
func (n NoWebServer) Off() []string { return n.Plugins }

func (NoWebServer) Name() string                         { return "web" }
func (NoWebServer) Render(Route) ([]File, error)         { return nil, nil }
func (NoWebServer) Base() ([]File, error)                { return nil, nil }
func (NoWebServer) Test() Command                        { return Command{Args: []string{"true"}, Env: []string{}} }
func (NoWebServer) Reload(context.Context, Runner) error { return nil }
func (n NoWebServer) URL(a *config.App) string           { return "unix:" + n.Socket(a.Name) }

// NoAppServer runs nothing: a deploy is checked out and switched to, for
// somebody else to serve.
type NoAppServer struct {
	// Plugins are those that would fill the part, for people to read.
	Plugins []string
}

// Off makes it an Absent.
func (n NoAppServer) Off() []string { return n.Plugins }

func (NoAppServer) Name() string { return "server" }

// Plan names no process.
func (NoAppServer) Plan(context.Context, *Instance, io.Writer) (*Plan, error) { return &Plan{}, nil }

func (NoAppServer) Socket(runDir string) string { return filepath.Join(runDir, "app.sock") }

func (NoAppServer) Probe(context.Context, string, ProbeRequest) (int, error) {
	return 0, errors.New("no application server is on ([plugins])")
}

// runs tells whether the plan has a process.
func (p *Plan) runs() bool { return p != nil && len(p.Process.Args) > 0 }

// Absent is an extra ability of what stands in for a part that [plugins] turns
// off: the names of the plugins that would fill it.
type Absent interface {
	Off() []string
}

// off names the plugins of a part that is off, nil where one is on.
func off(part any) []string {
	a, ok := part.(Absent)
	if !ok {
		return nil
	}
	if names := a.Off(); len(names) > 0 {
		return names
	}
	return []string{"its plugin"}
}

// outcome is what is true of an app after a switch: that it is live at its URL,
// or, where [plugins] turns a part off, how far it went and why. more is what
// there is to know besides.
func (d *Deployer) outcome(rec *Record) (line, more string) {
	server, web := off(d.AppServer), off(d.WebServer)
	names := append(append([]string{}, server...), web...)
	why := "[plugins] " + strings.Join(names, " and ") + " is off"
	if len(names) > 1 {
		why = strings.TrimSuffix(why, "is off") + "are off"
	}
	switch {
	case server != nil:
		return "registered, not started: " + why, ""
	case web != nil:
		return "running, not published: " + why, "it answers at " + rec.URL
	}
	return "live at " + rec.URL, ""
}

// unpublished is what a report says of a web server that is off. Files of one
// that was on are gone by now; whoever runs it has them in memory still.
func (p *publication) unpublished() string {
	if len(p.order) == 0 || p.d.site.Mode == "standalone" {
		return "off: nothing is published"
	}
	return fmt.Sprintf("off: %s removed; until the web server is reloaded it answers by them", plural(len(p.order), "file"))
}
