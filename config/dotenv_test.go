package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDotenv(t *testing.T) {
	const text = "\ufeff# the blog\r\n" + `
PLAIN=one two  # a comment
  export	SPACED = x
export EXPORTED=y
EMPTY=
HASH=a#b
COLOUR="#fff" # white
DOLLAR=$HOME ${X} $$
SINGLE='a $b \n "c" # d'
DOUBLE="a\nb\t\"c\" \\ \$d \d 'e'"
KEY="-----BEGIN KEY-----
AB=C #

-----END KEY-----
"
LINES='one
two'
URL=postgres://u:p=w@h/db?a=b&c=d
QUOTE=it's
AGAIN=1
AGAIN=2
LAST=z`
	want := []Var{
		{"PLAIN", "one two"}, {"SPACED", "x"}, {"EXPORTED", "y"}, {"EMPTY", ""}, {"HASH", "a#b"}, {"COLOUR", "#fff"},
		{"DOLLAR", "$HOME ${X} $$"}, {"SINGLE", `a $b \n "c" # d`}, {"DOUBLE", "a\nb\t\"c\" \\ $d \\d 'e'"},
		{"KEY", "-----BEGIN KEY-----\nAB=C #\n\n-----END KEY-----\n"}, {"LINES", "one\ntwo"},
		{"URL", "postgres://u:p=w@h/db?a=b&c=d"}, {"QUOTE", "it's"}, {"AGAIN", "2"}, {"LAST", "z"},
	}
	got, err := ParseDotenv([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseDotenvRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"A=1\ns3cret":                   "line 2: this is no NAME=VALUE",
		"A=1\n\ns3 cret=x":              "line 3: what stands before the = is no name",
		"=s3cret":                       "line 1: what stands before",
		"A=1\nB='s3cret\nC=2\n":         "line 2: B: the value begins with '",
		"A=\"s3cret":                    "line 1: A: the value begins with \"",
		"A=\"x\ny\"\nB='a' s3cret":      "line 3: B: something follows",
		"-----BEGIN s3cret KEY-----\nx": "line 1: this is no NAME=VALUE",
	} {
		got, err := ParseDotenv([]byte(text))
		switch {
		case err == nil:
			t.Errorf("%q gave %q", text, got)
		case !strings.HasPrefix(err.Error(), want):
			t.Errorf("%q: %v, want %s", text, err, want)
		case strings.Contains(err.Error(), "s3cret"):
			t.Errorf("the error shows the value: %v", err)
		}
	}
}
