package python

import (
	"strings"
	"testing"
	"time"
)

// 15 MB of "[" in a pyproject.toml, 15 KB in a push, ended the whole server: the
// parser's stack overflowed, which no recover prevents. A key of 20,000 parts, 40 KB,
// kept it busy for a minute.
func TestNestingThatEndsTheServer(t *testing.T) {
	const many = 15_000_000
	deep, tables := strings.Repeat("[", many), strings.Repeat("{a=", many/3)
	for name, text := range map[string]string{
		"arrays":                 "a = " + deep,
		"tables":                 "a = " + tables,
		"both":                   "a = " + strings.Repeat("[{a=", many/4),
		"header":                 deep,
		"key":                    strings.Repeat("a.", many/2) + "a = 1",
		"quoted key":             strings.Repeat(`"a" . `, many/6) + "a = 1",
		"key of a table":         "x = {" + strings.Repeat("a.", many/2) + "a = 1}",
		"key in a header":        "[" + strings.Repeat("a.", many/2) + "a]",
		"behind a comment":       "# \"\r\na = " + deep,
		"behind a carriage":      "# comment\ra = " + deep,
		"behind a string":        `a = "\\"` + "\nb = " + deep,
		"behind an escape":       `a = "\""` + "\nb = " + deep,
		"behind a raw one":       `a = '\'` + "\nb = " + deep,
		"behind a long one":      `a = """x""""` + "\nb = " + deep,
		"behind a longer one":    `a = ["""x""""", """""", """"a""", '''a'''', ''''''` + ", " + deep,
		"behind an escaped long": `a = """lol \""""""` + "\nb = " + deep,
		"behind brackets":        `a = "]]]]" # ]]]` + "\nb = " + strings.Repeat(`["]]", `, many/7),
	} {
		begin := time.Now()
		if _, err := parseTOML("pyproject.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), "more than 100") {
			t.Errorf("%s: error %.100v", name, err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: %s", name, took)
		}
	}
	for name, text := range map[string]string{
		"strings":  `a = "` + deep[:1000] + `" # ` + deep[:1000] + "\nb = '''" + deep[:1000] + "\n'''\n" + `c = """` + deep[:1000] + `\" """`,
		"siblings": "a = [" + strings.Repeat("[[1.5]], ", 10_000) + "]\n" + strings.Repeat("[[package]]\nname.x.y = 1\n", 1000),
		"deep":     "a = " + deep[:100] + strings.Repeat("]", 100),
	} {
		if _, err := parseTOML("pyproject.toml", []byte(text)); err != nil {
			t.Errorf("%s: error %.200v", name, err)
		}
	}
}

// Lines of requirements that are continued took time by the square of their
// number: 300 KB of them kept the server busy for 15 seconds.
func TestRequirementsContinuedForEver(t *testing.T) {
	begin := time.Now()
	if got := logicalLines(strings.Repeat("a\\\n", 500_000)); len(got) != 1 {
		t.Errorf("%d lines", len(got))
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}
