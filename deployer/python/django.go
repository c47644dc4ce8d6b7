package python

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

var settingsEnv = pattern(`['"]DJANGO_SETTINGS_MODULE['"]\s*[,\]]\s*=?\s*['"]([\w.]+)['"]`)

// django follows manage.py to the settings and these to WSGI_APPLICATION
// (https://docs.djangoproject.com/en/stable/ref/settings/#wsgi-application), or
// to the wsgi.py beside them.
func (f *finder) django() (deployer.EntryPoint, bool, error) {
	text, ok := f.s.text("manage.py")
	if !ok {
		return deployer.EntryPoint{}, false, nil
	}
	m := settingsEnv().FindStringSubmatch(text)
	if m == nil {
		return deployer.EntryPoint{}, false, nil
	}
	settings := m[1]
	for _, name := range f.settingsFiles(settings) {
		text, _ := f.s.text(name)
		value, ok := parseModule(text).assigned["WSGI_APPLICATION"]
		if !ok || len(value) < 2 || strings.IndexByte(`"'`, value[0]) < 0 {
			continue
		}
		value = strings.Trim(value[:pyStringEnd(value)], `"'`)
		if i := strings.LastIndexByte(value, '.'); i > 0 && moduleName().MatchString(value) {
			return deployer.EntryPoint{Module: value[:i], Callable: value[i+1:], Framework: "Django", Why: "detected: Django, " + name}, true, nil
		}
	}
	for pkg := settings; pkg != ""; {
		pkg = pkg[:max(0, strings.LastIndexByte(pkg, '.'))]
		module := strings.TrimPrefix(pkg+".wsgi", ".")
		if name, ok := f.moduleFile(module); ok {
			return deployer.EntryPoint{Module: module, Callable: "application", Framework: "Django", Why: "detected: Django, " + name}, true, nil
		}
	}
	var found []deployer.EntryPoint
	for _, entry := range f.s.list(".") {
		if name := entry.Name(); identifier().MatchString(name) && f.s.isFile(name+"/wsgi.py") {
			found = append(found, deployer.EntryPoint{Module: name + ".wsgi", Callable: "application", Framework: "Django", Why: "detected: Django, " + name + "/wsgi.py"})
		}
	}
	if e, ok, err := single(found); ok || err != nil {
		return e, ok, err
	}
	return deployer.EntryPoint{}, false, fmt.Errorf("manage.py is Django's with the settings %q, and neither WSGI_APPLICATION nor a wsgi.py is found\n%sPACKAGE.wsgi:application", settings, howTo)
}

// settingsFiles are the files of a settings module, and the ones beside it:
// settings/production.py takes most of settings/base.py.
func (f *finder) settingsFiles(module string) []string {
	own, ok := f.moduleFile(module)
	if !ok {
		return nil
	}
	files := []string{own}
	if dir := path.Dir(own); path.Base(dir) == "settings" || path.Base(own) == "__init__.py" {
		for _, entry := range f.s.list(dir) {
			if name := path.Join(dir, entry.Name()); strings.HasSuffix(name, ".py") && name != own {
				files = append(files, name)
			}
		}
	}
	return files
}

// sqliteFile matches the NAME of a database that lies in the source, as
// startproject writes it, and as it did before Django 3.1.
var sqliteFile = pattern(`['"]NAME['"]\s*:\s*(?:str\(\s*)?(?:BASE_DIR\s*/\s*|os\.path\.join\(\s*BASE_DIR\s*,\s*)?['"]([\w][\w./-]*)['"]`)

// Advise implements deployer.Adviser: a database in a release's source is not in
// the next release, and of a Procfile's web line some has no effect.
func (t *Toolchain) Advise(ctx context.Context, app *config.App, src string, e deployer.EntryPoint, packages []string) []string {
	q := question{About: aboutAdvice, Source: src, EntryPoint: e, Packages: packages}
	a, _ := t.askReader(ctx, app, q) // without it nothing is worse
	return a.Advice
}

func advise(app *config.App, src string, e deployer.EntryPoint, packages []string) []string {
	s, err := openSource(src)
	if err != nil {
		return nil
	}
	defer s.Close()
	f := finder{s: s, app: app.Name}
	return slices.Concat(f.adviseWeb(app, e), f.adviseDjango(app, e), f.adviseSQLite(app, e, packages))
}

// adviseDjango tells of a database of Django's that is lost with its release.
func (f *finder) adviseDjango(app *config.App, e deployer.EntryPoint) []string {
	if e.Framework != "Django" {
		return nil
	}
	text, _ := f.s.text("manage.py")
	m := settingsEnv().FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	file, ok := f.moduleFile(m[1]) // the one that counts, not those beside it
	if !ok {
		return nil
	}
	text, _ = f.s.text(file)
	value := parseModule(text).assigned["DATABASES"]
	if !strings.Contains(value, "django.db.backends.sqlite3") || strings.Contains(value, "environ") {
		return nil
	}
	db := sqliteFile().FindStringSubmatch(value)
	if db == nil {
		return nil
	}
	return lostDatabases(app, f.s, []string{path.Clean(db[1])}, file)
}
