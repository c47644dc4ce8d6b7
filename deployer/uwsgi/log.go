package uwsgi

import (
	"fmt"
	"strings"

	"scotch/deployer"
)

var (
	// log-date puts the date in front of each line that is uWSGI's own.
	ownLine = pattern(`^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} - `)
	// What is worth reading of those.
	complaint = pattern(`(?i)not found|unable|error|cannot|can't|failed|no python application|invalid|refused|no such`)
)

// Relevant picks what explains a failed start out of the last lines of an
// instance's log: what the app wrote, and what uWSGI complains of, without the
// lines that it prints at each start.
func (u *UWSGI) Relevant(lines []string) []string {
	var out []string
	for _, l := range lines {
		said, own := ownLine().ReplaceAllString(l, ""), ownLine().MatchString(l)
		own = own || strings.HasPrefix(l, "[uWSGI] ")
		if own && (!complaint().MatchString(said) || strings.Contains(said, "*** WARNING")) {
			continue
		}
		out = append(out, said)
	}
	return out
}

// Diagnose implements deployer.Diagnoser, for what uWSGI says without a traceback:
// with one, "callable not found" is said of a module that raised.
func (u *UWSGI) Diagnose(f deployer.Failure) string {
	notFound, none, raised := false, false, false
	for _, l := range f.Lines {
		none = none || l == "TypeError: 'NoneType' object is not callable"
		notFound = notFound || strings.Contains(l, "callable not found")
		raised = raised || strings.HasPrefix(l, "Traceback ") || strings.HasPrefix(l, "SyntaxError")
	}
	e := f.EntryPoint
	switch {
	case raised:
		return ""
	case none:
		return fmt.Sprintf("%s is None: does a function forget to return the app? mend it and %s", e, f.Again)
	case notFound && e.Factory:
		return fmt.Sprintf("the module %q has no %s() after its import, or is another one than it seems; mend it and %s", e.Module, e.Callable, f.Again)
	case notFound:
		return fmt.Sprintf("the module %q has no %q after its import, or is another one than it seems; mend it, or name another with [app] entry_point, and %s", e.Module, e.Callable, f.Again)
	}
	return ""
}
