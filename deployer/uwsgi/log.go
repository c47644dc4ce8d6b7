package uwsgi

import (
	"regexp"
	"strings"
)

var (
	// log-date puts the date in front of each line that is uWSGI's own.
	ownLine = regexp.MustCompile(`^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} - `)
	// What is worth reading of those.
	complaint = regexp.MustCompile(`(?i)not found|unable|error|cannot|can't|failed|no python application|invalid|refused|no such`)
)

// Relevant picks what explains a failed start out of the last lines of an
// instance's log: what the app wrote, and what uWSGI complains of, without the
// lines that it prints at each start.
func (u *UWSGI) Relevant(lines []string) []string {
	var out []string
	for _, l := range lines {
		said, own := ownLine.ReplaceAllString(l, ""), ownLine.MatchString(l)
		own = own || strings.HasPrefix(l, "[uWSGI] ")
		if own && (!complaint.MatchString(said) || strings.Contains(said, "*** WARNING")) {
			continue
		}
		out = append(out, said)
	}
	return out
}
