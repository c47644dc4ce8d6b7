package nginx

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"

	"scotch/config"
	"scotch/deployer"
)

//go:embed templates
var templates embed.FS

// render fills one template. They are parsed at each call: it takes a fraction
// of a millisecond, and keeps the package free of state.
func render(name string, data any) ([]byte, error) {
	t, err := template.New(name).Funcs(template.FuncMap{
		"quote": quote,
		"split": func(s string) []string { return strings.Split(s, "|") },
	}).ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// quote makes a value one word. What it gets has been matched against a
// pattern: there is nothing in it to escape.
func quote(s string) string { return `"` + s + `"` }

type siteData struct {
	Domain, Name, Common, Apps string
	Default                    bool
	Listen                     []string
}

type appData struct {
	App, Domain, Prefix, ScriptName  string
	Stopped, Socket, Params, Include string
	MaxBody, Timeout                 string
	HTTP                             bool   // the socket speaks it; else uwsgi
	FailedLog                        string // beside the access_log of Include
	Static                           []staticData
}

type staticData struct {
	URL, Dir string
	Hidden   string // a regular expression: what begins with a dot below URL
}

type httpData struct {
	BucketSize, MaxSize bool
	Socket              string // how a regular expression begins that matches the apps' sockets
	AccessLogs          []string
}

type serverData struct {
	AccessLogs []string
	ACME       string
}

// Render returns the app's file under each of its domains, and the domain's
// own, shared by the apps under it. The server of "*" is one of Base's files.
func (n *NGINX) Render(r deployer.Route) ([]deployer.File, error) {
	if err := checkRoute(r); err != nil {
		return nil, err
	}
	include, err := appInclude(r.App)
	if err != nil {
		return nil, err
	}
	d := appData{
		App: r.App.Name, Prefix: r.App.URLPrefix, ScriptName: strings.TrimSuffix(r.App.URLPrefix, "/"),
		Stopped: r.Stopped, Socket: "unix:" + r.Socket, Params: n.file("scotch-uwsgi.conf"), Include: include,
		HTTP: r.Protocol == deployer.ProtocolHTTP, MaxBody: strconv.FormatInt(r.App.MaxBody, 10), Timeout: duration(r.App.Timeout),
	}
	if d.HTTP {
		d.Params = n.file("scotch-proxy.conf")
	}
	if include != "" && n.setsLog(include) {
		d.FailedLog = n.failedLogValue()
	}
	for _, s := range r.App.Static {
		dir := r.Source
		if s.Data {
			dir = r.Data
		}
		url := d.ScriptName + s.URL
		d.Static = append(d.Static, staticData{
			URL: url, Dir: filepath.Join(dir, filepath.FromSlash(s.Path)) + "/",
			Hidden: "(?s)^" + regexp.QuoteMeta(url) + `(.*/)?\.`,
		})
	}
	var files []deployer.File
	for _, domain := range r.App.Domains {
		if domain != "*" {
			f, err := n.site(domain)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		} else if other := n.foreignDefault(); other != "" {
			return nil, fmt.Errorf("%q is to answer for every host, but %s does: it has the default_server of nginx\nremove that file (on Debian: rm /etc/nginx/sites-enabled/default), or set [app] domains", r.App.Name, other)
		}
		d.Domain = domain
		data, err := render("app.conf", d)
		if err != nil {
			return nil, err
		}
		files = append(files, deployer.File{Path: filepath.Join(n.apps(domain), r.App.Name+".conf"), Data: data, Mode: n.mode})
	}
	return files, nil
}

func appInclude(a *config.App) (string, error) {
	if a.Values == nil {
		return "", nil
	}
	v, _, err := a.Lookup("nginx", "include")
	if err != nil {
		return "", err
	}
	v = strings.TrimSpace(v)
	return v, checkInclude(v)
}

// site is the file of a domain's server.
func (n *NGINX) site(domain string) (deployer.File, error) {
	d := siteData{
		Domain: domain, Name: domain, Default: domain == "*",
		Common: n.file("scotch-server.conf"), Apps: filepath.Join(n.apps(domain), "*.conf"),
	}
	if d.Default {
		d.Name = "_"
	}
	for _, a := range n.listen {
		d.Listen = append(d.Listen, a.directives(n.ipv6)...)
	}
	data, err := render("site.conf", d)
	f := deployer.File{Path: filepath.Join(n.sitesPath, "scotch-"+fileName(domain)+".conf"), Data: data, Mode: n.mode}
	if !d.Default {
		f.SharedBy = d.Apps
	}
	return f, err
}

// apps is the folder of the apps under a domain.
func (n *NGINX) apps(domain string) string { return filepath.Join(n.domainsPath, fileName(domain)) }

// fileName is a domain as the name of a file: with "_" for its star, which no
// label begins with, and short enough for any file system.
func fileName(domain string) string {
	name := strings.Replace(domain, "*", "_", 1)
	if len(name) > 200 {
		sum := sha256.Sum256([]byte(domain))
		name = name[:150] + "_" + hex.EncodeToString(sum[:8])
	}
	return name
}

func duration(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms"
}

// Base returns the files that all apps stand on. The default server among them
// is left out where a file that is not scotch's has it already, as Debian's
// sites-enabled/default does: nginx takes one alone.
func (n *NGINX) Base() ([]deployer.File, error) {
	var files []deployer.File
	add := func(path, name string, data any) error {
		text, err := render(name, data)
		files = append(files, deployer.File{Path: path, Data: text, Mode: n.mode})
		return err
	}
	var errs problems
	if n.standalone {
		errs.add(add(n.file("mime.types"), "mime.types", nil))
		errs.add(add(n.file("nginx.conf"), "nginx.conf", n.hosted()))
	}
	inHTTP, inServers := n.accessLogs()
	errs.add(add(n.httpFile(), "http.conf", httpData{
		BucketSize: !n.says(bucketSize), MaxSize: !n.says(maxSize),
		Socket: "unix:" + regexp.QuoteMeta(n.instances) + "/", AccessLogs: inHTTP,
	}))
	errs.add(add(n.file("scotch-uwsgi.conf"), "uwsgi.conf", nil))
	errs.add(add(n.file("scotch-proxy.conf"), "proxy.conf", nil))
	errs.add(add(n.file("scotch-server.conf"), "server.conf", serverData{AccessLogs: inServers, ACME: n.acme}))
	if n.foreignDefault() == "" {
		f, err := n.site("*")
		errs.add(err)
		files = append(files, f)
	}
	return files, errs.err()
}

// httpFile comes before every scotch-*.conf, also where sites_path is conf.d:
// nginx wants to know a log_format before it is used.
func (n *NGINX) httpFile() string { return n.file("conf.d/00-scotch.conf") }

// What an operator may have written before us; nginx takes each once alone.
const (
	bucketSize = `(?m)^[^#\n]*\bserver_names_hash_bucket_size\s`
	maxSize    = `(?m)^[^#\n]*\bserver_names_hash_max_size\s`
	defaultFor = `(?m)^[^#\n]*\blisten\s+([^;#]*?)\s+default(?:_server)?\b`
)

// says tells whether a file of nginx's that is not scotch's has a directive.
func (n *NGINX) says(pattern string) bool {
	re := regexp.MustCompile(pattern)
	for _, path := range n.foreign() {
		if text, err := os.ReadFile(path); err == nil && re.Match(text) {
			return true
		}
	}
	return false
}

// foreignDefault is a file that is not scotch's and has the default server of
// an address of ours, "" where there is none.
func (n *NGINX) foreignDefault() string {
	var ours []string
	for _, a := range n.listen {
		ours = append(ours, a.directives(true)...)
		if a.host == "" {
			ours = append(ours, "*:"+strconv.Itoa(a.port), "0.0.0.0:"+strconv.Itoa(a.port))
			if a.port == 80 {
				ours = append(ours, "*", "0.0.0.0", "[::]")
			}
		}
	}
	re := regexp.MustCompile(defaultFor)
	for _, path := range n.foreign() {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, m := range re.FindAllSubmatch(text, -1) {
			where, _, _ := strings.Cut(string(m[1]), " ")
			for _, o := range ours {
				if where == o {
					return path
				}
			}
		}
	}
	return ""
}

// foreign lists nginx's files that scotch did not write and that it reads
// besides ours. Nothing in standalone mode: nobody else writes there.
func (n *NGINX) foreign() []string {
	if n.standalone {
		return nil
	}
	paths := []string{n.file("nginx.conf")}
	for _, pattern := range []string{n.file("conf.d/*.conf"), filepath.Join(n.sitesPath, "*")} {
		found, _ := filepath.Glob(pattern) // the pattern is a checked path
		for _, p := range found {
			if !strings.HasPrefix(filepath.Base(p), "scotch-") && p != n.httpFile() {
				paths = append(paths, p)
			}
		}
	}
	return paths
}
