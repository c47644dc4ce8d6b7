package config

import (
	"fmt"
	"strings"
)

// ParseDotenv reads variables as .env files have them: NAME=VALUE lines, also
// behind "export ", with comments. Where the readers of such files differ it is
// literal: "$" is a dollar sign, and nothing is expanded.
//
// A value without quotes ends with its line, or before a "#" behind white space;
// white space around it does not count. Within '…' all is literal. Within "…"
// \n, \t, \r, \", \\ and \$ stand for one character. Both may go over several lines.
//
// Of a name that is there twice the last value counts. An error names the line,
// never the value.
func ParseDotenv(data []byte) ([]Var, error) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	var vars []Var
	at := make(map[string]int)
	n := 0 // the line
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		n++
		fail := func(format string, a ...any) error {
			return fmt.Errorf("line %d: %w", n, fmt.Errorf(format, a...))
		}
		trimmed := strings.TrimFunc(line, isSpace)
		if trimmed == "" || trimmed[0] == '#' {
			text = rest
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimFunc(name, isSpace)
		if words := strings.FieldsFunc(name, isSpace); len(words) == 2 && words[0] == "export" {
			name = words[1]
		}
		switch {
		case !ok:
			return nil, fail("this is no NAME=VALUE\nput a value of several lines in quotes")
		case ValidEnvName(name) != nil:
			return nil, fail("what stands before the = is no name for a variable\nuse letters, digits and _, not a digit first; put a value of several lines in quotes")
		}
		value = strings.TrimLeftFunc(value, isSpace)
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			// It may go on behind this line.
			_, whole, _ := strings.Cut(text, "=")
			whole = strings.TrimLeftFunc(whole, isSpace)
			inner, behind, closed := quoted(whole)
			if !closed {
				return nil, fail("%s: the value begins with %c, and there is no second one", name, value[0])
			}
			line, rest, _ = strings.Cut(behind, "\n")
			line = strings.TrimFunc(line, isSpace)
			if line != "" && line[0] != '#' {
				return nil, fail("%s: something follows the quoted value\nwithin \"…\" write \\\" for a quote", name)
			}
			n += strings.Count(whole[:len(whole)-len(behind)], "\n")
			value = inner
		} else {
			value = unquoted(value)
		}
		text = rest
		if i, again := at[name]; again {
			vars[i].Value = value
			continue
		}
		at[name] = len(vars)
		vars = append(vars, Var{name, value})
	}
	return vars, nil
}

// unquoted is a value without the comment behind it.
func unquoted(s string) string {
	space := true
	for i, r := range s {
		if r == '#' && space {
			s = s[:i]
			break
		}
		space = isSpace(r)
	}
	return strings.TrimFunc(s, isSpace)
}

// quoted reads a value that begins with its quote, and returns what is behind.
func quoted(s string) (value, rest string, closed bool) {
	quote := s[0]
	s = s[1:]
	if quote == '\'' {
		return strings.Cut(s, "'")
	}
	escapes := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '"': '"', '\\': '\\', '$': '$'}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s) && escapes[s[i+1]] != 0:
			i++
			b.WriteByte(escapes[s[i]])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}
