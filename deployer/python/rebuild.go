package python

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"scotch/deployer"
)

// pin is one package of an earlier installation, as installed lists it.
type pin struct {
	text    string
	name    string
	version string  // of one from an index
	local   string  // path relative to the source
	flag    string  // fragment of local: "editable", "subdirectory=x"
	at      address // else
}

func parsePin(s string) (pin, error) {
	p := pin{text: s}
	if name, version, ok := strings.Cut(s, "=="); ok && distName().MatchString(name) && distVersion().MatchString(version) {
		p.name, p.version = name, version
		return p, nil
	}
	name, ref, ok := strings.Cut(s, " @ ")
	if ok && distName().MatchString(name) && ref == escape(ref) {
		p.name = name
		if strings.HasPrefix(ref, ".") {
			ref, p.flag, _ = strings.Cut(ref, "#")
			var err error
			p.local, err = url.PathUnescape(ref)
			return p, err
		}
		if p.at, ok = parseAddress(ref); ok {
			return p, nil
		}
	}
	return pin{}, fmt.Errorf("%q in the recorded list is no package", mask(s))
}

// again writes the requirements files that install recorded packages again: the
// first with the hashes that the source demands (pip wants all or none in a
// file), the second with the rest. Indexes, and the credentials of addresses,
// which were not recorded, are those that the source names.
func again(d *declaration, r deployer.InstallRequest, pinned []string) (hashed, rest string, err error) {
	hashes := d.hashes()
	sources := d.addressed()
	var with, without []string
	for _, s := range pinned {
		p, err := parsePin(s)
		if err != nil {
			return "", "", err
		}
		if h := hashes[normal(p.name)]; p.version != "" && len(h) > 0 {
			with = append(with, p.text+" "+strings.Join(h, " "))
			continue
		}
		line, err := p.line(r, sources)
		if err != nil {
			return "", "", fmt.Errorf("%w\n%s", err, afresh(r))
		}
		without = append(without, line)
	}
	file := func(lines []string) string {
		if len(lines) == 0 {
			return ""
		}
		return strings.Join(slices.Concat(d.options(r.Source), lines), "\n") + "\n"
	}
	return file(with), file(without), nil
}

// afresh is the next step where a recorded list is of no use any more.
func afresh(r deployer.InstallRequest) string {
	return fmt.Sprintf("resolve the requirements again: scotch deploy %s --clean; or push a commit that asks for what there is", r.App.Name)
}

// line is a pin as a line of a requirements file.
func (p pin) line(r deployer.InstallRequest, sources []addressedRequirement) (string, error) {
	switch {
	case p.version != "":
		for _, q := range sources {
			// An index may have somebody else's package of that name.
			if q.name == normal(p.name) {
				return "", fmt.Errorf("%s was recorded without the address that it was installed from", p.text)
			}
		}
		return p.text, nil
	case p.local != "":
		full := filepath.Join(r.Source, p.local)
		if !filepath.IsLocal(filepath.Join(r.App.Root, p.local)) {
			return "", fmt.Errorf("%s lies outside of the source", p.text)
		}
		if _, err := os.Stat(full); err != nil {
			return "", fmt.Errorf("%s is not in the source", p.text)
		}
		at := "file://" + escape((&url.URL{Path: full}).EscapedPath())
		switch p.flag {
		case "":
		case "editable":
			return "-e " + at, nil
		default:
			at += "#" + p.flag
		}
		return p.name + " @ " + at, nil
	}
	a, name := p.at, p.name
	for _, q := range sources {
		if q.name != "" && q.name != normal(name) || !a.samePlace(q.at) && (q.name == "" || !a.incomplete()) {
			continue
		}
		a.user, a.query = q.at.user, q.at.query
		if strings.Contains(a.place, hidden) {
			a.place = q.at.place
		}
		break
	}
	if a.incomplete() {
		return "", fmt.Errorf("%s needs credentials, which are not recorded, and the source does not name that address itself", p.text)
	}
	if a.fragment == "editable" {
		a.fragment = ""
		return "-e " + a.String(), nil
	}
	if strings.HasPrefix(a.place, "/") && a.vcs() {
		// packaging, in pip, takes "NAME @ git+file:///path" for a path.
		egg := "egg=" + name
		if a.fragment != "" {
			egg += "&" + a.fragment
		}
		a.fragment = egg
		return a.String(), nil
	}
	return name + " @ " + a.String(), nil
}

// requirementLines are the requirements files of the source, line by line.
func (d *declaration) requirementLines(use func(file, option, value, text string)) {
	if d.kind != listed {
		return
	}
	for _, f := range d.files {
		for _, l := range logicalLines(string(f.content)) {
			option, value := splitOption(l.text)
			use(f.name, option, value, l.text)
		}
	}
}

// addressed are the source's own requirements that name an address.
func (d *declaration) addressed() []addressedRequirement {
	var out []addressedRequirement
	add := func(text string) {
		if q, ok := readAddressed(text); ok {
			out = append(out, q)
		}
	}
	if d.lock != nil {
		for _, p := range d.lock.packages {
			if p.at.scheme != "" {
				out = append(out, addressedRequirement{p.name, p.at})
			}
		}
	}
	d.requirementLines(func(_, option, value, text string) {
		switch option {
		case "":
			add(text)
		case "-e", "--editable":
			add(value)
		}
	})
	for _, f := range d.files {
		if f.name == "pyproject.toml" {
			doc, _ := parseTOML(f.name, f.content) // declared has refused what is none
			for _, n := range doc.texts("project", "dependencies") {
				add(n)
			}
		}
	}
	return out
}

var hashOption = pattern(`--hash[= ]\s*(\S+)`)

// hashes are those that requirements files demand, by package.
func (d *declaration) hashes() map[string][]string {
	out := map[string][]string{}
	d.requirementLines(func(_, option, _, text string) {
		if option != "" {
			return
		}
		name := parseRequirement(text).name
		for _, m := range hashOption().FindAllStringSubmatch(text, -1) {
			out[name] = append(out[name], "--hash="+m[1])
		}
	})
	return out
}

// kept are the options of a requirements file that say where packages are from
// and in which form.
var kept = [...]string{"-i", "--index-url", "--pypi-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--trusted-host", "--prefer-binary", "--only-binary", "--no-binary"}

func (d *declaration) options(src string) []string {
	var out []string
	d.requirementLines(func(name, option, value, text string) {
		if !slices.Contains(kept[:], option) {
			return
		}
		if option == "-f" || option == "--find-links" {
			// Relative to the file that says so.
			if full := filepath.Join(src, path.Dir(name), value); !strings.Contains(value, ":") && !filepath.IsAbs(value) {
				text = "--find-links file://" + escape((&url.URL{Path: full}).EscapedPath())
			}
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	})
	return out
}

// pipFromStdin is pip with a requirements file that is its standard input. It
// lies in no directory, where others could read its credentials and a killed pip
// would leave it, and is opened by a path of its own, which every pip can.
const pipFromStdin = `
import runpy, sys, tempfile
with tempfile.TemporaryFile() as f:
    f.write(sys.stdin.buffer.read())
    f.flush()
    sys.argv = ["pip"] + sys.argv[1:] + ["-r", "/proc/self/fd/%d" % f.fileno()]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
`

// lastly keeps the end of what is written.
type lastly struct {
	w    io.Writer
	tail []byte
}

func (l *lastly) Write(p []byte) (int, error) {
	l.tail = append(l.tail, p...)
	if extra := len(l.tail) - 64<<10; extra > 0 {
		l.tail = append(l.tail[:0], l.tail[extra:]...)
	}
	return l.w.Write(p)
}

// What pip and uv say of a package that is nowhere, and of one that can't be built.
var (
	gonePattern    = pattern(`(?:No matching distribution found for|(?:is|are) no versions? of|Because) ([A-Za-z0-9._-]+)(?:==| was not found| \(|$| ERROR)`)
	unbuiltPattern = pattern("(?:Failed to build `?|Failed building wheel for |Could not build wheels for )([A-Za-z0-9._-]+)")
)

// lost names the recorded packages that an installer complained of.
func lost(r deployer.InstallRequest, output string) []string {
	output = strings.Join(strings.Fields(output), " ")
	find := func(pattern *regexp.Regexp) map[string]bool {
		out := map[string]bool{}
		for _, m := range pattern.FindAllStringSubmatch(output, -1) {
			out[normal(m[1])] = true
		}
		return out
	}
	gone, unbuilt := find(gonePattern()), find(unbuiltPattern())
	var out []string
	for _, s := range r.Pinned {
		p, err := parsePin(s)
		if err != nil {
			continue
		}
		where := p.at
		where.user, where.query, where.fragment, where.rev = "", "", "", ""
		switch {
		case p.version != "" && gone[normal(p.name)]:
			out = append(out, fmt.Sprintf("%s can't be had any more for Python %s", p.text, r.Interpreter.Version))
		case p.version != "" && unbuilt[normal(p.name)]:
			out = append(out, fmt.Sprintf("%s can't be built for Python %s", p.text, r.Interpreter.Version))
		case p.at.rev != "" && fetchFailed(output, p.at.rev), p.at.rev == "" && p.at.place != "" && fetchFailed(output, where.place):
			out = append(out, p.text+" can't be had any more")
		}
	}
	return out[:min(3, len(out))]
}

// fetchFailed tells that an installer failed over an address: what it was doing
// it names more than once, or in the line of the failure.
func fetchFailed(output, what string) bool {
	_, after, found := strings.Cut(output, what)
	return found && regexp.MustCompile(`(?i)did not run successfully|failed to (fetch|download|clone)|HTTP error|40[34]|not our ref|is not a tree`).MatchString(after)
}
