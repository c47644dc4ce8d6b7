package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// deploys measures pushes to which the installer matters: the first of an app, with
// an empty cache and with a full one, one with a dependency more, and one
// without any change of them; by uv and by pip; of a small Flask app and of Django
// with thirty packages. Beside each install stands the installer by hand, into a
// virtualenv and with a cache of its own that is as empty or as full. The first with
// an empty cache depends on the index that is asked, and on the way there.
func deploys(ctx context.Context, b *bench) error {
	for _, installer := range []string{"uv", "pip"} {
		w, err := newWorld(b.program)
		if err != nil {
			return err
		}
		one := &bench{world: w, name: b.name, size: b.size, results: b.results}
		err = one.installs(ctx, installer)
		if cerr := w.close(ctx); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("%s: %w", installer, err)
		}
	}
	return nil
}

// installs is deploys with one installer.
func (b *bench) installs(ctx context.Context, installer string) error {
	if installer == "pip" {
		path, ok := pathWithout(b.world, "uv")
		if !ok {
			b.skip("installs by pip", "uv lies in a directory with programs that are needed")
			return nil
		}
		b.env = append(b.env, "PATH="+path)
	} else if _, err := lookPath(b.world, "uv"); err != nil {
		b.skip("installs by uv", "there is no uv")
		return nil
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	for _, app := range []struct {
		name, label string
		files       map[string]string
		rounds      int
	}{
		{"flask", "Flask", map[string]string{"app.py": flaskApp("0"), "requirements.txt": flaskRequirements, "scotch.cfg": briefWatch}, b.scaled(3, 1)},
		{"django", "Django and 30 packages", djangoApp(), b.scaled(1, 1)},
	} {
		if app.name == "django" && installer == "pip" && b.size < 2 {
			b.skip(app.label+", by pip", "it takes minutes; BENCH_SIZE=2 has it")
			continue
		}
		if err := b.installsOf(ctx, installer, app.name, app.label, app.files, app.rounds); err != nil {
			return fmt.Errorf("%s: %w", app.label, err)
		}
	}
	return b.end(interrupt)
}

func (b *bench) installsOf(ctx context.Context, installer, name, label string, files map[string]string, rounds int) error {
	b.say("%s, by %s", label, installer)
	steps := []string{"first deploy, empty cache", "first deploy, full cache", "one dependency added", "dependencies unchanged"}
	ours, hand := map[string]*sample{}, map[string]*sample{}
	for _, s := range steps {
		ours[s], hand[s] = &sample{}, &sample{}
	}
	var more map[string]string
	for round := range rounds {
		handCache := filepath.Join(b.home, fmt.Sprintf("cache-%s-%d", name, round))
		byHand := func(step string) error {
			took, err := b.installByHand(ctx, installer, handCache, files["requirements.txt"]+more["requirements.txt"])
			hand[step].took(took)
			return err
		}
		if err := os.RemoveAll(filepath.Join(b.dir, "instances", ".cache")); err != nil {
			return err
		}
		var p *project
		for i, step := range steps {
			more = nil
			var err error
			if i < 2 { // an app of its own each time, with no virtualenv yet
				app := fmt.Sprintf("%s-%d-%d", name, round, i)
				if p, err = b.project(ctx, app); err != nil {
					return err
				}
				if err = p.commit(ctx, "One", files); err != nil {
					return err
				}
			} else {
				if i == 2 {
					more = map[string]string{"requirements.txt": "six==1.17.*\n"}
				} else {
					more = map[string]string{"more.py": "# a change of the source\n"}
				}
				changed := map[string]string{}
				for file, text := range more {
					changed[file] = files[file] + text
				}
				if err = p.commit(ctx, step, changed); err != nil {
					return err
				}
			}
			pushed, err := p.push(ctx, "main")
			if err != nil {
				return err
			}
			ours[step].took(pushed.took)
			if err := b.settle(ctx, p.app); err != nil {
				return err
			}
			if i < 3 {
				if err := byHand(step); err != nil {
					return err
				}
			}
		}
	}
	for _, s := range steps {
		b.add(row{What: fmt.Sprintf("%s, by %s: %s", label, installer, s), Unit: "s", Peer: byHandName(hand[s], installer), Floor: hand[s], Ours: ours[s]})
	}
	return nil
}

func byHandName(s *sample, installer string) string {
	if len(s.values) == 0 {
		return ""
	}
	return installer + " alone"
}

// installByHand makes a virtualenv as a person would, and returns how long that takes.
func (b *bench) installByHand(ctx context.Context, installer, cache, requirements string) (time.Duration, error) {
	dir, err := os.MkdirTemp(b.home, "hand")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	list, venv := filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "venv")
	if err := os.WriteFile(list, []byte(requirements), 0o644); err != nil {
		return 0, err
	}
	python := filepath.Join(venv, "bin", "python")
	commands := [][]string{
		{"uv", "venv", "-q", "--cache-dir", cache, "--python", "/usr/bin/python3", venv},
		{"uv", "pip", "install", "-q", "--cache-dir", cache, "--python", python, "--compile-bytecode", "-r", list},
	}
	if installer == "pip" {
		commands = [][]string{
			{"/usr/bin/python3", "-m", "venv", venv},
			{python, "-m", "pip", "install", "-q", "--cache-dir", cache, "-r", list},
		}
	}
	begin := time.Now()
	for _, c := range commands {
		if _, err := b.run(ctx, dir, c[0], c[1:]...); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// pathWithout is the PATH without the directories that have a program; ok tells
// that all else that is needed is still found there.
func pathWithout(w *world, program string) (path string, ok bool) {
	var dirs []string
	for _, dir := range filepath.SplitList(w.getenv("PATH")) {
		if !executable(filepath.Join(dir, program)) {
			dirs = append(dirs, dir)
		}
	}
	for _, need := range []string{"git", "ssh", "nginx", "uwsgi", "python3"} {
		found := false
		for _, dir := range dirs {
			found = found || executable(filepath.Join(dir, need))
		}
		if !found {
			return "", false
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator)), true
}

// lookPath finds a program on the world's PATH.
func lookPath(w *world, program string) (string, error) {
	for _, dir := range filepath.SplitList(w.getenv("PATH")) {
		if path := filepath.Join(dir, program); executable(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not on the PATH", program)
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// getenv is a variable of the world's environment; the last one counts.
func (w *world) getenv(name string) string {
	for i := len(w.env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(w.env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// djangoApp is Django with thirty packages, as many projects have it; what is
// tested is the installer, so one page is enough.
func djangoApp() map[string]string {
	return map[string]string{
		"requirements.txt": strings.Join([]string{
			"Django==5.2.*", "djangorestframework==3.16.*", "django-environ==0.12.*", "django-filter==25.*", "django-cors-headers==4.7.*",
			"django-debug-toolbar==5.*", "django-extensions==4.*", "django-allauth==65.*", "django-crispy-forms==2.*", "crispy-bootstrap5==2025.*",
			"django-storages==1.14.*", "whitenoise==6.*", "gunicorn==23.*", "requests==2.32.*", "httpx==0.28.*", "pillow==11.*", "redis==5.*",
			"celery==5.5.*", "sentry-sdk==2.*", "python-dateutil==2.9.*", "pytz==2025.*", "PyJWT==2.10.*", "Markdown==3.8.*", "bleach==6.*",
			"beautifulsoup4==4.13.*", "lxml==5.*", "openpyxl==3.1.*", "Jinja2==3.1.*", "pydantic==2.11.*", "PyYAML==6.*",
		}, "\n") + "\n",
		"manage.py":        "import os, sys\n\nfrom django.core.management import execute_from_command_line\n\nos.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\nexecute_from_command_line(sys.argv)\n",
		"shop/__init__.py": "",
		"shop/settings.py": "SECRET_KEY = \"measured\"\nALLOWED_HOSTS = [\"*\"]\nROOT_URLCONF = \"shop.urls\"\nWSGI_APPLICATION = \"shop.wsgi.application\"\nUSE_TZ = True\n",
		"shop/urls.py":     "from django.http import HttpResponse\nfrom django.urls import path\n\nurlpatterns = [path(\"\", lambda request: HttpResponse(\"version 0.\"))]\n",
		"shop/wsgi.py":     "import os\n\nfrom django.core.wsgi import get_wsgi_application\n\nos.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\napplication = get_wsgi_application()\n",
		"scotch.cfg":       "[health]\nwatch = 1\n",
	}
}
