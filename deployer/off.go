package deployer

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"scotch/config"
)

// What stands in for a part that [plugins] turns off.

// NoWebServer answers nobody: an operator's own web server connects to the
// apps' sockets, which is what URL names.
type NoWebServer struct {
	// Socket is where an app answers, through the link current.
	Socket func(app string) string
	// SocketGroup is the group that may connect there, empty for none.
	SocketGroup string
}

// Group makes it a Grouped: the operator's web server runs as somebody else too.
func (n NoWebServer) Group() string { return n.SocketGroup }

func (NoWebServer) Name() string                         { return "web" }
func (NoWebServer) Render(Route) ([]File, error)         { return nil, nil }
func (NoWebServer) Base() ([]File, error)                { return nil, nil }
func (NoWebServer) Test() Command                        { return Command{Args: []string{"true"}, Env: []string{}} }
func (NoWebServer) Reload(context.Context, Runner) error { return nil }
func (n NoWebServer) URL(a *config.App) string           { return "unix:" + n.Socket(a.Name) }

// NoAppServer runs nothing: a deploy is checked out and switched to, for
// somebody else to serve.
type NoAppServer struct{}

func (NoAppServer) Name() string { return "server" }

// Plan names no process.
func (NoAppServer) Plan(context.Context, *Instance, io.Writer) (*Plan, error) { return &Plan{}, nil }

func (NoAppServer) Socket(runDir string) string { return filepath.Join(runDir, "app.sock") }

func (NoAppServer) Probe(context.Context, string, ProbeRequest) (int, error) {
	return 0, errors.New("no application server is on ([plugins])")
}

// runs tells whether the plan has a process.
func (p *Plan) runs() bool { return p != nil && len(p.Process.Args) > 0 }
