package python

import (
	"iter"
	"strings"
)

// module is what the top level of a Python file binds, as far as it can be read
// without running it: indented code, strings and comments don't count.
type module struct {
	assigned map[string]string       // the right side, as written
	called   map[string]bool         // functions that can be called without an argument
	async    map[string]bool         // functions that only an event loop can run, or that have ASGI's parameters
	returned map[string]string       // what a function returns on its last line, as written
	imported map[string]importedFrom // where a name was imported from
	imports  []string                // first words of the modules that are imported
}

// importedFrom is "from module import name".
type importedFrom struct{ module, name string }

var (
	defPattern    = pattern(`^(async\s+)?def\s+(\w+)\s*\(`)
	returnPattern = pattern(`(?s)^return\b\s*(.+)$`)
	fromPattern   = pattern(`(?s)^from\s+(\S+)\s+import\s+(.+)$`)
	importPattern = pattern(`(?s)^import\s+(.+)$`)
	identifier    = pattern(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func parseModule(src string) module {
	m := module{assigned: map[string]string{}, called: map[string]bool{}, async: map[string]bool{}, returned: map[string]string{}, imported: map[string]importedFrom{}}
	var in function
	decorated := false // what such a function is, or returns, can't be told
	for l := range moduleLines(src) {
		s := l.text
		if l.indent != "" {
			in.add(l)
			continue
		}
		in.end(m)
		if s[0] == '@' {
			decorated = true
			continue
		}
		if d := defPattern().FindStringSubmatchIndex(s); d != nil {
			name, params, async := s[d[4]:d[5]], s[d[1]:], d[2] >= 0
			end := closing(params)
			if !decorated {
				in = function{name: name, local: map[string]string{}}
				in.line(behindColon(params[min(end+1, len(params)):]))
			}
			params = params[:end]
			m.async[name] = !decorated && (async || asgiParams().MatchString(params))
			if delete(m.called, name); !async && !m.async[name] {
				m.called[name] = !needsArgument(params)
			}
			decorated = false
			continue
		}
		decorated = false
		if f := fromPattern().FindStringSubmatch(s); f != nil {
			m.imports = append(m.imports, first(f[1]))
			for part := range strings.SplitSeq(strings.Trim(strings.TrimSpace(f[2]), "()"), ",") {
				name, as := bound(part)
				if as != "" && name != "*" {
					m.imported[as] = importedFrom{f[1], name}
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
		now := map[string]string{}
		assign(now, s)
		for name, v := range now {
			m.assigned[name] = v
			delete(m.async, name)
		}
	}
	in.end(m)
	return m
}

// asgiParams are those of https://asgi.readthedocs.io/en/stable/specs/main.html#applications,
// by the names that everybody gives them.
var asgiParams = pattern(`(?s)^\s*scope\b.*,\s*receive\b.*,\s*send\b`)

// function is one whose body is being read: what its own lines bind and return,
// those of the first indentation. What lines further in bind can't be told.
type function struct {
	name, indent, returned string
	local                  map[string]string
}

func (f *function) add(l moduleLine) {
	switch {
	case f.name == "":
	case f.indent == "":
		f.indent = l.indent
		f.line(l.text)
	case l.indent == f.indent:
		f.line(l.text)
	default:
		inner := map[string]string{}
		assign(inner, l.text)
		for name := range inner {
			delete(f.local, name)
		}
	}
}

func (f *function) line(s string) {
	if r := returnPattern().FindStringSubmatch(s); r != nil {
		f.returned = strings.TrimSpace(r[1])
		if v, ok := f.local[f.returned]; ok {
			f.returned = v
		}
		return
	}
	assign(f.local, s)
}

// end is called where the body ends.
func (f *function) end(m module) {
	if f.name != "" {
		m.returned[f.name] = f.returned
	}
	*f = function{}
}

// behindColon is what stands on the line of a def.
func behindColon(s string) string {
	for i := range topLevel(s) {
		if s[i] == ':' {
			return strings.TrimSpace(s[i+1:])
		}
	}
	return ""
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
func assign(to map[string]string, s string) {
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
				to[name] = strings.TrimSpace(rest)
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

// moduleLine is a statement, or the head of one, with the white space before it.
type moduleLine struct{ indent, text string }

// moduleLines yields a file's, without comments; lines within brackets and
// strings are parts of theirs.
func moduleLines(src string) iter.Seq[moduleLine] {
	return func(yield func(moduleLine) bool) {
		src := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(src, "\ufeff"))
		var b strings.Builder
		depth, lineStart, indent := 0, true, ""
		flush := func() bool {
			s := strings.TrimSpace(b.String())
			b.Reset()
			lineStart = true
			return s == "" || yield(moduleLine{indent, s})
		}
		for i := 0; i < len(src); {
			c := src[i]
			if lineStart {
				indent, lineStart = src[i:len(src)-len(strings.TrimLeft(src[i:], " \t\f"))], false
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
				if !flush() {
					return
				}
				if c == ';' { // what follows is on the same line
					lineStart = false
				}
				i++
				continue
			}
			b.WriteByte(c)
			i++
		}
		flush()
	}
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
