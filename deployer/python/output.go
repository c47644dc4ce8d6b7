package python

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// maxLine is the length at which a line is passed on without its end.
const maxLine = 64 << 10

var userinfo = pattern(`(://)([^/\s'"<>]+)@`)

// mask hides credentials in addresses. "git@" is the name of a service, and
// no secret.
func mask(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return userinfo().ReplaceAllStringFunc(s, func(m string) string {
		if m == "://git@" {
			return m
		}
		return "://****@"
	})
}

var secretName = pattern(`(?i)(PASSWORD|TOKEN|SECRET|CREDENTIALS|API_?KEY)`)

// secrets are the values in an app's configuration that no log may show.
func secrets(app *config.App) []string {
	var out []string
	add := func(v string) {
		if len(v) >= 6 { // a shorter one would blot out ordinary words
			out = append(out, v)
		}
	}
	for _, v := range slices.Concat(app.BuildEnv, app.Env) {
		if secretName().MatchString(v.Name) {
			add(v.Value)
		}
		for _, m := range userinfo().FindAllStringSubmatch(v.Value, -1) {
			user, password, both := strings.Cut(m[2], ":")
			if !both {
				password = user // a token
			}
			if password == "git" {
				continue
			}
			add(password)
			if plain, err := url.PathUnescape(password); err == nil {
				add(plain)
			}
		}
	}
	// The longest first, so that none is hidden in part only.
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(out)
}

// filter passes an installer's output on, line by line, without credentials,
// and notes what it complains of.
type filter struct {
	w       io.Writer
	secrets []string
	in      deployer.Interpreter
	buf     []byte
	found   []string
	index   bool // something of it is about an index
	unread  *unread
	killed  bool // something was killed, as the kernel does for want of memory
	builds  builds
}

func newFilter(w io.Writer, secrets []string, in deployer.Interpreter) *filter {
	if w == nil {
		w = io.Discard
	}
	return &filter{w: w, secrets: secrets, in: in}
}

func (f *filter) Write(p []byte) (int, error) {
	f.buf = append(f.buf, p...)
	end := bytes.LastIndexAny(f.buf, "\r\n") + 1
	if end == 0 && len(f.buf) > maxLine {
		// An address is not cut: its credentials end before the next space.
		if end = bytes.LastIndexAny(f.buf, " \t") + 1; end == 0 {
			end = len(f.buf)
		}
	}
	if end == 0 {
		return len(p), nil
	}
	err := f.pass(f.buf[:end])
	f.buf = append(f.buf[:0], f.buf[end:]...)
	return len(p), err
}

func (f *filter) flush() {
	if len(f.buf) > 0 {
		f.pass(f.buf)
		f.buf = nil
	}
}

func (f *filter) pass(b []byte) error {
	s := mask(string(b))
	for _, secret := range f.secrets {
		s = strings.ReplaceAll(s, secret, "****")
	}
	var out strings.Builder
	for line := range strings.Lines(s) {
		f.complain(line)
		if !noisePattern().MatchString(line) {
			out.WriteString(line)
		}
	}
	_, err := io.WriteString(f.w, out.String())
	return err
}

// maxComplaint is how much of a line's beginning is looked at: a compiler's words
// are short, and dozens of patterns over a megabyte take seconds.
const maxComplaint = 4 << 10

func (f *filter) complain(line string) {
	line = line[:min(len(line), maxComplaint)]
	f.builds.read(line)
	if u, ok := unreadable(line); ok {
		if f.unread == nil {
			f.unread = &u
		}
		return
	}
	if hint, ok := unreached(line); ok {
		f.find(hint)
		return
	}
	if killedPattern().MatchString(line) {
		f.killed = true
		return
	}
	known := false
	for _, c := range complaints() {
		if !c.pattern.MatchString(line) {
			continue
		}
		h := strings.ReplaceAll(c.mend, "PYTHON-DEV", debianName(f.in, "dev"))
		h = strings.ReplaceAll(h, "PYTHON-VENV", debianName(f.in, "venv"))
		known = true
		f.find(h)
		f.index = f.index || c.index
	}
	if m := headerPattern().FindStringSubmatch(line); m != nil && !known {
		f.find(fmt.Sprintf("the header %s is missing: apt-file search %s names the package that has it", m[1], m[1]))
	}
}

func (f *filter) find(hint string) {
	if hint != "" && !slices.Contains(f.found, hint) {
		f.found = append(f.found, hint)
	}
}

// hints are the mends for what the installer complained of, a line each.
func (f *filter) hints() []string { return slices.Clone(f.found[:min(3, len(f.found))]) }
