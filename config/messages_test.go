package config

import (
	"errors"
	"strings"
	"testing"
)

// Everything that is wrong is said at once, each with its line and the next step.
func TestWhatIsSaid(t *testing.T) {
	const comment = "a comment stands on a line of its own"
	for _, test := range []struct {
		name, app string
		want      []string
		not       []string
	}{
		{"two bad hosts", "[app]\ndomains = a_.example ~x *y good.example\n",
			[]string{`blog.cfg:2: [app] domains: "~x" is no host's name`, `blog.cfg:2: [app] domains: "*y" has a * elsewhere`}, []string{"good", "a_"}},
		{"two bad paths", "[app]\npersist = ../a b /c b\n", []string{`[app] persist: the path "../a" leads out`, `not "/c"`, `the path "b" is inside "b"`}, nil},
		{"two bad statuses", "[health]\nstatus = 200 ok 99\n", []string{`"ok" is no HTTP status`, `"99" is no HTTP status`}, nil},
		{"lines before the first section", "src = x\n  more\nworkers = 2\n\nthreads = 1\n[app]\nkeep = 0\n",
			[]string{"blog.cfg:1: there is no section header above this line\nbegin with a section", "blog.cfg:3: there is no", "blog.cfg:5: there is no", "blog.cfg:7: [app] keep"}, []string{"blog.cfg:2", "blog.cfg:4"}},
		{"a header that is not closed", "[app\nworkers = 0\n", []string{`blog.cfg:1: "[app" begins a section header and has no "]"`, "write [NAME]"}, []string{"no section header"}},
		{"one among secrets", "[env]\nA = b\n[s3cret\n", []string{`blog.cfg:3: this line begins a section header`}, []string{"s3cret"}},
		{"a reference with a slip", "[app]\ndomains = ${nam}.example\n", []string{"refers to ${nam}, which is not set (did you mean ${name}?)"}, nil},
		{"a byte order mark", "\ufeff[app]\nkeep = 1\n", []string{"byte order mark", "blog.cfg:2: there is no section"}, nil},

		{"punycode that is none", "[app]\ndomains = xn--.test\n    www.xn--a-.test xn--99999999.test xn--abc--.test XN--BCHER-KVA.example\n",
			[]string{`the host "xn--.test" has "xn--" in it, which is no punycode`, `"xn--a-"`, `"xn--99999999"`, `"xn--abc--"`}, []string{"kva", "KVA"}},
		{"a host that begins with _", "[app]\ndomains = _a.test\n", []string{`"_a.test" is no host's name`}, nil},
		{"a slip of one letter", "[app]\ndomain = a.example\n", []string{"did you mean domains?"}, []string{"[site]"}},
		{"a key of another section", "[app]\numask = 022\n", []string{"did you mean umask in [site]?"}, nil},
		{"a URL for a host", "[app]\ndomains = http://foo.example/x *.EX.org. https://a.test:8443\n",
			[]string{`"http://foo.example/x" is no host's name`, "write the name alone: foo.example", "write the name alone: ex.org", "write the name alone: a.test"}, nil},
		{"nginx's words for hosts", "[app]\ndomains = .example.org _ www.* ~^a$$\n",
			[]string{`".example.org" is no host's name` + "\nfor the host and all below it write: example.org *.example.org", `"_" is no host's name` + "\nfor every host write *", "write *.HOST", `"~^a$" is no host's name`}, nil},
		{"an app as root", "[app]\nuser = root\n", []string{"[app] user: no app runs as root"}, nil},
		{"a prefix as it was written", "[app]\nurl_prefix = a;b\n", []string{`not "a;b"`}, []string{`a;b/`}},

		{"white space in a source", "[app]\nsrc = git@host:/my path\n", []string{`the source "git@host:/my path" holds white space`}, nil},
		{"a section of one's own", "[common]\nbase = /srv\n", []string{"[common]: there is no such section\nvalues of your own, that others refer to, go into [DEFAULT]: ${DEFAULT:KEY}"}, nil},
		{"a comment behind a source", "[app]\nsrc = /srv/x ; note\n", []string{"blog.cfg:2: [app] src: the source", comment}, nil},
		{"a comment behind a number", "[app]\nworkers = 4 # for now\n", []string{`not "4 # for now"`, comment}, nil},
		{"a comment behind a host", "[app]\ndomains = a.test\n   b.test\t; old\n", []string{`";" is no host's name`, comment}, nil},
		{"no comment", "[app]\nworkers = four\nsrc = ~/a;b#c\n", nil, []string{comment}},
		{"a comment that would show a secret", "[env]\n1X = s3cret # old\n", []string{"[env] 1X"}, []string{"s3cret"}},

		{"a value of [DEFAULT] in [env]", "[DEFAULT]\nzed = 1\n[env]\nA = ${zed}\n", []string{"blog.cfg:4: [env] A: refers to ${zed}, which is not set (did you mean ${DEFAULT:zed}?)"}, nil},
		{"an indented header", "[app]\nkeep = 3\n  [env]\nA = b\nC = d\n",
			[]string{"blog.cfg:4: [app] a: there is no such key\nline 3, [env], is indented, and so goes on with the value above it: begin it where that key begins", "blog.cfg:2: [app] keep"}, []string{"[app] has"}},
		{"an indented section", "[app]\nkeep = 3\n  [env]\n  A = b\n", []string{"blog.cfg:2: [app] keep: ", "\n[env] is indented, and so is part of the value: begin it where the key begins"}, nil},
		{"a file that is too long", "[app]\n#" + strings.Repeat("x", 2_000_000), []string{"the file has more than 1048576 bytes"}, []string{"1048577"}},
		{"a value from [DEFAULT]", "[DEFAULT]\nroot = /x\n", []string{"blog.cfg:2: [app] root, from [DEFAULT]: "}, nil},
		{"a module without a callable", "[app]\nentry_point = app.app\n", []string{`blog.cfg:2: [app] entry_point: must be MODULE:CALLABLE, with () for a factory, not "app.app"`}, nil},

		{"neighbours swapped", "[app]\nscr = /x\nkepe = 3\n[gti]\nbranch = x\n[pluigns]\n", []string{"did you mean src?", "did you mean keep?", "did you mean [git]?", "did you mean [plugins]?"}, nil},
		{"what nobody sets", "[app]\nnmae = blog\nconfgi = /x\ninstance_idd = 1\n[git]\nconfig = x\nname = x\n", []string{"[app] nmae: there is no such key\n[app] has src, "},
			[]string{"mean name", "mean config", "mean instance_id", "has name", "instance_id,", " config,"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := mustOpen(t, "", "blog", test.app).App("blog", AppOptions{})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in\n%v", want, err)
				}
			}
			for _, not := range test.not {
				if strings.Contains(err.Error(), not) {
					t.Errorf("there is %q in\n%v", not, err)
				}
			}
		})
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"src", "src", 0}, {"scr", "src", 1}, {"gti", "git", 1}, {"", "abc", 3}, {"ab", "", 2}, {"kitten", "sitting", 3}, {"ca", "abc", 3}, {"wrokesr", "workers", 2},
	} {
		if got := distance(test.a, test.b); got != test.want || distance(test.b, test.a) != test.want {
			t.Errorf("%q to %q is %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// The samples are those of RFC 3492, section 7.1, in lower case.
func TestPunycode(t *testing.T) {
	for _, good := range []string{
		"bcher-kva", "fiqs8s", "p1ai", "egbpdaj6bu4bxfgehfvwxn", "ihqwcrb4cv8a8dqg056pqjye", "ihqwctvzc91f659drss3x8bo0yb", "proprostnemluvesky-uyb24dma41a",
		"4dbcagdahymbxekheh6e0a7fei0b", "i1baa7eci9glrd9b2ae1bj0hfcgg6iyaf8o0a1dig0cd", "b1abfaaepdrnnbgefbadotcwatmq2g4l", "porqunopuedensimplementehablarenespaol-fmd56a",
		"-with-super-monkeys-pc58ag80a8qai00g7n9n", "3b-ww4c5e180e575a65lsy2b", "d9juau41awczczp",
	} {
		if !validPunycode(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", "-", "a-", "abc--", "9", "99999999", "zzzzzzzzzzzzzzzzzzzzzzzz", "a_b", "b\u00fccher", strings.Repeat("9", 59), "-> $1.00 <--"} {
		if validPunycode(bad) {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A plugin's check is part of an app's: with file, line and key, beside all else.
func TestPluginsCheck(t *testing.T) {
	plugins := testPlugins()
	plugins[0].Check = func(a *App, fail func(section, key string, err error)) {
		for _, k := range a.Keys("uwsgi_config") {
			fail("uwsgi_config", k, errors.New("can't be set\nremove the line"))
		}
	}
	s := mustOpen(t, "", "blog", "[app]\nworkers = many\n[uwsgi_config]\nsocket = x ; mine\n")
	s, err := Open(Options{Files: s.Files, Plugins: plugins})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.App("blog", AppOptions{})
	for _, want := range []string{"blog.cfg:2: [app] workers", "blog.cfg:4: [uwsgi_config] socket: can't be set\nremove the line\na comment stands"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	s = mustOpen(t, "[uwsgi_config]\nother = 1\n")
	// It keeps no app from serving.
	if s, err := Open(Options{Files: s.Files, Plugins: plugins}); err != nil || !strings.Contains(s.Mistakes.Error(), "scotch.cfg:2: [uwsgi_config] other: can't be set") {
		t.Errorf("of what a site file says for all apps: %v, %v", err, s)
	}
	off := mustOpen(t, "[plugins]\nuwsgi = off\n", "blog", "[uwsgi_config]\nsocket = x\n")
	off, err = Open(Options{Files: off.Files, Plugins: plugins})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := off.App("blog", AppOptions{}); err != nil {
		t.Errorf("a plugin that is off checks: %v", err)
	}
}
