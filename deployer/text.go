package deployer

import (
	"fmt"
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

// NeutralJSON makes JSON harmless on a terminal and leaves its meaning: what
// Neutral would show is written as \u escapes (RFC 8259, 7). encoding/json itself
// leaves DEL, the C1 controls and the marks of direction as they are.
func NeutralJSON(doc []byte) []byte {
	if !needsNeutral(string(doc)) {
		return doc
	}
	out := make([]byte, 0, len(doc)+16)
	for _, r := range string(doc) { // of bytes that are no UTF-8 encoding/json leaves none
		if r == '\n' || !harmful(r) {
			out = utf8.AppendRune(out, r)
		} else {
			out = fmt.Appendf(out, "\\u%04x", r) // all of them have four digits
		}
	}
	return out
}

// FirstLine returns the first line of s, neutralised.
func FirstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return Neutral(strings.TrimRight(line, "\r"))
}
