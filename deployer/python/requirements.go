package python

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// requirements is what a requirements file says, with all that it includes.
// The grammar is that of https://pip.pypa.io/en/stable/reference/requirements-file-format/.
type requirements struct {
	files    []file // in the order of reading, each once
	count    int    // requirements, without constraints
	unpinned []string
	// mutable is the first line that can mean something else tomorrow although
	// the file is the same, "" where there is none.
	mutable string
}

// maxRequirements is far above what any app has, and below what keeps an installer
// busy for hours.
const maxRequirements = 20_000

type file struct {
	name    string
	content []byte // nil of a large one that a reader has read
	summed  []byte // by the reader, nil where there was none
}

// sum is the SHA-256 of the content.
func (f file) sum() []byte {
	if f.summed != nil {
		return f.summed
	}
	sum := sha256.Sum256(f.content)
	return sum[:]
}

func readRequirements(s source, name string) (*requirements, error) {
	r := &requirements{}
	var loose []string
	pinned := map[string]bool{} // by constraints
	var read func(name, from string, constraints bool) error
	read = func(name, from string, constraints bool) error {
		for _, f := range r.files {
			if f.name == name {
				return nil
			}
		}
		b, err := s.read(name)
		if errors.Is(err, fs.ErrNotExist) && from != "" {
			return fmt.Errorf("%s includes %q, which is not in the source\ncommit %s, or take the line out", from, name, path.Base(name))
		} else if err != nil {
			return fmt.Errorf("read the requirements: %w", err)
		}
		if len(r.files) == 1000 {
			return fmt.Errorf("%s includes more than 1000 files", r.files[0].name)
		}
		r.files = append(r.files, file{name: name, content: b})
		for _, l := range logicalLines(string(b)) {
			where := fmt.Sprintf("%s, line %d", name, l.number)
			option, value := splitOption(l.text)
			switch option {
			case "":
			case "-r", "--requirement", "-c", "--constraint":
				if strings.Contains(value, "://") {
					r.change(where + ": " + value)
					continue
				}
				target := path.Join(path.Dir(name), value)
				if path.IsAbs(value) || target == ".." || strings.HasPrefix(target, "../") {
					return fmt.Errorf("%s includes %q, which is outside of the source\ncopy what it says into the source", where, value)
				}
				if err := read(target, where, constraints || option == "-c" || option == "--constraint"); err != nil {
					return err
				}
				continue
			case "-e", "--editable":
				r.count++
				r.change(where + ": " + l.text)
				continue
			case "-f", "--find-links":
				r.change(where + ": " + l.text)
				continue
			default:
				continue
			}
			q := parseRequirement(l.text)
			switch {
			case q.mutable:
				r.change(where + ": " + q.text)
			case constraints && q.pinned:
				pinned[q.name] = true
			case !constraints && !q.pinned:
				loose = append(loose, q.name)
			}
			if !constraints {
				r.count++
			}
			if r.count > maxRequirements {
				return fmt.Errorf("%s: more than %d requirements\nlist what the app itself imports, and let the installer find the rest", where, maxRequirements)
			}
		}
		return nil
	}
	if err := read(name, "", false); err != nil {
		return nil, err
	}
	for _, n := range loose {
		if !pinned[n] {
			r.unpinned = append(r.unpinned, n)
			pinned[n] = true // each is named once
		}
	}
	return r, nil
}

func (r *requirements) change(line string) {
	if r.mutable == "" {
		r.mutable = mask(line)
	}
}

type line struct {
	number int
	text   string
}

var comment = pattern(`(^|\s)#.*$`)

// logicalLines joins continued lines and drops comments and empty lines.
func logicalLines(s string) []line {
	var out []line
	var joined strings.Builder
	first := 0
	flush := func() {
		if t := strings.TrimSpace(comment().ReplaceAllString(joined.String(), "")); t != "" {
			out = append(out, line{first, t})
		}
		joined.Reset()
		first = 0
	}
	s = strings.TrimPrefix(s, "\ufeff")
	for i, l := range strings.Split(s, "\n") {
		l = strings.TrimSuffix(l, "\r")
		if first == 0 {
			first = i + 1
		}
		if t, ok := strings.CutSuffix(l, `\`); ok && !strings.HasPrefix(strings.TrimSpace(l), "#") {
			joined.WriteString(t + " ")
			continue
		}
		joined.WriteString(l)
		flush()
	}
	flush()
	return out
}

// splitOption returns an option and its value, "" for a requirement.
func splitOption(s string) (option, value string) {
	if !strings.HasPrefix(s, "-") {
		return "", ""
	}
	if !strings.HasPrefix(s, "--") && len(s) > 2 { // -rFILE
		return s[:2], strings.Trim(strings.TrimLeft(s[2:], " \t="), `"'`)
	}
	i := strings.IndexAny(s, " \t=")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.Trim(strings.TrimSpace(s[i+1:]), `"'`)
}

// requirement is one line of a requirements file, or one PEP 508 requirement.
type requirement struct {
	text    string
	name    string // normalised; for people only
	pinned  bool   // names exactly one version
	mutable bool   // a local path, or an address whose content may change
}

var (
	namePattern   = pattern(`^[A-Za-z0-9][A-Za-z0-9._-]*`)
	hashPattern   = pattern(`\s--hash[= ]|[#&]sha(256|384|512)=`)
	commitPattern = pattern(`@[0-9a-f]{40}($|#|\s)`)
	exactPattern  = pattern(`===?\s*[^\s,;*]+($|[\s,;])`)
	vcsPattern    = pattern(`^(git|hg|svn|bzr)\+`)
	addressed     = pattern(`^[A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?\s*@\s*(\S.*)$`)
	extrasPattern = pattern(`^\s*[A-Za-z0-9][\w.-]*\s*\[([^\]]*)\]`)
	archive       = pattern(`\.(whl|zip|tar\.gz|tar\.bz2|tar\.xz|tgz)$`)
)

func parseRequirement(s string) requirement {
	q := requirement{text: s}
	hashed := hashPattern().MatchString(s)
	bare, _, _ := strings.Cut(s, " --")
	bare = strings.TrimSpace(bare)
	q.name = normal(namePattern().FindString(bare))
	if m := addressed().FindStringSubmatch(bare); m != nil {
		bare = m[1] // NAME @ ADDRESS
	}
	local, _, _ := strings.Cut(bare, ";")
	local = strings.TrimSpace(local)
	switch {
	case strings.HasPrefix(bare, "file:"):
		q.mutable = true
	case strings.Contains(bare, "://"):
		vcs := vcsPattern().MatchString(bare)
		q.pinned = vcs && commitPattern().MatchString(bare) || !vcs && hashed
		q.mutable = !q.pinned
	case strings.HasPrefix(local, "."), strings.ContainsAny(local, `/\`), archive().MatchString(local):
		q.mutable = true
	default:
		version, _, _ := strings.Cut(bare, ";")
		q.pinned = hashed || exactPattern().MatchString(version)
	}
	return q
}

// normal is a package's name as PEP 503 compares it.
func normal(name string) string {
	return strings.ToLower(strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' }), "-"))
}
