package nginx

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"scotch/config"
	"scotch/deployer"
)

var (
	_ deployer.Reacher   = (*NGINX)(nil)
	_ deployer.Explainer = (*NGINX)(nil)
	_ deployer.SelfCheck = (*NGINX)(nil)
)

// probePath is answered with 204 by scotch's own servers (server.conf).
const probePath = acmePath + "scotch-probe"

// reachPatience is how long nginx may take to answer by new files: where
// pid_path does not tell, a reload is not over when its command is.
const reachPatience = 3 * time.Second

// Reach tells, in words with a next step, why requests for an app do not come
// to scotch's files, "" where they do.
func (n *NGINX) Reach(ctx context.Context, a *config.App) string {
	at := n.listen[0]
	host := strings.Trim(at.host, "[]")
	if host == "" || host == "0.0.0.0" {
		host = "127.0.0.1"
	}
	addr := net.JoinHostPort(host, strconv.Itoa(at.port))
	ctx, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	last := ""
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+probePath, nil)
		if err != nil {
			return err.Error()
		}
		req.Host = hostOf(a)
		res, err := client.Do(req)
		switch {
		case err == nil && res.StatusCode == http.StatusNoContent:
			res.Body.Close()
			return ""
		case err == nil:
			res.Body.Close()
			last = fmt.Sprintf("what answers at %s for %q does not do so by scotch's files", addr, req.Host)
		case ctx.Err() == nil:
			last = fmt.Sprintf("nothing answers at %s, [nginx] listen", addr)
		}
		select {
		case <-ctx.Done():
			if last == "" {
				last = fmt.Sprintf("%s, [nginx] listen, did not answer within %s", addr, reachPatience)
			}
			return fmt.Sprintf("%s: nginx must include %s", last, filepath.Join(n.sitesPath, "*.conf"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// hostOf is a host that an app answers for.
func hostOf(a *config.App) string {
	for _, d := range a.Domains {
		if rest, wild := strings.CutPrefix(d, "*."); wild {
			return a.Name + "." + rest
		} else if d != "*" {
			return d
		}
	}
	return "localhost"
}

// unread is a complaint of a name that conf.d's file brings.
var unread = pattern(`unknown "scotch_[a-z_]+" variable|unknown log format "scotch_`)

// Explain tells what to do about a complaint of nginx's, "" where that is for
// the complaint itself to say.
func (n *NGINX) Explain(output string) string {
	if !unread().MatchString(output) {
		return ""
	}
	return fmt.Sprintf("nginx does not read %s: the http block of its nginx.conf must have\n    include %s;\nbefore it includes [nginx] sites_path", n.httpFile(), n.file("conf.d/*.conf"))
}

// SelfCheck tells of a command that a site file names and that is not there.
func (n *NGINX) SelfCheck(context.Context) error {
	if n.standalone {
		return nil
	}
	for key, args := range map[string][]string{"test_command": n.test, "reload_command": n.reload} {
		at, named := n.named[key]
		if !named || found(args[0]) {
			continue
		}
		return &config.Error{File: at.File, Line: at.Line, Section: "nginx", Key: key,
			Problem: fmt.Sprintf("there is no program %q", args[0]), Hint: "install it, or remove the line for the default"}
	}
	return nil
}

// found tells whether searchPath has a program.
func found(program string) bool {
	dirs := strings.Split(strings.TrimPrefix(searchPath, "PATH="), ":")
	if strings.Contains(program, "/") {
		dirs = []string{""}
	}
	for _, dir := range dirs {
		if fi, err := os.Stat(filepath.Join(dir, program)); err == nil && !fi.IsDir() && fi.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}
