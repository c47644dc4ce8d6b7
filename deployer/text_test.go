package deployer

import (
	"bytes"
	"encoding/json"
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

func TestNeutralJSON(t *testing.T) {
	value := "plain \x1b[31m \r\n \b \x7f \u009b2J \u0085 \u202egnp \u2066 \u2028 \U0001F600"
	doc, err := json.MarshalIndent(map[string]string{"k\u202e": value}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	out := NeutralJSON(doc)
	if i := bytes.IndexFunc(out, func(r rune) bool { return r != '\n' && harmful(r) }); i >= 0 {
		t.Errorf("%q has a control character at %d", out, i)
	}
	var back map[string]string
	if err := json.Unmarshal(out, &back); err != nil || back["k\u202e"] != value {
		t.Errorf("%v, %q", err, back)
	}
}

func FuzzNeutral(f *testing.F) {
	for _, s := range []string{"\x1b]0;title\a\r\n\u202e\xff", "\x1b]8;;http://x\x1b\\link", "\u009d0;t\u009c", "\u2066a\u2069\u200f", "\x1bP+q\x1b\\", "a\bb\x7f", "\xc2\x9b", "\xed\xa0\x80"} {
		f.Add(s)
	}
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
