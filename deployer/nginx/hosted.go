package nginx

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"scotch/deployer"
)

type hostedData struct {
	User, Group, PID, Log, MIME, HTTP, Sites string
	Temp                                     struct{ Body, Proxy, FastCGI, UWSGI, SCGI string }
}

// hosted fills nginx.conf of the nginx that scotch runs itself.
func (n *NGINX) hosted() hostedData {
	d := hostedData{
		PID: n.pidPath, Log: n.log(), MIME: n.file("mime.types"), HTTP: n.httpFile(),
		Sites: filepath.Join(n.sitesPath, "scotch-*.conf"),
	}
	d.User, d.Group, _ = strings.Cut(n.owner, " ")
	// nginx makes them itself, with mode 0700.
	d.Temp.Body, d.Temp.Proxy, d.Temp.FastCGI = n.file("body"), n.file("proxy"), n.file("fastcgi")
	d.Temp.UWSGI, d.Temp.SCGI = n.file("uwsgi"), n.file("scgi")
	return d
}

func (n *NGINX) log() string { return filepath.Join(n.logs, "nginx.log") }

// Process returns the nginx to supervise in standalone mode, nil otherwise. It
// needs the files of Base, and [paths] logs to exist. Its Record is the
// caller's to choose. SIGTERM ends it at once: apps' requests under way are
// lost, so it is stopped when everything is.
func (n *NGINX) Process() *deployer.Process {
	if !n.standalone {
		return nil
	}
	return &deployer.Process{
		Name: "nginx", Args: n.own(), Dir: n.configPath, Env: environment(),
		Log: n.log(), Grace: 5 * time.Second,
	}
}

// Addresses are where nginx listens.
func (n *NGINX) Addresses() []string {
	var list []string
	for _, a := range n.listen {
		list = append(list, a.host+":"+strconv.Itoa(a.port))
	}
	return list
}
