package python

import (
	"strconv"
	"strings"
)

// document is as much of a TOML file as is needed here: each value as it is
// written, by its full dotted key; and the tables. What it does not
// understand it passes over: the installer is the judge of a file.
type document struct {
	values map[string]string
	tables map[string]bool
}

// parseTOML reads https://toml.io/en/v1.0.0, but for dates and the inside of
// inline tables, which stay text.
func parseTOML(b []byte) document {
	d := document{map[string]string{}, map[string]bool{}}
	s := strings.ReplaceAll(string(b), "\r\n", "\n")
	var table string
	for s != "" {
		s = strings.TrimLeft(s, " \t\n")
		switch {
		case s == "":
		case s[0] == '#':
			_, s, _ = strings.Cut(s, "\n")
		case s[0] == '[':
			var line string
			line, s, _ = strings.Cut(s, "\n")
			line, _, _ = strings.Cut(line, "#")
			table = key(strings.Trim(strings.TrimSpace(line), "[]"))
			d.tables[table] = true
		default:
			name, rest, ok := strings.Cut(s, "=")
			if !ok || strings.Contains(name, "\n") {
				_, s, _ = strings.Cut(s, "\n")
				continue
			}
			n := valueEnd(rest)
			full := key(name)
			if table != "" {
				full = table + "." + full
			}
			d.values[full] = strings.TrimSpace(rest[:n])
			for t := full; strings.Contains(t, "."); {
				t = t[:strings.LastIndexByte(t, '.')]
				d.tables[t] = true
			}
			s = rest[n:]
		}
	}
	return d
}

// key writes a dotted key without spaces and quotes.
func key(s string) string {
	parts := strings.Split(s, ".")
	for i, p := range parts {
		parts[i] = strings.Trim(strings.TrimSpace(p), `"'`)
	}
	return strings.Join(parts, ".")
}

// valueEnd is where a value ends: at the end of its line or, in brackets and
// long strings, of a later one.
func valueEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\'':
			i += stringEnd(s[i:])
			continue
		case c == '#':
			if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
				i += n
				continue
			}
			return len(s)
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == '\n' && depth <= 0:
			return i
		}
		i++
	}
	return len(s)
}

// stringEnd is the length of the string that s begins with, quotes included.
func stringEnd(s string) int {
	quote := s[:1]
	if strings.HasPrefix(s, strings.Repeat(quote, 3)) {
		quote = s[:3]
	}
	for i := len(quote); i < len(s); i++ {
		switch {
		case s[i] == '\\' && quote[0] == '"':
			i++
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case s[i] == '\n' && len(quote) == 1:
			return i
		}
	}
	return len(s)
}

// text returns a string.
func (d document) text(name string) (string, bool) {
	v, ok := d.values[name]
	if !ok || v == "" || (v[0] != '"' && v[0] != '\'') {
		return "", false
	}
	return unquote(v[:stringEnd(v)]), true
}

// texts returns an array of strings.
func (d document) texts(name string) []string {
	v, ok := d.values[name]
	if !ok || !strings.HasPrefix(v, "[") {
		return nil
	}
	var out []string
	for i := 1; i < len(v); {
		switch v[i] {
		case '"', '\'':
			n := stringEnd(v[i:])
			out = append(out, unquote(v[i:i+n]))
			i += n
		case '#':
			n := strings.IndexByte(v[i:], '\n')
			if n < 0 {
				return out
			}
			i += n
		case ']':
			return out
		default:
			i++
		}
	}
	return out
}

func unquote(s string) string {
	switch {
	case len(s) >= 6 && (s[:3] == `"""` || s[:3] == "'''"):
		return strings.TrimPrefix(s[3:len(s)-3], "\n")
	case len(s) < 2:
		return ""
	case s[0] == '\'':
		return s[1 : len(s)-1]
	}
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s[1 : len(s)-1]
}
