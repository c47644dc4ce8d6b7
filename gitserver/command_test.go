package gitserver

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitCommand(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string // nil: an error
	}{
		{"", []string{}},
		{"  ", []string{}},
		{"list", []string{"list"}},
		{" deploy\tblog \n", []string{"deploy", "blog"}},
		{`git-receive-pack '/blog'`, []string{"git-receive-pack", "/blog"}},
		{`git-receive-pack 'it'\''s'\!`, []string{"git-receive-pack", "it's!"}},
		{`a '' "" b`, []string{"a", "", "", "b"}},
		{`"a\"b\\c\$d\e"`, []string{`a"b\c$d\e`}},
		{`a\ b`, []string{"a b"}},
		{"a\\\nb \"c\\\nd\"", []string{"ab", "cd"}},
		{`x;y|z && $(id) > f # c`, []string{"x;y|z", "&&", "$(id)", ">", "f", "#", "c"}},
		{`Grüße`, []string{"Grüße"}},
		{`a 'b`, nil},
		{`a "b`, nil},
		{`a "b\"`, nil},
		{`a \`, nil},
		{"a\x00b", nil},
		{"a\xffb", nil},
	} {
		got, err := splitCommand(tt.line)
		if (err != nil) != (tt.want == nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, %v, want %q", tt.line, got, err, tt.want)
		}
	}
}

func TestParseGit(t *testing.T) {
	for _, tt := range []struct {
		line string
		svc  service
		app  string // "" for an error
	}{
		{`git-receive-pack 'blog'`, receivePack, "blog"},
		{`git-receive-pack '/blog'`, receivePack, "blog"},
		{`git-receive-pack 'blog.git'`, receivePack, "blog"},
		{`git receive-pack '/blog.git'`, receivePack, "blog"},
		{`git-upload-pack '/blog.git/'`, uploadPack, "blog"},
		{`git upload-pack blog-api`, uploadPack, "blog-api"},
		{`git-upload-archive blog`, uploadArchive, "blog"},
		{`git-upload-pack`, uploadPack, ""},
		{`git-upload-pack --strict blog`, uploadPack, ""},
		{`git-upload-pack ''`, uploadPack, ""},
		{`git-upload-pack ../blog`, uploadPack, ""},
		{`git-upload-pack a/b`, uploadPack, ""},
	} {
		words, err := splitCommand(tt.line)
		if err != nil {
			t.Fatal(err)
		}
		svc, app, ok, err := parseGit(words)
		if !ok || svc != tt.svc || (err == nil && app != tt.app) || (err != nil) != (tt.app == "") {
			t.Errorf("%q: %q %q %v %v", tt.line, svc, app, ok, err)
		}
	}
	for _, line := range []string{"", "list", "git", "git status", "git-shell x", "receive-pack blog", "upload-pack blog"} {
		words, _ := splitCommand(line)
		if _, _, ok, _ := parseGit(words); ok {
			t.Errorf("%q is taken for git", line)
		}
	}
}

func FuzzCommandLine(f *testing.F) {
	f.Add(`git-receive-pack 'it'\''s'`)
	f.Add(`env blog set "A=\$x" B=' '`)
	f.Add(`git upload-pack /blog.git`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitCommand(line)
		if err != nil {
			return
		}
		// What a shell would make of the words, quoted as git does it, is the words.
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		again, err := splitCommand(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(words, again) {
			t.Errorf("%q: %q, then %q, %v", line, words, again, err)
		}
		if _, app, ok, err := parseGit(words); ok && err == nil && (app == "" || len(app) > 40 || strings.ContainsAny(app, "/. '\\")) {
			t.Errorf("%q: app %q", line, app)
		}
	})
}
