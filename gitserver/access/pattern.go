package access

import (
	"regexp"
	"sync"
)

// pattern is a regular expression that is compiled when it is first used: git
// starts this program for each hook of a push, and would pay for all of them.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
