package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// judge gives every case to Python's configparser: the files in order, read as
// text files are (universal newlines), then every value of every section.
const judge = `
import configparser, io, json, sys
def one(files):
    p = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    try:
        for f in files:
            raw = f.encode("latin-1")
            p.read_file(io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"), "x")
    except (configparser.Error, UnicodeDecodeError) as e:
        return {"refused": type(e).__name__}
    out = {}
    for s in p.sections():
        out[s] = {}
        for k in p.options(s):
            try:
                out[s][k] = "=" + p.get(s, k)
            except configparser.InterpolationSyntaxError:
                out[s][k] = "!syntax"
            except configparser.InterpolationMissingOptionError:
                out[s][k] = "!missing"
            except configparser.InterpolationDepthError:
                out[s][k] = "!deep"
    return {"values": out}
json.dump([one(c) for c in json.load(sys.stdin)], sys.stdout)
`

type verdict struct {
	Refused string
	Values  map[string]map[string]string
}

func askPython(t *testing.T, cases [][]string) []verdict {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not on PATH: the judge of configparser's syntax is missing")
	}
	// JSON can't carry bytes that are no UTF-8: each byte goes as one character.
	encoded := make([][]string, len(cases))
	for i, files := range cases {
		for _, f := range files {
			var b strings.Builder
			for _, c := range []byte(f) {
				b.WriteRune(rune(c))
			}
			encoded[i] = append(encoded[i], b.String())
		}
	}
	in, err := json.Marshal(encoded)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-I", "-c", judge)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var answers []verdict
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}

func askOurs(files []string) verdict {
	v := newValues(nil)
	for _, f := range files {
		d, errs := parse("x", []byte(f))
		if len(errs) > 0 {
			return verdict{Refused: errs.Error()}
		}
		v.add(d, LayerSite)
	}
	all := make(map[string]map[string]string)
	for _, s := range v.Sections() {
		all[s] = make(map[string]string)
		for _, k := range v.Keys(s) {
			raw, _ := v.raw(ref{s, k})
			value, err := v.interpolate(ref{s, k}, raw)
			all[s][k] = "=" + value
			var f *fault
			if errors.As(err, &f) {
				all[s][k] = map[faultKind]string{badSyntax: "!syntax", missingKey: "!missing", tooDeep: "!deep", tooMuch: "!much"}[f.kind]
			}
		}
	}
	return verdict{Values: all}
}

// The cases of configparser's documentation, and those where readers differ.
func writtenCases() [][]string {
	return [][]string{
		{"[DEFAULT]\nServerAliveInterval = 45\nCompression = yes\nCompressionLevel = 9\nForwardX11 = yes\n\n[forge.example]\nUser = hg\n\n[topsecret.server.example]\nPort = 50022\nForwardX11 = no\n"},
		{"[Simple Values]\nkey=value\nspaces in keys=allowed\nspaces in values=allowed as well\nspaces around the delimiter = obviously\nyou can also use : to delimit keys from values\n\n[All Values Are Strings]\nvalues like this: 1000000\nor this: 3.14159265359\nare they treated as numbers? : no\nintegers, floats and booleans are held as: strings\ncan use the API to get converted values directly: true\n\n[Multiline Values]\nchorus: I'm a lumberjack, and I'm okay\n    I sleep all night and I work all day\n\n[You can use comments]\n# like this\n; or this\n\n# By default only in an empty line.\n# Inline comments can be harmful because they prevent users\n# from using the delimiting characters as parts of values.\n# That being said, this can be customized.\n\n    [Sections Can Be Indented]\n        can_values_be_as_well = True\n        does_that_mean_anything_special = False\n        purpose = formatting for readability\n        multiline_values = are\n            handled just fine as\n            long as they are indented\n            deeper than the first line\n            of a value\n        # Did I mention we can indent comments, too?\n"},
		{"[No Values]\nkey_without_value\nempty string value here =\n"},
		{"[Paths]\nhome_dir: /Users\nmy_dir: ${home_dir}/lumberjack\nmy_pictures: ${my_dir}/Pictures\n\n[Escape]\n# use a $$ to escape the $ sign ($ is the only character that needs to be escaped):\ncost: $$80\n"},
		{"[Common]\nhome_dir: /Users\nlibrary_dir: /Library\nsystem_dir: /System\nmacports_dir: /opt/local\n\n[Frameworks]\nPython: 3.2\npath: ${Common:system_dir}/Library/Frameworks/\n\n[Arthur]\nnickname: Two Sheds\nlast_name: Jackson\nmy_dir: ${Common:home_dir}/twosheds\nmy_pictures: ${my_dir}/Pictures\npython_dir: ${Frameworks:path}/Python/Versions/${Frameworks:Python}\n"},
		{"[hosts]\ndefault_hosts = spam\n  eggs\n\n\n  ham\n\n[x]\na=1\n"},
		{"[a]\nk=1\n[a]\nj=2\n"}, {"[a]\nk=1\nK=2\n"}, {"[DEFAULT]\nk=1\n[DEFAULT]\nj=2\n[a]\n"}, {"[DEFAULT]\nk=1\n[a]\nx=2\n[DEFAULT]\nk=2\n"},
		{"k=1\n[a]\n"}, {"# c\n\n  k=1\n"}, {"\ufeff[a]\nk=1\n"}, {"[a]\n\ufeffk=1\n"},
		{"[]\n"}, {"[a]\n[]\n"}, {"[a]\n[]=x\n"}, {"[]]\nk=1\n"}, {"[a]b]c\nk=1\n"}, {"[a] # no comment\nk=1\n"}, {"[ a ]\nk=1\n"}, {"[a\nk=1\n"},
		{"[a]\n=x\n"}, {"[a]\n : x\n"}, {"[a]\nk\n"}, {"[a]\nk = 1\n j\n"}, {"[a]\n  k = 1\n j = 2\n"}, {"[a]\n  k = 1\n  j = 2\n    more\n"},
		{"[a]\nk = v # not a comment ; at all\n"}, {"[a]\nk = v\n # comment\n  more\n"}, {"[a]\nk = v\n; comment\n\n  more\n"}, {"[a]\nk =\n  v\n\n  w\n\n"},
		{"[a]\nk = \"quoted\"\nj = 'x' \n"}, {"[a]\nk = a \\\nj = b\n"}, {"[a]\nk == v\n"}, {"[a]\nk := v\n"}, {"[a]\nk =: v\n"}, {"[a]\nk : = v\n"},
		{"[a]\r\nk = v\r\n\tw\r\nj=1\r"}, {"[a]\nk = v\x0cw\n\x0cx\n"}, {"[a]\nk=v\x1c\n\x1d w\nj=2\x85\n"}, {"[a]\nk=v\u00a0\n\u3000w\n\u2028j=2\n"}, {"[a]\x1c\nk\x1f=\x1ev\n"},
		{"[a]\nk=\xff\n"}, {"[a]\nKey Ä=ü\n"}, {"[a]\nk=v\n[b]\n  indented = yes\n"}, {"[a]\nk=v\n  [b]\nj=2\n"}, {"[a]\nk=v\n\n   [b]\n"},
		{"[a]\nx=${x}\n"}, {"[a]\nx=${y}\ny=${x}\n"}, {"[a]\nx=${}\ny=${\nz=$\nw=$x\nv=$$\nu=$${x}\nt=$$$\n"}, {"[a]\nx=${b:y:z}\ny=${nope}\nz=${no:pe}\nw=${:y}\nv=${a:}\n"},
		{"[a]\nx=${b:Y}${B:y}\n[b]\ny=1\n"}, {"[a]\nx=${b:Y}\n[b]\ny=${z}\nz=${a:w}\n"}, {"[a]\nx=${ y }\ny=1\n"}, {"[a]\nx=${DEFAULT:k}/${k}\n[DEFAULT]\nk=${z}\nz=3\n"},
		{"[DEFAULT]\nd=${name}\n[a]\nname=one\n[b]\nname=two\nx=${a:d}\n[c]\n"}, {"[a.b]\nx=${a:k}\n[a]\nk=1\n"}, {"[a]\nk=1\n[a.b]\nx=${k}\n"},
		{"[a]\nx=${y\n z}\n"}, {"[a]\nx=${y\n"}, {"[a]\nx=${b:k}\n[b]\n[DEFAULT]\nk=from default\n"},
		{"[a]\nk0=${k1}\nk1=${k2}\nk2=${k3}\nk3=${k4}\nk4=${k5}\nk5=${k6}\nk6=${k7}\nk7=${k8}\nk8=${k9}\nk9=${k10}\nk10=${k11}\nk11=x\n"},
		{"[a]\nk=1\n", "[a]\nk=2\nj=3\n[DEFAULT]\nz=${k}\n", "[b]\ni=${a:k}\n"}, {"[a]\nk=1\n", "  more\n"}, {"[a]\nk=1\n", "[a]\n  more = 2\n"}, {"[a]\nk=${b:x}\n", "[b]\nx=$$\n"},
		{""}, {"\n\n"}, {"[a]"}, {"[a]\nk="}, {"[a]\nk=v"}, {"[a]\nk=v\n\n\n"}, {"[a]\n\n  k = v\n\n\n  w\n k2 = x\n"}, {"[a]\nk=v\nno delimiter\n  more\n"}, {"[a]\n#=1\n;x=2\nk#=3\nj=;4\n"},
	}
}

// generatedCases makes files of the pieces in which readers differ.
func generatedCases(n int) [][]string {
	r := rand.New(rand.NewPCG(2014, 3))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	name := func() string { return pick("a", "b", "A", "key", "k.x", "two words", "ü") }
	section := func() string { return pick("a", "b", "c", "a.b", "DEFAULT", "Sec") }
	value := func() string {
		var b strings.Builder
		for range r.IntN(4) {
			b.WriteString(pick("x", "/path", " ", "=", ":", "#", ";", "$$", "]", "[z]", "\"", "\\", "${"+name()+"}", "${"+section()+":"+name()+"}", "${a:b:c}", "$", "${", "\u00a0", "%(a)s"))
		}
		return b.String()
	}
	file := func() string {
		var b strings.Builder
		if r.IntN(20) > 0 {
			b.WriteString("[" + section() + "]\n")
		}
		for range r.IntN(12) {
			indent := pick("", "", "", "", " ", "  ", "\t", "    ")
			switch r.IntN(12) {
			case 0, 1:
				b.WriteString(pick("", "", "", " ") + "[" + section() + "]" + pick("", "", " ", " # x"))
			case 2:
				b.WriteString(indent + pick("#", ";") + value())
			case 3:
				b.WriteString(pick("", " ", "\t"))
			case 4, 5:
				b.WriteString(pick("  ", "\t", "      ") + pick("more", value(), "k = v"))
			default:
				b.WriteString(indent + name() + pick("=", " = ", ":", " : ", "=", " =") + value())
			}
			b.WriteString(pick("\n", "\n", "\n", "\n", "\n", "\r\n", "\r", " \n"))
		}
		if r.IntN(30) == 0 {
			b.WriteString(pick("bare line", "=v", "\xc3", "\x1c"))
		}
		return b.String()
	}
	var all [][]string
	for range n {
		var files []string
		for range 1 + r.IntN(3) {
			files = append(files, file())
		}
		all = append(all, files)
	}
	return all
}

// differences are what configparser does and this package does not, on purpose.
// doc.go has the same list.
func differences() map[string]struct {
	files        []string
	python, ours func(verdict) bool
} {
	has := func(section, key, value string) func(verdict) bool {
		return func(v verdict) bool { return v.Values[section][key] == value }
	}
	lacks := func(section, key string) func(verdict) bool {
		return func(v verdict) bool { _, ok := v.Values[section][key]; return v.Refused == "" && !ok }
	}
	refuses := func(v verdict) bool { return v.Refused != "" }
	accepts := func(v verdict) bool { return v.Refused == "" }
	big := "[a]\nk=" + strings.Repeat("x", maxFile) + "\n"
	var many strings.Builder
	many.WriteString("[a]\n")
	for i := range maxKeys + 10 {
		fmt.Fprintf(&many, "k%d=1\n", i)
	}
	laughs := "[a]\nk0=" + strings.Repeat("ha", 50) + "\n"
	for i := range 5 {
		laughs += fmt.Sprintf("k%d=%s\n", i+1, strings.Repeat(fmt.Sprintf("${k%d}", i), 8))
	}
	type difference = struct {
		files        []string
		python, ours func(verdict) bool
	}
	return map[string]difference{
		"env keeps the case of keys":    {[]string{"[env]\nPATH=x\n"}, has("env", "path", "=x"), has("env", "PATH", "=x")},
		"static keeps the case of keys": {[]string{"[static]\n/A/=x\n"}, has("static", "/a/", "=x"), has("static", "/A/", "=x")},
		"env may have A and a":          {[]string{"[env]\nA=1\na=2\n"}, refuses, accepts},
		"DEFAULT stays out of env":      {[]string{"[DEFAULT]\nk=1\n[env]\nX=2\n"}, has("env", "k", "=1"), lacks("env", "k")},
		"DEFAULT is no part of env":     {[]string{"[DEFAULT]\nk=1\n[env]\nX=${k}\n"}, has("env", "x", "=1"), has("env", "X", "!missing")},
		"a NUL byte":                    {[]string{"[a]\nk=\x00\n"}, accepts, refuses},
		"a large file":                  {[]string{big}, accepts, refuses},
		"many keys":                     {[]string{many.String()}, accepts, refuses},
		"a value that grows":            {[]string{laughs}, func(v verdict) bool { return len(v.Values["a"]["k5"]) > 1<<20 }, has("a", "k5", "!much")},
	}
}

// letterCases are keys of every letter that has a lower case, and of words in
// which a letter's lower case depends on its neighbours.
func letterCases() [][]string {
	var letters, words strings.Builder
	letters.WriteString("[a]\n")
	words.WriteString("[a]\n")
	for r := rune('A'); r <= unicode.MaxRune; r++ {
		if unicode.ToLower(r) != r || unicode.IsUpper(r) {
			fmt.Fprintf(&letters, "x%x%cx=1\n", r, r)
		}
	}
	n := 0
	for _, before := range []string{"", "Α", "a", "1", "Α'", "Α.", "ʰ", "\u0301", "Α\u0301", "Α\u00ad", "ª", "-", "漢", "Ⅷ", "ǅ"} {
		for _, behind := range []string{"", "Α", "b", "1", "'Α", ".Α", "\u0301", "\u0301Α", ":Α", " Α", "·", "’s", "Σ", "ΣΣ", "İ", "漢"} {
			n++
			fmt.Fprintf(&words, "%d_%sΣ%s İ=1\n", n, before, strings.ReplaceAll(behind, ":", "᛬"))
		}
	}
	return [][]string{{letters.String()}, {words.String()}, {"[a]\nİ=1\nI\u0307=2\n"}, {"[a]\nΑΣ=1\nας=2\n"}, {"[a]\nx=${ΑΣ}\nας=2\n"}}
}

// The syntax is Python's; its own module is the judge.
func TestSameAsConfigparser(t *testing.T) {
	cases := slices.Concat(writtenCases(), generatedCases(1500), letterCases())
	answers := askPython(t, cases)
	refused, failed := 0, 0
	for i, files := range cases {
		want, got := answers[i], askOurs(files)
		if (want.Refused != "") != (got.Refused != "") {
			t.Errorf("case %d: Python says %q, we say %q\n%q", i, want.Refused, got.Refused, files)
			failed++
		} else if diff := cmp.Diff(want.Values, got.Values); diff != "" {
			t.Errorf("case %d: %q\n%s", i, files, diff)
			failed++
		}
		if want.Refused != "" {
			refused++
		}
		if failed > 5 {
			t.Fatal("and so on")
		}
	}
	if refused > len(cases)*3/4 {
		t.Errorf("Python refused %d of %d cases: the generator proves too little", refused, len(cases))
	}
}

func TestDifferencesFromConfigparser(t *testing.T) {
	table := differences()
	names := slices.Sorted(maps.Keys(table))
	var cases [][]string
	for _, name := range names {
		cases = append(cases, table[name].files)
	}
	for i, answer := range askPython(t, cases) {
		d := table[names[i]]
		if !d.python(answer) {
			t.Errorf("%s: Python does not differ as the table says", names[i])
		}
		if ours := askOurs(d.files); !d.ours(ours) {
			t.Errorf("%s: we don't differ as the table says: %.300v", names[i], ours)
		}
	}
}

// FuzzRead looks for texts that the reader can't take, and for those that an
// edit damages.
func FuzzRead(f *testing.F) {
	for _, files := range append(writtenCases(), generatedCases(50)...) {
		f.Add([]byte(files[0]), "a", "some value\n  of $HOME")
	}
	f.Add(builtin, "key", "")
	f.Fuzz(func(t *testing.T, data []byte, key, value string) {
		d, errs := parse("x", data)
		_ = errs.Error()
		for _, e := range d.entries {
			if e.key == "" || e.first > e.last || e.last >= len(d.lines) {
				t.Fatalf("entry %+v of %q", e, data)
			}
		}
		v := newValues(nil)
		v.add(d, LayerSite)
		v.Entries()
		if err := v.check().err(); err != nil {
			_ = err.Error()
		}
		edited, err := Edit("blog.cfg", data, []Change{Set("env", key, value)})
		if err != nil {
			return
		}
		back, errs := parse("x", edited)
		if len(errs) > 0 {
			t.Fatalf("edit of %q gave %q: %v", data, edited, errs)
		}
		v = newValues(nil)
		v.set(ref{"text", "empty"}, "", Origin{})
		v.add(back, LayerSite)
		if text, _ := v.raw(ref{"text", "empty"}); text != "" {
			return // the file redefines the word; schema.check refuses such files
		}
		if got, _, err := v.Lookup("env", key); err != nil || got != value {
			t.Fatalf("set %q to %q in %q: got %q, %v from %q", key, value, data, got, err, edited)
		}
		again, err := Edit("blog.cfg", edited, []Change{Unset("env", key)})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, _ := func() (string, bool, error) {
			d, _ := parse("x", again)
			v := newValues(nil)
			v.add(d, LayerSite)
			return v.Lookup("env", key)
		}(); ok {
			t.Fatalf("%q is still set in %q", key, again)
		}
	})
}
