package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// everLive takes every other app for live, never for not deployed yet.
func everLive(string) bool { return true }

func never(string) bool { return false }

// A deploy gives an app's directories to its user, and removes them with all
// that is in them: they must not be another app's, the server's or the system's.
func TestPlacesTaken(t *testing.T) {
	const site = "[server]\nmode = system\n"
	for app, want := range map[string]string{
		"data_path = ${paths:data}":                               `is the same as [paths] data, "/var/lib/scotch/data" (defaults.cfg (built in):`,
		"data_path = /var/lib/scotch":                             "is around [paths] repositories",
		"data_path = /":                                           `"/" is the system's own`,
		"data_path = /etc":                                        "the system's own",
		"data_path = /etc/blog":                                   "the system's own",
		"data_path = /usr/share/blog":                             "the system's own",
		"data_path = /srv":                                        "the system's own",
		"data_path = /var/lib/../lib":                             "the system's own",
		"data_path = ${paths:repositories}/blog.git":              "is inside [paths] repositories",
		"data_path = ${paths:logs}/blog":                          "is inside [paths] logs",
		"run_path = ${paths:run}/apps/${name}/${instance_id}":     "is inside [paths] run",
		"data_path = ${paths:apps_enabled}":                       "[paths] apps_enabled",
		"data_path = ${paths:configuration}":                      "[paths] apps_enabled", // the first one that it would take
		"data_path = ${paths:configuration}/keys":                 "[paths] configuration",
		"data_path = ${paths:configuration}/scotch.cfg":           "has the site file",
		"venv_path = /":                                           `"/" is the system's own`,
		"venv_path = /srv":                                        `"/srv" is the system's own`,
		"venv_path = /etc":                                        `"/etc" is the system's own`,
		"instance_path = /home/":                                  `"/home" is the system's own`,
		"run_path = /tmp":                                         `"/tmp" is the system's own`,
		"src_path = /srv/${instance_id}":                          `"/srv" is the system's own`,
		"venv_path = ${paths:instances}":                          `"/var/local/scotch" is the same as [paths] instances`,
		"src_path = ${paths:data}":                                `"/var/lib/scotch/data" is the same as [paths] data`,
		"src_path = relative/src":                                 `not "relative/src"`,
		"src_path = /usr/local/bin/${instance_id}":                "",
		"instance_path = ${paths:instances}/${name}/releases":     `is in "/var/local/scotch/blog/releases", which scotch keeps itself`,
		"venv_path = ${paths:instances}/${name}/.venvs/x":         "which scotch keeps itself",
		"run_path = ${paths:instances}/${name}/current/run/extra": "which scotch keeps itself",
		"data_path = ${paths:instances}":                          "is the same as [paths] instances",

		"data_path = /srv/blog":                                     "",
		"data_path = /data":                                         "",
		"data_path = ${paths:data}/shared":                          "",
		"data_path = ${paths:instances}/${name}/data":               "",
		"data_path = /home/me/data":                                 "",
		"venv_path = /virtualenvs/${name}":                          "",
		"venv_path = /virtualenvs":                                  "",
		"venv_path = ${paths:instances}/venvs/${name}":              "",
		"venv_path = ${paths:configuration}/venvs/${name}":          "",
		"run_path = /srv/run/${name}\nsrc_path = /srv/src/${name}":  "",
		"instance_path = ${paths:instances}/${name}/${instance_id}": "",
	} {
		s := mustOpen(t, site, "blog", "[app]\n"+app+"\n")
		_, err := s.App("blog", AppOptions{InstanceID: "000001"})
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", app, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "blog.cfg:2: [app] ")):
			t.Errorf("%q: got %v, want %q", app, err, want)
		}
	}
}

// One mistake is one error, on the line that a person wrote.
func TestPlacesSaidOnce(t *testing.T) {
	for app, want := range map[string]string{
		"venv_path = /etc":                       `[app] venv_path: "/etc" is the system's own`,
		"data_path = ${paths:instances}/${name}": `[app] data_path: "/var/local/scotch/blog" is around [app] venv_path, "/var/local/scotch/blog/000001/venv", or the same`,
		"src_path = ${venv_path}":                `[app] src_path: "/var/local/scotch/blog/000001/venv" is around [app] venv_path`,
		"venv_path = ${venv_path}/x":             "[app] venv_path: refers to itself: app:venv_path → app:venv_path",
		"instance_path = relative":               `not "relative"`,
	} {
		s := mustOpen(t, "[server]\nmode = system\n", "blog", "[app]\n"+app+"\n")
		_, err := s.App("blog", AppOptions{InstanceID: "000001"})
		var errs Errors
		if !errors.As(err, &errs) || len(errs) != 1 || errs[0].Line != 2 || filepath.Base(errs[0].File) != "blog.cfg" {
			t.Errorf("%q: got %v, want one error at blog.cfg:2", app, err)
			continue
		}
		if got, _, _ := strings.Cut(errs[0].Error(), "\n"); !strings.Contains(got, want) || strings.Count(got, "→") > 1 {
			t.Errorf("%q: got %q, want %q", app, got, want)
		}
	}
}

// What a site file says for all apps is checked as it is written.
func TestPlacesOfTheSite(t *testing.T) {
	for site, want := range map[string]string{
		"[app]\nvenv_path = /home\n":                                     `scotch.cfg:2: [app] venv_path: "/home" is the system's own`,
		"[app]\nvenv_path = /virtualenvs\n":                              "",
		"[app]\ninstance_path = ${paths:instances}\n":                    "",
		"[app]\ninstance_path = ${paths:instances}/${name}\n":            "",
		"[paths]\ninstances = /etc\nconfiguration = /srv/c\n":            `scotch.cfg:2: [paths] instances: "/etc" is the system's own`,
		"[paths]\ninstances = /\nconfiguration = /srv/c\n":               "the system's own",
		"[paths]\ndata = /home\nconfiguration = /srv/c\n":                "the system's own",
		"[paths]\nrepositories = /usr/share/x\nconfiguration = /srv/c\n": "the system's own",
		"[paths]\nlogs = /var/log\nconfiguration = /srv/c\n":             "the system's own",
		"[paths]\nrun = /run\nconfiguration = /srv/c\n":                  "the system's own",
		"[paths]\nlogs = /usr/local/scotch\nconfiguration = /srv/c\n":    "",
	} {
		s, err := openSite(t, site, "blog", "")
		if err == nil {
			_, err = s.App("blog", AppOptions{InstanceID: "000001"})
		}
		if _, missing := errors.AsType[*NoAppError](err); missing {
			err = nil // [paths] configuration is elsewhere
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", site, err, want)
		}
	}
}

func TestPlacesOfOthers(t *testing.T) {
	const (
		same = "[app]\nuser = web\n"
		mode = "[server]\nmode=standalone\n"
	)
	for _, test := range []struct {
		name, site, blog, shop string
		want                   string // in the error of blog's, "" for none
	}{
		{"defaults", "", "", "", ""},
		{"0.3's exotic site file", "[app]\ninterpreter=/usr/local/custom-python/bin/python\nvenv_path=/virtualenvs/${name}\n", "", "", ""},
		{"one root for all", "[app]\nvenv_path=/virtualenvs\nrun_path=/r/${instance_id}\n", "", "", ""},
		{"roots of their own", "", "[app]\nvenv_path=/v/blog\nsrc_path=/s/blog\n", "[app]\nvenv_path=/v/shop\nsrc_path=/s/shop\n", ""},
		{"names that begin alike", "", "[app]\ndata_path=/srv/shop-2\n", "[app]\ndata_path=/srv/shop\n", ""},

		{"the same sources", "", "[app]\nsrc_path=/shared/src\n", "[app]\n\nsrc_path=/shared/src/${instance_id}\n",
			`blog.cfg:2: [app] src_path: "/shared/src/ID" of app "blog" is the same as "/shared/src/ID", [app] src_path of app "shop" (SHOP:3)`},
		{"data in another's source", "", "[app]\ndata_path=/srv/src/000007/static\n", "[app]\nsrc_path=/srv/src\n",
			`blog.cfg:2: [app] data_path: "/srv/src/000007/static" of app "blog" is inside "/srv/src/ID", [app] src_path of app "shop" (SHOP:2)`},
		{"beside another's instances", "", "[app]\ndata_path=/srv/src/static\n", "[app]\nsrc_path=/srv/src\n", ""},
		{"around another's", "", "[app]\ndata_path=/srv/all\n", "[app]\nrun_path=/srv/all/run\n", `is around "/srv/all/run/ID", [app] run_path of app "shop" (SHOP:2)`},
		{"below another's current", "", "[app]\nrun_path=${paths:instances}/shop/current/run/x\n", "",
			`blog.cfg:2: [app] run_path: "/var/local/scotch/shop/current/run/x/ID" of app "blog" is inside "/var/local/scotch/shop", the directory of app "shop" in [paths] instances`},
		{"another's store of virtualenvs", "", "[app]\ndata_path=/v/.venvs/shop/key\n", "[app]\nvenv_path=/v\n", `is inside "/v/.venvs/shop", [app] venv_path of app "shop" (SHOP:2)`},
		{"another's .src", "", "[app]\nsrc_path=${paths:instances}/shop/.src\n", "", `the directory of app "shop"`},
		{"another's data", "", "[app]\ndata_path=${paths:data}/shop\n", "", `is the same as "/var/lib/scotch/data/shop", [app] data_path of app "shop" (defaults.cfg (built in):`},
		{"in another's data", "", "[app]\nsrc_path=${paths:data}/shop/src\n", "", `is inside "/var/lib/scotch/data/shop", [app] data_path of app "shop"`},
		{"by [DEFAULT]", "[DEFAULT]\nwhere=/srv/${name}\n", "[app]\ndata_path=/srv/shop\n", "[app]\nsrc_path=${where}/src\n", `is around "/srv/shop/src/ID", [app] src_path of app "shop" (SHOP:2)`},
		// The line that a person wrote is the one to mend, whoever is deployed.
		{"blog by default, shop by its file", "", "", "[app]\ndata_path=${paths:instances}/blog\n", `shop.cfg:2: [app] data_path: "/var/local/scotch/blog" of app "shop" is the same as "/var/local/scotch/blog", the directory of app "blog"`},

		{"data of two users", "", "[app]\ndata_path=/srv/d\n", "[app]\ndata_path=/srv/d\n", "two apps can share a data_path"},
		{"data shared by one user", "", same + "data_path=/srv/d\n", same + "data_path=/srv/d\n", ""},
		{"data shared by the site", mode + "[app]\ndata_path=/srv/d\n", "", "", ""},
		{"data shared, standalone", mode, "[app]\ndata_path=/srv/d\n", "[app]\ndata_path=/srv/d/\n", ""},
		{"data in data", mode, "[app]\ndata_path=/srv/d/blog\n", "[app]\ndata_path=/srv/d\n", `is inside "/srv/d", [app] data_path of app "shop"`},
		{"another's default data", mode, "[app]\ndata_path=${paths:data}/shop\n", "", "is the same as"},
		{"another's file is broken elsewhere", "", "[app]\nsrc_path=/s\n", "[app]\nworkers=many\nsrc_path=/s\n[nonsense]\nline\n", `[app] src_path of app "shop" (SHOP:3)`},
		{"another's path is broken", "", "[app]\nsrc_path=/s\n", "[app]\nsrc_path=${nope}\nvenv_path=relative\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := mustOpen(t, test.site, "blog", test.blog, "shop", test.shop, "else", "")
			shop, _ := s.AppFile("shop")
			_, err := s.App("blog", AppOptions{InstanceID: "000001", Live: everLive})
			want := strings.ReplaceAll(test.want, "SHOP", shop)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v\nwant %s", err, want)
			}
			if _, err := s.App("blog", AppOptions{InstanceID: "000001"}); err != nil {
				t.Errorf("without a deploy: %v", err)
			}
		})
	}
}

// Of two apps at one place the one that is live keeps it; a place that follows
// from the site's files is kept from an app's file before that too.
func TestPlacesOfWhoIsLive(t *testing.T) {
	s := mustOpen(t, "", "blog", "[app]\nsrc_path=/s\n", "shop", "[app]\nsrc_path=/s\n", "thief", "[app]\ndata_path=${paths:data}/plain\n", "plain", "")
	check := func(app string, live func(string) bool, refused bool) {
		t.Helper()
		if _, err := s.App(app, AppOptions{InstanceID: "000001", Live: live}); (err != nil) != refused {
			t.Errorf("%s: %v", app, err)
		}
	}
	only := func(name string) func(string) bool { return func(app string) bool { return app == name } }
	check("blog", never, false)
	check("blog", only("blog"), false)
	check("shop", only("blog"), true)
	check("thief", never, true)
	check("plain", never, false)
	check("plain", only("thief"), true)
}

// What is known of other apps follows their files.
func TestPlacesFollowFiles(t *testing.T) {
	s := mustOpen(t, "", "blog", "[app]\nsrc_path=/s\n", "shop", "")
	file, _ := s.AppFile("shop")
	deploy := func() error {
		_, err := s.App("blog", AppOptions{InstanceID: "000001", Live: everLive})
		return err
	}
	if err := deploy(); err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"[app]\nsrc_path=/s\n", "[app]\nsrc_path=/t\n", "[app]\nrun_path=/s\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// Where a clock ticks coarsely, two writes can look like one.
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(time.Duration(i+1)*time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := deploy(); (err != nil) != (i != 1) {
			t.Errorf("%q: %v", text, err)
		}
	}
	os.Remove(file)
	if err := deploy(); err != nil {
		t.Errorf("the other app is gone: %v", err)
	}
}

// The error is one of the configuration's, beside all others.
func TestPlacesWithOtherErrors(t *testing.T) {
	s := mustOpen(t, "", "blog", "[app]\nsrc_path=/s\ndata_path=/etc\nworkers=many\n", "shop", "[app]\nsrc_path=/s\n")
	_, err := s.App("blog", AppOptions{InstanceID: "000001", Live: everLive})
	var all Errors
	if !errors.As(err, &all) || len(all) != 3 || all[0].Line != 2 || all[1].Line != 3 || all[2].Line != 4 {
		t.Errorf("got %v", err)
	}
}

// many is a site with n apps beside blog.
func many(t testing.TB, n int) *Site {
	files := []string{"blog", "[app]\nsrc_path=/srv/${name}/src\ndata_path=/srv/${name}/data\n"}
	for i := range n {
		files = append(files, fmt.Sprintf("app%d", i), fmt.Sprintf("[app]\nsrc = https://git.example.org/%d.git\ndomains = %d.example.org\nvenv_path=/v/${name}\n[env]\nA = 1\nB = 2\n", i, i))
	}
	for i := 0; i < len(files); i += 2 {
		files[i] = "apps-enabled/" + files[i] + ".cfg"
	}
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "apps-enabled"), 0o755)
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	site := filepath.Join(dir, "scotch.cfg")
	if err := os.WriteFile(site, []byte("[paths]\nconfiguration="+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Files: []string{site}, Plugins: testPlugins()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// 500 apps cost a deploy of one no more than a moment, also the first one of a
// server, which reads all files.
func BenchmarkDeployAmong500(b *testing.B) {
	for _, first := range []bool{true, false} {
		b.Run(fmt.Sprintf("first=%t", first), func(b *testing.B) {
			s := many(b, 500)
			for b.Loop() {
				if first {
					s.neighbours = new(neighbours)
				}
				if _, err := s.App("blog", AppOptions{InstanceID: "000001", Live: everLive}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
