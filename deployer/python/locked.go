package python

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// locked is one package of a lock file, as poetry, pdm and pipenv write them: all
// that is needed to install exactly it.
type locked struct {
	name    string
	version string
	marker  string
	hashes  []string // "sha256:..."
	index   string   // name of the only index that it is from; "" for any

	// One that no index has.
	at    address // of an archive, or of a commit
	local string  // path relative to the source; never editable: a virtualenv must not depend on where the source is
}

// index is where packages come from.
type index struct{ name, url string }

// lockfile is what was read from a lock file.
type lockfile struct {
	name     string // of the file
	packages []locked
	indexes  []index // all that the lock knows, the default first
}

// lockTool is a tool with a lock file of its own.
type lockTool struct{ name, relock string }

var (
	poetry = lockTool{"poetry.lock", "poetry lock"}
	pdm    = lockTool{"pdm.lock", "pdm lock"}
	pipenv = lockTool{"Pipfile.lock", "pipenv lock"}
)

// refuse is for what can't be installed as the tool would.
func (l lockTool) refuse(format string, args ...any) error {
	return fmt.Errorf("%s: %s", l.name, fmt.Sprintf(format, args...))
}

var hashValue = pattern(`^sha(256|384|512):[0-9a-f]+$`)

// check refuses what must not get into a requirements file.
func (l lockTool) check(p locked) error {
	switch {
	case !distName().MatchString(p.name):
		return l.refuse("%q is no name of a package", p.name)
	case p.at.scheme == "" && p.local == "" && !distVersion().MatchString(p.version):
		return l.refuse("%s has no exact version: %q\nlock again: %s", p.name, p.version, l.relock)
	case len(p.marker) > maxMarker:
		return l.refuse("the marker of %s has more than %d bytes", p.name, maxMarker)
	case strings.ContainsAny(p.marker, "\r\n\x00#\\"), strings.Contains(p.marker, " --"):
		return l.refuse("the marker of %s can't be read: %q", p.name, p.marker)
	}
	if _, err := (markerEnv{}).known().allows(p.marker); err != nil {
		return l.refuse("%s: %v", p.name, err)
	}
	for _, h := range p.hashes {
		if !hashValue().MatchString(h) {
			return l.refuse("%q of %s is no hash\nlock again: %s", h, p.name, l.relock)
		}
	}
	return nil
}

// known is an environment that knows all variables, to read markers with.
func (markerEnv) known() markerEnv { return markersOf(deployer.Interpreter{Version: "3.11.2"}) }

// commit gives the address of a repository at a commit.
func (l lockTool) commit(name, kind, repo, commit, sub string) (address, error) {
	if !commitPattern().MatchString("@" + commit) {
		return address{}, l.refuse("%s is from %s, and the lock names no commit\nlock again: %s", name, mask(repo), l.relock)
	}
	if m := scpLike().FindStringSubmatch(repo); m != nil && !strings.Contains(repo, "://") {
		repo = "ssh://" + m[1] + "/" + m[2]
	}
	a, ok := parseAddress(kind + "+" + strings.TrimPrefix(repo, kind+"+"))
	if !ok || strings.ContainsAny(repo, " \t\r\n\\'\"") {
		return address{}, l.refuse("%s is from %q, which is no address", name, mask(repo))
	}
	a.rev, a.fragment = commit, ""
	if sub != "" {
		a.fragment = "subdirectory=" + escape(sub)
	}
	return a, nil
}

// scpLike is git's short form of an ssh address: git@host:path.
var scpLike = pattern(`^([\w.-]+@[\w.-]+):([^/].*)$`)

func (l lockTool) archive(name, at, sub string) (address, error) {
	a, ok := parseAddress(at)
	if !ok || a.vcs() || a.scheme != "http" && a.scheme != "https" || strings.ContainsAny(at, " \t\r\n\\'\"") {
		return address{}, l.refuse("%s is from %q, which is no address", name, mask(at))
	}
	a.fragment = ""
	if sub != "" {
		a.fragment = "subdirectory=" + escape(sub)
	}
	return a, nil
}

// path checks a path of the source, relative to where the lock file lies.
func (l lockTool) path(app *config.App, name, path string) (string, error) {
	path = strings.TrimPrefix(path, "file://")
	if filepath.IsAbs(path) || path == "" || !filepath.IsLocal(filepath.Join(app.Root, path)) {
		return "", l.refuse("%s is from %q, which is outside of the source\ncopy it into the source, or give it a repository's address", name, mask(path))
	}
	return filepath.Clean(path), nil
}

// readLock reads a lock file into a declaration.
func (d *declaration) readLock(s source, app *config.App, in deployer.Interpreter, l lockTool) error {
	d.kind, d.from = exported, l.name
	b, err := s.read(l.name)
	if err != nil {
		return err
	}
	d.files = []file{{name: l.name, content: b}}
	switch l {
	case poetry:
		err = d.readPoetry(s, app, in, b)
	case pdm:
		err = d.readPDM(s, app, in, b)
	case pipenv:
		err = d.readPipenv(s, app, b)
	}
	if err != nil {
		return err
	}
	for i, p := range d.lock.packages {
		if err := l.check(p); err != nil {
			return err
		}
		d.lock.packages[i].name = normal(p.name)
	}
	slices.SortStableFunc(d.lock.packages, func(a, b locked) int { return strings.Compare(a.name, b.name) })
	var bare int
	for _, p := range d.lock.packages {
		if p.local != "" && len(p.hashes) == 0 && d.mutable == "" {
			d.mutable = fmt.Sprintf("%s: %s is ./%s", l.name, p.name, p.local)
			d.notes = append(d.notes, "installed anew for each release: "+d.mutable)
		}
		if p.at.scheme != "" && !p.at.vcs() && len(p.hashes) == 0 && d.mutable == "" {
			d.mutable = fmt.Sprintf("%s: %s has no hash", l.name, mask(p.at.String()))
			d.notes = append(d.notes, "installed anew for each release: "+d.mutable)
		}
		if len(p.hashes) == 0 && p.version != "" && p.at.scheme == "" && p.local == "" {
			bare++
		}
	}
	if bare > 0 {
		d.notes = append(d.notes, fmt.Sprintf("%d of %d packages in %s have no hash: what the index gives is taken", bare, len(d.lock.packages), l.name))
	}
	// What is installed is the key, not what else stands in a pyproject.toml.
	for _, b := range d.lock.batches("/") {
		d.files = append(d.files, file{name: "batch", content: []byte(mask(b.text(d.lock, nil)))})
	}
	return nil
}

// batch are packages that one requirements file installs: pip wants hashes for
// all or for none, and knows no index for one package alone.
type batch struct {
	index  string
	hashed bool
	lines  []string
}

// batches are the requirements files for a lock; src is where the source is.
func (l *lockfile) batches(src string) []batch {
	var out []batch
	for _, p := range l.packages {
		b := batch{index: p.index, hashed: len(p.hashes) > 0}
		var line strings.Builder
		line.WriteString(p.name + "==" + p.version)
		switch {
		case p.at.scheme != "":
			b.index, b.hashed = "", len(p.hashes) > 0 && !p.at.vcs()
			line.Reset()
			line.WriteString(p.name + " @ " + p.at.String())
		case p.local != "":
			b.index = ""
			at := "file://" + escape((&url.URL{Path: filepath.Join(src, p.local)}).EscapedPath())
			line.Reset()
			line.WriteString(p.name + " @ " + at)
		}
		if p.marker != "" {
			line.WriteString(" ; " + p.marker)
		}
		if b.hashed {
			for _, h := range p.hashes {
				line.WriteString(" --hash=" + h)
			}
		}
		i := slices.IndexFunc(out, func(o batch) bool { return o.index == b.index && o.hashed == b.hashed })
		if i < 0 {
			out = append(out, b)
			i = len(out) - 1
		}
		out[i].lines = append(out[i].lines, line.String())
	}
	// Those with hashes first: what is built from a repository may need them.
	slices.SortStableFunc(out, func(a, b batch) int {
		switch {
		case a.hashed == b.hashed:
			return 0
		case a.hashed:
			return -1
		}
		return 1
	})
	return out
}

// text is the requirements file. login completes the address of an index.
func (b batch) text(l *lockfile, login func(index) string) string {
	var out strings.Builder
	// Where all is from PyPI the installer's own setting counts: it may name a mirror.
	if from := l.from(b); len(from) > 1 || len(from) == 1 && !publicIndex().MatchString(from[0].url) {
		for i, x := range from {
			at := x.url
			if login != nil {
				at = login(x)
			}
			option := "--extra-index-url"
			if i == 0 {
				option = "--index-url"
			}
			fmt.Fprintf(&out, "%s %s\n", option, at)
		}
	}
	for _, line := range b.lines {
		out.WriteString(line + "\n")
	}
	return out.String()
}

var publicIndex = pattern(`^https://pypi\.org/simple/?$`)

// from are the indexes of a batch, its own first. With hashes nothing wrong can
// come from another, and what packages need to be built may be on the default.
func (l *lockfile) from(b batch) []index {
	if b.index == "" {
		return l.indexes
	}
	var out []index
	for i, x := range l.indexes {
		switch {
		case x.name == b.index:
			out = slices.Insert(out, 0, x)
		case i == 0 && b.hashed:
			out = append(out, x)
		}
	}
	return out
}

func (l *lockfile) knows(name string) bool {
	return slices.ContainsFunc(l.indexes, func(x index) bool { return x.name == name })
}

var variable = pattern(`\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))`)

var notWord = pattern(`[^A-Za-z0-9]+`)

// login returns the addresses of indexes with their credentials, as the tools
// have them: variables in the address (pdm, pipenv), or
// POETRY_HTTP_BASIC_NAME_USERNAME and _PASSWORD.
func login(app *config.App, env []string) func(index) string {
	vars := map[string]string{}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		vars[k] = v
	}
	for _, v := range slices.Concat(app.Env, app.BuildEnv) {
		vars[v.Name] = v.Value
	}
	return func(x index) string {
		at := variable().ReplaceAllStringFunc(x.url, func(m string) string {
			name := strings.Trim(m, "${}")
			if v, ok := vars[name]; ok {
				return v
			}
			return m
		})
		key := "POETRY_HTTP_BASIC_" + strings.ToUpper(notWord().ReplaceAllString(x.name, "_"))
		user, password := vars[key+"_USERNAME"], vars[key+"_PASSWORD"]
		if u, err := url.Parse(at); err == nil && u.User == nil && (user != "" || password != "") {
			u.User = url.UserPassword(user, password)
			at = u.String()
		}
		return strings.NewReplacer("\n", "", "\r", "", " ", "%20").Replace(at)
	}
}

// indexes checks the addresses of a lock's sources.
func (l lockTool) indexes(in []index) ([]index, error) {
	var out []index
	for _, x := range in {
		if x.url == "" {
			continue
		}
		a, ok := parseAddress(x.url)
		if !ok || a.scheme != "https" && a.scheme != "http" || strings.ContainsAny(x.url, " \t\r\n\\'\"") {
			return nil, l.refuse("the source %q is %q, which is no address of an index", x.name, mask(x.url))
		}
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
		if len(out) > maxIndexes {
			return nil, l.refuse("it has more than %d sources", maxIndexes)
		}
	}
	return out, nil
}

// pythonJSON is json.dumps(v, sort_keys=True, separators=(comma, colon)), of which
// the tools take their hashes. It is "" for what Python's json can't write.
func pythonJSON(v any, comma, colon string) string {
	var b strings.Builder
	var write func(v any) bool
	object := func(keys []string, get func(string) any) bool {
		slices.Sort(keys)
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteString(comma)
			}
			write(k)
			b.WriteString(colon)
			if !write(get(k)) {
				return false
			}
		}
		b.WriteByte('}')
		return true
	}
	list := func(n int, get func(int) any) bool {
		b.WriteByte('[')
		for i := range n {
			if i > 0 {
				b.WriteString(comma)
			}
			if !write(get(i)) {
				return false
			}
		}
		b.WriteByte(']')
		return true
	}
	write = func(v any) bool {
		switch v := v.(type) {
		case nil:
			b.WriteString("null")
		case bool, int64, int:
			fmt.Fprint(&b, v)
		case string:
			writeASCII(&b, v)
		case []string:
			return list(len(v), func(i int) any { return v[i] })
		case []any:
			return list(len(v), func(i int) any { return v[i] })
		case []map[string]any:
			return list(len(v), func(i int) any { return v[i] })
		case map[string]any:
			keys := make([]string, 0, len(v))
			for k := range v {
				keys = append(keys, k)
			}
			return object(keys, func(k string) any { return v[k] })
		default:
			return false
		}
		return true
	}
	if !write(v) {
		return ""
	}
	return b.String()
}

// writeASCII writes a string as Python's json does by default.
func writeASCII(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r >= 0x20 && r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
}

func readJSON(name string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: it is no JSON: %w\nmend %s, or make it anew", name, err, name)
	}
	return nil
}
