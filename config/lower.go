package config

import (
	"strings"
	"unicode"
)

// lower is Python's str.lower, by which configparser compares keys: letter by
// letter, but for the two special cases of Unicode's SpecialCasing.txt that
// need no language: İ becomes two characters, and a Σ that ends a word is ς.
func lower(s string) string {
	if !strings.Contains(s, "İ") && !strings.Contains(s, "Σ") {
		return strings.ToLower(s)
	}
	runes := []rune(s)
	var b strings.Builder
	for i, r := range runes {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && endsWord(runes, i):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// endsWord is Unicode's Final_Sigma (The Unicode Standard, table 3-17): a cased
// letter before and none behind, case-ignorable characters left out.
func endsWord(s []rune, at int) bool {
	before, behind := at-1, at+1
	for before >= 0 && caseIgnorable(s[before]) {
		before--
	}
	for behind < len(s) && caseIgnorable(s[behind]) {
		behind++
	}
	return before >= 0 && cased(s[before]) && !(behind < len(s) && cased(s[behind]))
}

func cased(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

func caseIgnorable(r rune) bool {
	// The second list is Word_Break = MidLetter, MidNumLet and Single_Quote (UAX #29).
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) ||
		strings.ContainsRune("':.\u00b7\u0387\u055f\u05f4\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a", r)
}
