package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of one file; a pushed scotch.cfg is a stranger's.
const (
	maxFile = 1 << 20
	maxKeys = 5000
)

// defaultSection gives its keys to the other sections.
const defaultSection = "DEFAULT"

// document is one file, read by configparser's grammar: what it says, and
// which of its lines say it.
type document struct {
	file     string
	lines    []line
	sections []sectionHeader
	entries  []entry
}

type lineKind int

const (
	blankLine lineKind = iota
	commentLine
	headerLine
	optionLine
	continuationLine
	badLine
)

// line is one line without its end.
type line struct {
	text string
	kind lineKind
}

type sectionHeader struct {
	name string
	line int // counted from 0
}

// entry is one key of a file with its value, not interpolated.
type entry struct {
	section, key string
	raw          string
	first, last  int // its lines, counted from 0; comments may be between them
}

// parse reads a file by the grammar of configparser.RawConfigParser._read (of
// CPython 3.11, strict, with its default delimiters, comment prefixes and empty
// lines in values). It returns what it understood, also with errors.
func parse(file string, data []byte) (*document, Errors) {
	d := &document{file: file}
	var errs Errors
	fail := func(n int, problem, hint string) {
		errs.add(&Error{File: file, Line: n, Problem: problem, Hint: hint})
	}
	if len(data) > maxFile {
		fail(0, fmt.Sprintf("the file has more than %d bytes, which is the most that is read", maxFile), "")
		return d, errs
	}
	if !utf8.Valid(data) {
		fail(badUTF8(data), "this is no UTF-8 text", "")
		return d, errs
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		fail(1+bytes.Count(data[:i], []byte("\n")), "there is a NUL byte", "")
		return d, errs
	}

	var (
		section   string
		inSection bool
		stray     = -1 // indent of the last line before the first section
		value     []string
		open      = -1 // index of the entry that a continuation belongs to
		indent    int
		seen      = make(map[ref]int)
		headers   = make(map[string]int)
	)
	finish := func() {
		if open >= 0 {
			d.entries[open].raw = strings.TrimRightFunc(strings.Join(value, "\n"), isSpace)
		}
		open, value = -1, nil
	}
	for n, text := range splitLines(data) {
		if len(d.entries)+len(d.sections) > maxKeys {
			fail(n+1, fmt.Sprintf("the file has more than %d keys and sections", maxKeys), "")
			break
		}
		stripped := strings.TrimFunc(text, isSpace)
		kind := blankLine
		switch {
		case stripped == "":
			// An empty line may be part of a value: it counts when more follows.
			if open >= 0 {
				value = append(value, "")
			}
		case stripped[0] == '#' || stripped[0] == ';':
			kind = commentLine
		case open >= 0 && indentOf(text) > indent:
			kind = continuationLine
			value = append(value, stripped)
			d.entries[open].last = n
		default:
			indent = indentOf(text)
			if name, ok := headerName(stripped); ok {
				finish()
				kind = headerLine
				if first, again := headers[name]; again && name != defaultSection {
					fail(n+1, fmt.Sprintf("section [%s] is there twice, first on line %d", name, first), "put its keys together")
				} else {
					headers[name] = n + 1
				}
				section, inSection = name, true
				d.sections = append(d.sections, sectionHeader{name, n})
				break
			}
			kind = badLine
			if stripped[0] == '[' && !strings.ContainsAny(stripped, "]=:") {
				fail(n+1, fmt.Sprintf("%s begins a section header and has no \"]\"", quoteLine(section, stripped)), "write [NAME], such as [app]")
				// What follows is not one more mistake. Among secrets it may be one.
				if finish(); !isSecret(section) {
					section, inSection = strings.TrimFunc(stripped[1:], isSpace), true
				}
				break
			}
			if !inSection {
				// A line that goes on with a value is not one more mistake.
				if deeper := stray >= 0 && indent > stray; deeper {
					break
				}
				hint := ""
				if stray < 0 {
					hint = "begin with a section, such as [app]"
				}
				if strings.HasPrefix(text, "\ufeff") {
					hint = "the file begins with a byte order mark: save it without"
				}
				stray = indent
				fail(n+1, "there is no section header above this line", hint)
				break
			}
			i := strings.IndexAny(stripped, "=:")
			if i < 0 {
				fail(n+1, fmt.Sprintf("[%s] %s is neither KEY = VALUE nor a [section]", section, quoteLine(section, stripped)), "indent the line if it goes on with the value above it")
				break
			}
			name := strings.TrimRightFunc(stripped[:i], isSpace)
			if name == "" {
				fail(n+1, fmt.Sprintf("[%s] there is no key before %q", section, stripped[i]), "")
				break
			}
			finish()
			kind = optionLine
			r := ref{section, keyName(section, name)}
			if first, again := seen[r]; again {
				errs.add(&Error{File: file, Line: n + 1, Section: r.section, Key: r.key,
					Problem: fmt.Sprintf("is there twice, first on line %d", first), Hint: "remove one of them"})
			} else {
				seen[r] = n + 1
			}
			open = len(d.entries)
			value = []string{strings.TrimFunc(stripped[i+1:], isSpace)}
			d.entries = append(d.entries, entry{section: section, key: r.key, first: n, last: n})
		}
		d.lines = append(d.lines, line{text, kind})
	}
	finish()
	return d, errs
}

// headerName reads a section header: everything between the first bracket and
// the last one, whatever comes behind.
func headerName(s string) (string, bool) {
	end := strings.LastIndexByte(s, ']')
	if s[0] != '[' || end < 2 {
		return "", false
	}
	return s[1:end], true
}

// quoteLine quotes a line for an error, but not where it may hold a secret.
func quoteLine(section, s string) string {
	if isSecret(section) {
		return "this line"
	}
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// ref names a key.
type ref struct{ section, key string }

// keyName is configparser's optionxform: keys in any case are the same, but
// for the sections whose keys have a case.
func keyName(section, name string) string {
	if keepsCase(section) {
		return name
	}
	return lower(name)
}

// keepsCase tells whether the keys of a section are names of something outside.
func keepsCase(section string) bool {
	return section == "env" || section == "build_env" || section == "static"
}

// isSecret tells whether the values of a section must not be shown.
func isSecret(section string) bool {
	return section == "env" || section == "build_env"
}

// splitLines splits as Python's text files do (universal newlines): at \n, \r\n
// and \r.
func splitLines(data []byte) []string {
	s := strings.ReplaceAll(string(data), "\r\n", "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// isSpace is Python's str.isspace: Unicode's white space, and four separators
// of ASCII that Go leaves out.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
}

// indentOf counts the white space characters before the text of a line.
func indentOf(s string) int {
	return utf8.RuneCountInString(s[:len(s)-len(strings.TrimLeftFunc(s, isSpace))])
}

func badUTF8(data []byte) int {
	n := 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if r == '\n' {
			n++
		}
		data = data[size:]
	}
	return n
}
