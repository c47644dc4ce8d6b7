package python

import (
	"bytes"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// maxLine is the length at which a line is passed on without its end.
const maxLine = 64 << 10

var userinfo = regexp.MustCompile(`(://)([^/\s'"<>]+)@`)

// mask hides credentials in addresses. "git@" is the name of a service, and
// no secret.
func mask(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return userinfo.ReplaceAllStringFunc(s, func(m string) string {
		if m == "://git@" {
			return m
		}
		return "://****@"
	})
}

var secretName = regexp.MustCompile(`(?i)(PASSWORD|TOKEN|SECRET|CREDENTIALS|API_?KEY)`)

// secrets are the values in an app's configuration that no log may show.
func secrets(app *config.App) []string {
	var out []string
	add := func(v string) {
		if len(v) >= 6 { // a shorter one would blot out ordinary words
			out = append(out, v)
		}
	}
	for _, v := range slices.Concat(app.BuildEnv, app.Env) {
		if secretName.MatchString(v.Name) {
			add(v.Value)
		}
		for _, m := range userinfo.FindAllStringSubmatch(v.Value, -1) {
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
	for _, c := range complaints {
		if c.pattern.MatchString(s) {
			h := strings.ReplaceAll(c.mend, "PYTHON-DEV", debianName(f.in, "dev"))
			h = strings.ReplaceAll(h, "PYTHON-VENV", debianName(f.in, "venv"))
			if !slices.Contains(f.found, h) {
				f.found = append(f.found, h)
			}
		}
	}
	_, err := io.WriteString(f.w, s)
	return err
}

// hints are the mends for what the installer complained of, a line each.
func (f *filter) hints() []string { return f.found[:min(3, len(f.found))] }

// complaint is a line of an installer that has one known mend.
type complaint struct {
	pattern *regexp.Regexp
	mend    string
}

// complaints are the ones that people meet first; the packages are Debian's.
var complaints = []complaint{
	{regexp.MustCompile(`Python\.h: No such file`), "the headers of Python are missing: apt install PYTHON-DEV"},
	{regexp.MustCompile(`ensurepip is not available|No module named '?(venv|ensurepip)`), "Python's venv is missing: apt install PYTHON-VENV"},
	{regexp.MustCompile(`pg_config executable not found|pg_config is required|libpq-fe\.h: No such file`), "the client library of PostgreSQL is missing: apt install libpq-dev, or require psycopg2-binary"},
	{regexp.MustCompile(`mysql_config: not found|mysqlclient.*pkg-config|Can not find valid pkg-config name`), "the client library of MySQL is missing: apt install default-libmysqlclient-dev pkg-config"},
	{regexp.MustCompile(`(command|unable to execute) '[^']*(gcc|cc|g\+\+|c\+\+)'[: ].*(No such file|failed: No such)|(gcc|cc): (command )?not found|Unknown compiler`), "a C compiler is missing: apt install build-essential PYTHON-DEV"},
	{regexp.MustCompile(`ffi\.h: No such file`), "the headers of libffi are missing: apt install libffi-dev"},
	{regexp.MustCompile(`openssl/\w+\.h: No such file`), "the headers of OpenSSL are missing: apt install libssl-dev"},
	{regexp.MustCompile(`libxml/\w+\.h: No such file|libxml2 and libxslt development packages`), "the headers of libxml2 are missing: apt install libxml2-dev libxslt1-dev"},
	{regexp.MustCompile(`(lber|ldap)\.h: No such file`), "the headers of OpenLDAP are missing: apt install libldap2-dev libsasl2-dev"},
	{regexp.MustCompile(`library files could not be found for (jpeg|zlib)|jpeglib\.h: No such file|zlib\.h: No such file`), "the headers of image libraries are missing: apt install libjpeg-dev zlib1g-dev"},
	{regexp.MustCompile(`can't find Rust compiler|cargo.*(not found|is not installed)|Rust toolchain`), "a Rust compiler is missing: apt install cargo"},
	{regexp.MustCompile(`(?i)(git executable not found|cannot find command 'git'|git: not found)`), "git is missing: apt install git"},
	{regexp.MustCompile(`(?i)no space left on device|os error 28`), "the disk is full: scotch df shows what takes the room, scotch prune frees what nothing needs"},
	{regexp.MustCompile(`(?i)invalid peer certificate|UnknownIssuer|CERTIFICATE_VERIFY_FAILED`), "the index's certificate is signed by nobody this server knows: put the authority's certificate into /usr/local/share/ca-certificates and run update-ca-certificates"},
	{regexp.MustCompile(`(?i)hash(es)? (mismatch|do not match)|DO NOT MATCH THE HASHES`), "what the index gave is not what the hashes say: never go on; look who changed the package"},
}
