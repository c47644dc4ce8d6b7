package config

import (
	"strings"
	"testing"
)

// The hint of an operator's key in scotch.cfg named the file "NAME.cfg" and a restart
// that such a key may not need: it is the command to type, which secrets stay out of.
func TestOperatorsKeyInSourceNamesTheCommand(t *testing.T) {
	s := mustOpen(t, "", "mono", "")
	for _, test := range []struct{ source, want string }{
		{"[app]\nroot = services/web\n", "ssh x config mono set root=services/web"},
		{"[app]\nworkers = 4\n", "ssh x config mono set workers=4"},
		{"[app]\ndomains = a.example b.example\n", `ssh x config mono set 'domains="a.example b.example"'`},
		{"[app]\ndomains =\n", "ssh x config mono set domains="},
		{"[app]\ndata_path = /d/${name}\n", "ssh x config mono set data_path=/d/mono"},
		{"[app]\ndata_path = ${paths:data}/x\n", "ssh x config mono set data_path=VALUE"},
		{"[limits]\nmemory = 1g\n", "ssh x config mono set limits:memory=1g"},
		{"[uwsgi_config]\nmap =\n  a\n  b\n", "ssh x config mono set uwsgi_config:map < FILE"},
		{"[app]\nuser = it's\n", "ssh x config mono set user < FILE"},
		{"[app]\nsrc = https://me:s3cret@git.example/x\n", "ssh x config mono set src < FILE"},
		{"[build_env]\nTOKEN = s3cret\n", "ssh x config mono set build_env:TOKEN < FILE"},
		{"[build_env]\nTOKEN = ${s3cret}\n", "ssh x config mono set build_env:TOKEN < FILE"},
	} {
		s.Commands = "ssh x"
		_, err := s.App("mono", AppOptions{Source: []byte(test.source)})
		want := "can't be set in the app's source\nremove the line; an operator sets it on the server: " + test.want
		if err == nil || !strings.Contains(err.Error()+"\n", want+"\n") || strings.Contains(err.Error(), "s3cret") && !strings.Contains(test.source, "${s3cret") {
			t.Errorf("%q gives %v, want %s", test.source, err, want)
		}
	}
	_, err := s.App("mono", AppOptions{Source: []byte("[server]\nlisten = :1\n")})
	if err == nil || !strings.Contains(err.Error(), "an operator sets it in a site file") {
		t.Errorf("%v", err)
	}
}

// A standalone server's site file is elsewhere than /etc/scotch.cfg.
func TestSiteOnlyKeyNamesTheSiteFile(t *testing.T) {
	s := mustOpen(t, "", "blog", "[server]\nlisten = :1\n")
	_, err := s.App("blog", AppOptions{})
	if want := "can't be set for one app\nset it in the site file " + s.Files[0]; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
