package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A release recorded [uwsgi_config], by that name: what an app may set of another
// application server was not taken back by a rollback.
func TestAnAppServersSettingsAreRecorded(t *testing.T) {
	plugins := []Defaults{
		{Name: "uwsgi", Recorded: true, Text: []byte("[uwsgi]\n# site files only\nprogram = uwsgi\n[uwsgi_config]\n")},
		{Name: "gunicorn", Recorded: true, Text: []byte("[plugins]\ngunicorn = off\n[gunicorn]\n# Which.\n# site files only\npackage = gunicorn\n\n# How many.\nmax_requests = 0\n\n# Unset.\n#nice = 3\n[gunicorn_config]\n")},
		{Name: "nginx", Text: []byte("[nginx]\n# Lines.\n#include = /etc/lines\n")},
	}
	open := func(site, app string) *Site {
		t.Helper()
		dir := folder(t, "scotch.cfg", site, "apps-enabled/blog.cfg", app)
		s, err := Open(Options{Files: []string{writeConfiguration(t, dir)}, Plugins: plugins})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	of := func(s *Site, o AppOptions) (lines []string) {
		t.Helper()
		a, err := s.App("blog", o)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range a.Settings() {
			if strings.Contains(x.Section, "corn") || strings.Contains(x.Section, "uwsgi") || strings.Contains(x.Section, "nginx") || x.Key == "workers" {
				lines = append(lines, x.String())
			}
		}
		return lines
	}
	const gunicorn = "[plugins]\nuwsgi = off\ngunicorn = on\n"
	was := open(gunicorn, "[app]\nworkers = 3\n[gunicorn]\nmax_requests = 5\n[gunicorn_config]\nlimit = 1\n[uwsgi_config]\nharakiri = 9\n[nginx]\ninclude = /etc/lines\n")
	want := []string{"[app] workers = 3", "[gunicorn] max_requests = 5", "[gunicorn_config] limit = 1"}
	if got := of(was, AppOptions{}); !slices.Equal(got, want) {
		t.Errorf("recorded are %q, want %q", got, want)
	}
	a, err := was.App("blog", AppOptions{})
	if err != nil {
		t.Fatal(err)
	}
	settings := a.Settings()

	// As it was: what was unset is so again.
	now := open(gunicorn, "[gunicorn]\nmax_requests = 7\nnice = 4\n[gunicorn_config]\nmore = 2\n")
	if got := of(now, AppOptions{Recorded: settings}); !slices.Equal(got, want) {
		t.Errorf("run as it was it has %q, want %q", got, want)
	}
	if a, err := now.App("blog", AppOptions{Recorded: settings}); err != nil {
		t.Error(err)
	} else if v, err := a.Get("gunicorn", "package"); v != "gunicorn" || err != nil {
		t.Errorf("what site files say is %q, %v", v, err)
	}
	// A key that the release does not know has what it has today.
	older := slices.DeleteFunc(slices.Clone(settings), func(s Setting) bool { return s.Key == "max_requests" })
	if got := of(now, AppOptions{Recorded: older}); !slices.Equal(got, []string{"[app] workers = 3", "[gunicorn] max_requests = 7", "[gunicorn_config] limit = 1"}) {
		t.Errorf("with a key that is newer it has %q", got)
	}
	// With another server than the one it ran with, that one's are today's.
	changed := open("", "[uwsgi_config]\nharakiri = 8\n[gunicorn]\nmax_requests = 7\n")
	if got := of(changed, AppOptions{Recorded: settings, OtherServer: true}); !slices.Equal(got, []string{"[app] workers = 3", "[uwsgi_config] harakiri = 8"}) {
		t.Errorf("with another server it has %q", got)
	}
	if got := of(changed, AppOptions{Recorded: settings}); !slices.Equal(got, []string{"[app] workers = 3"}) {
		t.Errorf("with no option of that server it has %q", got)
	}
}

func writeConfiguration(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "scotch.cfg")
	appendTo(t, file, "\n[paths]\nconfiguration = "+dir+"\n")
	return file
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(have, text...), 0o600); err != nil {
		t.Fatal(err)
	}
}
