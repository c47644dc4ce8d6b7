package deployer

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestNeutral(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":            "plain text",
		"tab\tstays":            "tab\tstays",
		"Größe 你好":              "Größe 你好",
		"\x1b[31mred":           `\x1b[31mred`,
		"over\rwritten":         `over\x0dwritten`,
		"two\nlines":            `two\x0alines`,
		"bell\a del\x7f":        `bell\x07 del\x7f`,
		"c1 \u009b31m":          `c1 \xc2\x9b31m`,
		"bidi \u202egnp.exe":    `bidi \xe2\x80\xaegnp.exe`,
		"bad \xff\xfe utf-8":    `bad \xff\xfe utf-8`,
		"replacement \uFFFD ok": "replacement \uFFFD ok",
	} {
		if got := Neutral(in); got != want {
			t.Errorf("Neutral(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzNeutral(f *testing.F) {
	f.Add("\x1b]0;title\a\r\n\u202e\xff")
	f.Fuzz(func(t *testing.T, in string) {
		out := Neutral(in)
		if !utf8.ValidString(out) {
			t.Fatalf("%q became %q, which is no UTF-8", in, out)
		}
		if i := strings.IndexFunc(out, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }); i >= 0 {
			t.Fatalf("%q became %q, with a control character at %d", in, out, i)
		}
		if again := Neutral(out); again != out {
			t.Fatalf("%q is not stable: %q", out, again)
		}
	})
}
