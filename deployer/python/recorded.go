package python

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"scotch/deployer"
)

var (
	distName    = pattern(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)
	distVersion = pattern(`^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,199}$`)
	commitName  = pattern(`^[A-Za-z0-9][A-Za-z0-9._:-]*$`)
)

// installed lists what is in the virtualenv of a request, by the metadata that
// each installer leaves (https://packaging.python.org/en/latest/specifications/recording-installed-packages/),
// without pip itself. It is what "pip freeze --all" says, without a process,
// without credentials, and with paths of the source relative to it:
//
//	six==1.16.0
//	lib @ git+https://git.example.org/lib@COMMIT#subdirectory=python
//	lib @ https://www.example.org/lib-1.0.zip#sha256=...
//	blog @ ./
//	blog @ ./libs/blog#editable
func installed(r deployer.InstallRequest) ([]string, error) {
	s, err := openSource(r.Dir)
	if err != nil {
		return nil, fmt.Errorf("list what was installed: %w", err)
	}
	defer s.Close()
	secret := secrets(r.App)
	out := []string{}
	for _, lib := range []string{"lib", "lib64"} {
		if info, err := s.Lstat(lib); err != nil || !info.IsDir() { // lib64 is a link to lib
			continue
		}
		for _, python := range s.list(lib) {
			packages := lib + "/" + python.Name() + "/site-packages"
			for _, e := range s.list(packages) {
				dir := packages + "/" + e.Name()
				meta := dir
				switch {
				case strings.HasSuffix(e.Name(), ".dist-info"):
					meta += "/METADATA"
				case strings.HasSuffix(e.Name(), ".egg-info"):
					if e.IsDir() {
						meta += "/PKG-INFO"
					}
				default:
					continue
				}
				b, err := s.start(meta, maxMetadata)
				if err != nil {
					return nil, fmt.Errorf("list what was installed: %w", err)
				}
				if len(out) == maxRequirements {
					return nil, fmt.Errorf("list what was installed: more than %d packages", maxRequirements)
				}
				name, version := header(string(b), "Name"), header(string(b), "Version")
				if !distName().MatchString(name) || !distVersion().MatchString(version) {
					return nil, fmt.Errorf("list what was installed: %q names no package and version", meta)
				}
				if normal(name) == "pip" {
					continue
				}
				line := name + "==" + version
				if e.IsDir() {
					from, err := origin(s, dir, r, secret)
					if err != nil {
						return nil, fmt.Errorf("list what was installed: where %s comes from: %w", name, err)
					}
					if from != "" {
						line = name + " @ " + from
					}
				}
				out = append(out, line)
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return slices.Compact(out), nil
}

// maxMetadata is how much of a package's metadata is read, bytes: a description
// may follow, and a build may have made it as long and as often as it likes.
const maxMetadata = 64 << 10

// header returns a field of the part of a message before its body.
func header(s, name string) string {
	for l := range strings.Lines(s) {
		l = strings.TrimRight(l, "\r\n")
		if l == "" {
			return ""
		}
		if k, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(k, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// directURL is https://packaging.python.org/en/latest/specifications/direct-url-data-structure/.
type directURL struct {
	URL          string `json:"url"`
	Subdirectory string `json:"subdirectory"`
	VCS          *struct {
		VCS    string `json:"vcs"`
		Commit string `json:"commit_id"`
	} `json:"vcs_info"`
	Archive *struct {
		Hash   string            `json:"hash"` // of older installers: "sha256=..."
		Hashes map[string]string `json:"hashes"`
	} `json:"archive_info"`
	Dir *struct {
		Editable bool `json:"editable"`
	} `json:"dir_info"`
}

// origin says where a package comes from that is not from an index; "" for all others.
func origin(s source, dir string, r deployer.InstallRequest, secret []string) (string, error) {
	b, err := s.start(dir+"/direct_url.json", maxMetadata)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return originOf(s, b, r, secret)
}

func originOf(s source, b []byte, r deployer.InstallRequest, secret []string) (string, error) {
	var d directURL
	if err := json.Unmarshal(b, &d); err != nil {
		return "", err
	}
	a, ok := parseAddress(d.URL)
	if !ok {
		return "", fmt.Errorf("%q is no address", mask(d.URL))
	}
	if a.scheme == "file" && d.VCS == nil {
		p, err := url.PathUnescape(strings.TrimPrefix(a.place, "localhost"))
		if err != nil {
			return "", err
		}
		if clone, ok := below(r.Dir, p); ok && clone != "." {
			return cloned(s, clone, d.Subdirectory, secret)
		}
		if rel, ok := inSource(r, p); ok {
			rel = escape((&url.URL{Path: rel}).EscapedPath())
			switch {
			case d.Dir != nil && d.Dir.Editable:
				rel += "#editable"
			case d.Subdirectory != "":
				rel += "#subdirectory=" + escape(d.Subdirectory)
			}
			return rel, nil
		}
	}
	var fragment []string
	a.fragment, a.rev = "", ""
	switch {
	case d.VCS != nil:
		if !distName().MatchString(d.VCS.VCS) || !commitName().MatchString(d.VCS.Commit) {
			return "", fmt.Errorf("it names no commit of %q", mask(d.URL))
		}
		a.scheme, a.rev = d.VCS.VCS+"+"+strings.TrimPrefix(a.scheme, d.VCS.VCS+"+"), d.VCS.Commit
	case d.Archive != nil:
		sum := d.Archive.Hashes["sha256"]
		if sum == "" {
			sum, _ = strings.CutPrefix(d.Archive.Hash, "sha256=")
		}
		if distName().MatchString(sum) {
			fragment = append(fragment, "sha256="+sum)
		}
	case d.Dir != nil && d.Dir.Editable:
		fragment = append(fragment, "editable")
	}
	if d.Subdirectory != "" {
		fragment = append(fragment, "subdirectory="+d.Subdirectory)
	}
	a.fragment = strings.Join(fragment, "&")
	return shown(a, secret), nil
}

// shown is an address as it may be recorded.
func shown(a address, secret []string) string {
	out := escape(a.public().String())
	for _, s := range secret {
		out = strings.ReplaceAll(out, s, hidden)
	}
	return out
}

// inSource is a path of the tree that the source is part of, relative to the
// source: "./", "./libs/x", "../shared" beside [app] root.
func inSource(r deployer.InstallRequest, p string) (string, bool) {
	top := r.Source
	if root := path.Clean(r.App.Root); root != "." {
		for range strings.Count(root, "/") + 1 {
			top = filepath.Dir(top)
		}
	}
	if _, ok := below(top, p); !ok {
		return "", false
	}
	rel, err := filepath.Rel(resolved(r.Source), resolved(p))
	if err != nil {
		return "", false
	}
	if !strings.HasPrefix(rel, "../") && rel != ".." {
		rel = "./" + strings.TrimPrefix(rel, ".")
	}
	return rel, true
}

// below is the path of p relative to dir, where it lies there.
func below(dir, p string) (string, bool) {
	rel, err := filepath.Rel(resolved(dir), resolved(p))
	return rel, err == nil && filepath.IsLocal(rel)
}

func resolved(p string) string {
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real
	}
	return filepath.Clean(p)
}

// cloned is the origin of "-e git+https://...": pip clones it into the
// virtualenv and records only that place. The clone lies in the virtualenv for
// good, so an ordinary installation of its commit is the same code.
func cloned(s source, dir, sub string, secret []string) (string, error) {
	top := dir
	for !s.isDir(top + "/.git") { // setup.py may lie below the clone's top
		if top = path.Dir(top); top == "." {
			return "", fmt.Errorf("%q in the virtualenv is no clone of a git repository", dir)
		}
	}
	head, _ := s.text(top + "/.git/HEAD")
	commit := strings.TrimSpace(head)
	if ref, ok := strings.CutPrefix(commit, "ref: "); ok {
		loose, _ := s.text(top + "/.git/" + ref)
		if commit = strings.TrimSpace(loose); commit == "" {
			packed, _ := s.text(top + "/.git/packed-refs")
			for l := range strings.Lines(packed) {
				if id, name, _ := strings.Cut(strings.TrimSpace(l), " "); name == ref {
					commit = id
				}
			}
		}
	}
	conf, _ := s.text(top + "/.git/config")
	_, conf, _ = strings.Cut(conf, `[remote "origin"]`)
	conf, _, _ = strings.Cut(conf, "\n[")
	var remote string
	for l := range strings.Lines(conf) {
		if k, v, ok := strings.Cut(l, "="); ok && strings.TrimSpace(k) == "url" {
			remote = strings.TrimSpace(v)
		}
	}
	a, ok := parseAddress("git+" + remote)
	if !ok || !commitName().MatchString(commit) {
		return "", fmt.Errorf("%q in the virtualenv names no commit and where it was cloned from", top)
	}
	a.rev = commit
	if sub = path.Join(strings.TrimPrefix(dir, top), sub); sub != "" {
		a.fragment = "subdirectory=" + strings.TrimPrefix(sub, "/")
	}
	return shown(a, secret), nil
}
