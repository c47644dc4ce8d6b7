package python

import (
	"iter"
	"strings"
)

// module is what the top level of a Python file binds, as far as it can be read
// without running it: indented code, strings and comments don't count.
type module struct {
	assigned map[string]string // the right side, as written
	called   map[string]bool   // functions that can be called without an argument
	imported map[string]string // where a name was imported from
	imports  []string          // first words of the modules that are imported
}

var (
	defPattern    = pattern(`^def\s+(\w+)\s*\(`)
	fromPattern   = pattern(`(?s)^from\s+(\S+)\s+import\s+(.+)$`)
	importPattern = pattern(`(?s)^import\s+(.+)$`)
	identifier    = pattern(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func parseModule(src string) module {
	m := module{assigned: map[string]string{}, called: map[string]bool{}, imported: map[string]string{}}
	for _, s := range statements(src) {
		if d := defPattern().FindStringSubmatchIndex(s); d != nil {
			params := s[d[1]:]
			m.called[s[d[2]:d[3]]] = !needsArgument(params[:closing(params)])
			continue
		}
		if f := fromPattern().FindStringSubmatch(s); f != nil {
			m.imports = append(m.imports, first(f[1]))
			for part := range strings.SplitSeq(strings.Trim(strings.TrimSpace(f[2]), "()"), ",") {
				name, as := bound(part)
				if as != "" && name != "*" {
					m.imported[as] = f[1]
				}
			}
			continue
		}
		if i := importPattern().FindStringSubmatch(s); i != nil {
			for part := range strings.SplitSeq(i[1], ",") {
				name, _ := bound(part)
				m.imports = append(m.imports, first(name))
			}
			continue
		}
		m.assign(s)
	}
	return m
}

// bound reads "NAME" or "NAME as OTHER".
func bound(s string) (name, as string) {
	switch f := strings.Fields(s); {
	case len(f) == 1:
		return f[0], f[0]
	case len(f) == 3 && f[1] == "as":
		return f[0], f[2]
	}
	return "", ""
}

func first(module string) string {
	name, _, _ := strings.Cut(module, ".")
	return name
}

// assign reads "a = b = value", "a: T = value" and "a, b = value".
func (m module) assign(s string) {
	var targets []string
	rest := s
	for {
		i := equals(rest)
		if i < 0 {
			break
		}
		targets = append(targets, rest[:i])
		rest = rest[i+1:]
	}
	for _, t := range targets {
		t, _, _ = strings.Cut(t, ":")
		for name := range strings.SplitSeq(strings.Trim(strings.TrimSpace(t), "()"), ",") {
			if name = strings.TrimSpace(name); identifier().MatchString(name) {
				m.assigned[name] = strings.TrimSpace(rest)
			}
		}
	}
}

// topLevel yields the places in s that lie in no string and in no bracket,
// closing brackets of others among them.
func topLevel(s string) iter.Seq[int] {
	return func(yield func(int) bool) {
		depth := 0
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case c == '"' || c == '\'':
				i += pyStringEnd(s[i:]) - 1
				continue
			case strings.IndexByte("([{", c) >= 0:
				depth++
				continue
			case strings.IndexByte(")]}", c) >= 0 && depth > 0:
				depth--
				continue
			}
			if depth == 0 && !yield(i) {
				return
			}
		}
	}
}

// equals is the first = that assigns, -1 where there is none.
func equals(s string) int {
	compared := -1 // the second half of ==
	for i := range topLevel(s) {
		switch {
		case s[i] != '=' || i == compared:
		case i+1 < len(s) && s[i+1] == '=':
			compared = i + 1
		case i > 0 && strings.IndexByte("=!<>:+-*/%&|^@", s[i-1]) >= 0:
			return -1
		default:
			return i
		}
	}
	return -1
}

// closing is where the bracket that is open at the start of s closes.
func closing(s string) int {
	for i := range topLevel(s) {
		if strings.IndexByte(")]}", s[i]) >= 0 {
			return i
		}
	}
	return len(s)
}

// needsArgument tells that one of these parameters has no default.
func needsArgument(params string) bool {
	needs := func(p string) bool {
		p = strings.TrimSpace(p)
		return p != "" && p != "/" && p[0] != '*' && equals(p) < 0
	}
	start := 0
	for i := range topLevel(params) {
		if params[i] == ',' {
			if needs(params[start:i]) {
				return true
			}
			start = i + 1
		}
	}
	return needs(params[start:])
}

// statements returns the logical lines that begin in the first column, without
// comments; lines within brackets and strings are parts of theirs.
func statements(src string) []string {
	src = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(src, "\ufeff"))
	var out []string
	var b strings.Builder
	depth, lineStart, indented := 0, true, false
	flush := func() {
		if s := strings.TrimSpace(b.String()); s != "" && !indented {
			out = append(out, s)
		}
		b.Reset()
		lineStart = true
	}
	for i := 0; i < len(src); {
		c := src[i]
		if lineStart {
			indented, lineStart = c == ' ' || c == '\t' || c == '\f', false
		}
		switch {
		case c == '"' || c == '\'':
			n := pyStringEnd(src[i:])
			b.WriteString(src[i : i+n])
			i += n
			continue
		case c == '#':
			n := strings.IndexByte(src[i:], '\n')
			if n < 0 {
				n = len(src) - i
			}
			i += n
			continue
		case c == '\\' && i+1 < len(src) && src[i+1] == '\n':
			b.WriteByte(' ')
			i += 2
			continue
		case strings.IndexByte("([{", c) >= 0:
			depth++
		case strings.IndexByte(")]}", c) >= 0:
			depth = max(0, depth-1)
		case c == '\n' && depth == 0, c == ';' && depth == 0:
			was := indented
			flush()
			if c == ';' { // what follows is on the same line
				lineStart, indented = false, was
			}
			i++
			continue
		}
		b.WriteByte(c)
		i++
	}
	flush()
	return out
}

// pyStringEnd is the length of the string literal that s begins with. One that
// is not closed ends with its line.
func pyStringEnd(s string) int {
	quote := s[:1]
	if strings.HasPrefix(s, strings.Repeat(quote, 3)) {
		quote = s[:3]
	}
	for i := len(quote); i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case s[i] == '\n' && len(quote) == 1:
			return i
		}
	}
	return len(s)
}
