package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with the configuration.
type Error struct {
	File    string // as a person knows it; empty where no file is to blame
	Line    int    // counted from 1; 0 where the file as a whole is meant
	Section string
	Key     string
	Default bool // the line is one of [DEFAULT], which gives the key its value
	Problem string
	Hint    string // the next step, empty where the problem says it
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Section != "" {
		b.WriteString(strings.TrimRight(fmt.Sprintf("[%s] %s", brief(e.Section), brief(e.Key)), " "))
		if e.Default {
			b.WriteString(", from [DEFAULT]")
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Problem)
	if e.Hint != "" {
		b.WriteString("\n" + e.Hint)
	}
	// Names and values in a message come from files: one line stays one line.
	return printable(b.String())
}

// Errors is everything that is wrong.
type Errors []*Error

func (e Errors) Error() string {
	const shown = 40 // a file that is wrong in more is wrong altogether
	var lines []string
	for i, one := range e {
		if i == shown {
			lines = append(lines, fmt.Sprintf("and %d more", len(e)-shown))
			break
		}
		lines = append(lines, one.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the single errors.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// add appends what is not there already: a broken value that others refer to
// would be reported once for each of them.
func (e *Errors) add(more ...*Error) {
	for _, m := range more {
		known := false
		for _, have := range *e {
			known = known || *have == *m
		}
		if !known {
			*e = append(*e, m)
		}
	}
}

// err is nil where nothing is wrong, else everything in the order of the files
// and their lines, for one to go through them from the top.
func (e Errors) err() error {
	if len(e) == 0 {
		return nil
	}
	var files []string
	for _, one := range e {
		if !slices.Contains(files, one.File) {
			files = append(files, one.File)
		}
	}
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(slices.Index(files, a.File), slices.Index(files, b.File)), cmp.Compare(a.Line, b.Line))
	})
	return e
}

// NoAppError is returned for an app that has no file.
type NoAppError struct {
	Name string
	Path string // the file that would make it one
}

func (e *NoAppError) Error() string {
	return fmt.Sprintf("there is no app %q\n%q shows those there are; %q makes it", e.Name, "list", "create "+e.Name)
}

// printable makes control characters visible, but for the line breaks that
// separate a hint from its problem.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// brief keeps a name that is no name from filling the screen.
func brief(s string) string {
	if r := []rune(s); len(r) > 80 {
		return string(r[:80]) + "…"
	}
	return s
}
