package config

import (
	"fmt"
	"strings"
)

// retired says what became of a key of scotch 0.3.
func retired(section, key string) string {
	switch section + " " + key {
	case "uwsgi apps_path", "uwsgi app_config":
		return "scotch 0.3 had it; now [uwsgi] config_path says where the ini files go"
	case "uwsgi reload_command":
		return "scotch 0.3 had it; uWSGI is not restarted any more: remove the line"
	}
	return ""
}

// nearest suggests a key for one that is not known: one of another section with
// this very name, or one of this section that is spelled almost like it.
func (s *schema) nearest(section, key string) string {
	// domain for domains is nearer than [site] domain: a slip is one letter.
	for _, k := range s.keys {
		if k.Section == section && k.suggested() && len(key) >= 4 && len(key) <= 60 && distance(key, k.Name) == 1 {
			return fmt.Sprintf("did you mean %s?", k.Name)
		}
	}
	for _, k := range s.keys {
		if k.Section != section && k.Name == key && k.suggested() {
			return fmt.Sprintf("did you mean %s in [%s]?", key, k.Section)
		}
	}
	var names []string
	for _, k := range s.keys {
		if k.Section == section && k.suggested() {
			names = append(names, k.Name)
		}
	}
	hint := didYouMean(key, names, func(x string) string { return x })
	if hint == "" && len(names) > 0 {
		hint = fmt.Sprintf("[%s] has %s", section, strings.Join(names, ", "))
	}
	return hint
}

// suggested tells whether the key is one that people set: not one that scotch
// fills in, and not the one that would move an app's own file.
func (k Key) suggested() bool {
	return k.Set != SetNowhere && (k.Section != "app" || k.Name != "config")
}

// didYouMean names the candidate that is spelled most alike, "" where none is.
func didYouMean(name string, candidates []string, show func(string) string) string {
	best := Nearest(name, candidates)
	if best == "" {
		return ""
	}
	return "did you mean " + show(best) + "?"
}

// Nearest is the candidate that is spelled most alike, "" where none is.
func Nearest(name string, candidates []string) string {
	if len(name) > 60 {
		return ""
	}
	best, least := "", 1+min(2, len(name)/2)
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, change, or swap with their
// neighbour (optimal string alignment).
func distance(a, b string) int {
	var before []int // the row two above
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
