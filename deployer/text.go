package deployer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Neutral makes text that comes from apps, commits or installers harmless on a
// terminal: control characters (C0, C1, DEL) and bytes that are no UTF-8 become
// visible escapes (\x1b), and so do the Unicode marks that turn the direction
// of writing. A tab stays.
func Neutral(s string) string {
	if !needsNeutral(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(escape(s[i]))
		case !harmful(r):
			b.WriteString(s[i : i+n])
		default:
			for j := i; j < i+n; j++ {
				b.WriteString(escape(s[j]))
			}
		}
		i += n
	}
	return b.String()
}

func needsNeutral(s string) bool {
	for i, r := range s {
		if harmful(r) || (r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD")) {
			return true
		}
	}
	return false
}

func harmful(r rune) bool {
	return r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029')
}

func escape(c byte) string {
	const digits = "0123456789abcdef"
	return `\x` + string(digits[c>>4]) + string(digits[c&15])
}

// FirstLine returns the first line of s, neutralised.
func FirstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return Neutral(strings.TrimRight(line, "\r"))
}
