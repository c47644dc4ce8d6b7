package python

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// maxDatabases bounds what one note names.
const maxDatabases = 4

var (
	// Only plain literals: of all else it can't be told where it leads.
	connects = pattern(`\bsqlite3\.connect\(\s*(?:database\s*=\s*)?(?:['"]([^'"\\]+)['"]|(\w+))\s*[,)]`)
	engines  = pattern(`\bcreate_engine\(\s*['"]sqlite(?:\+pysqlite)?:///([^'"\\]+)['"]\s*[,)]`)
	// https://flask-sqlalchemy.palletsprojects.com/en/stable/config/
	sqlURI     = pattern(`^(?:SQLALCHEMY_DATABASE_URI|[\w.]+\[\s*['"]SQLALCHEMY_DATABASE_URI['"]\s*\])\s*=\s*(?:['"]sqlite:///([^'"\\]+)['"]$)?`)
	literal    = pattern(`^['"]([^'"\\]+)['"]$`)
	relative   = pattern(`^(?:\./)?\w[\w./-]*$`)
	flaskNamed = pattern(`\bFlask\(\s*__name__\s*[,)]`)
	moves      = pattern(`\bchdir\(|\binstance_path\s*=`)
)

// adviseSQLite tells of SQLite files that the app names in the module of its entry
// point, or in those where that has the app from, and that lie in the source: scotch
// starts apps there.
func (f *finder) adviseSQLite(app *config.App, e deployer.EntryPoint, packages []string) []string {
	file, ok := f.moduleFile(e.Module)
	if !ok || e.Framework == "Django" {
		return nil
	}
	at := place{file, f.follow(file), e.Callable, e.Factory}
	for range maxHops {
		if names := f.sqliteIn(at, packages); len(names) > 0 {
			return lostDatabases(app, f.s, names, at.file)
		}
		if at, ok = f.from(at); !ok {
			break
		}
	}
	return nil
}

// sqliteIn are the SQLite files that a module names, as paths in the source.
func (f *finder) sqliteIn(at place, packages []string) []string {
	text, _ := f.s.text(at.file)
	if moves().MatchString(text) {
		return nil
	}
	var names []string
	add := func(name string) {
		if !relative().MatchString(name) || len(names) == maxDatabases {
			return
		}
		if name = path.Clean(name); !strings.HasPrefix(name, "../") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	uris, uri := 0, ""
	for l := range moduleLines(text) {
		if m := sqlURI().FindStringSubmatch(l.text); m != nil {
			uris++
			uri = m[1]
			continue
		}
		for _, m := range connects().FindAllStringSubmatchIndex(l.text, maxDatabases) {
			switch {
			case inString(l.text, m[0]):
			case m[2] >= 0:
				add(l.text[m[2]:m[3]])
			default:
				if v := literal().FindStringSubmatch(at.m.assigned[l.text[m[4]:m[5]]]); v != nil {
					add(v[1])
				}
			}
		}
		for _, m := range engines().FindAllStringSubmatchIndex(l.text, maxDatabases) {
			if !inString(l.text, m[0]) {
				add(l.text[m[2]:m[3]])
			}
		}
	}
	if uris == 1 && uri != "" && flaskNamed().MatchString(text) {
		if dir, ok := flaskSQLAlchemyDir(at.file, packages); ok {
			add(path.Join(dir, uri))
		}
	}
	return names
}

// flaskSQLAlchemyDir is where Flask-SQLAlchemy looks for a relative path: since 3.0
// in the app's instance folder, before beside its module.
func flaskSQLAlchemyDir(file string, packages []string) (dir string, ok bool) {
	for _, p := range packages {
		project, version, _ := strings.Cut(p, "==")
		v, err := parseVersion(version)
		switch {
		case normal(project) != "flask-sqlalchemy" || err != nil:
		case v.part(0) < 3:
			return path.Dir(file), true
		case !strings.HasPrefix(file, "src/"): // which may be imported from elsewhere
			return "instance", true
		}
	}
	return "", false
}

// inString tells whether a place in a statement lies in a string.
func inString(s string, at int) bool {
	for i := 0; i < at; i++ {
		if s[i] == '"' || s[i] == '\'' {
			if i += pyStringEnd(s[i:]) - 1; i >= at {
				return true
			}
		}
	}
	return false
}

// lostDatabases is the note for databases in the source that [app] persist does not keep.
func lostDatabases(app *config.App, s source, names []string, file string) []string {
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(app.Persist, func(p string) bool {
			return p == name || strings.HasPrefix(name, strings.TrimSuffix(p, "/")+"/")
		})
	})
	if len(names) == 0 {
		return nil
	}
	what := fmt.Sprintf("the database %q of %s lies in the release's source, and is not in the next one; in scotch.cfg this keeps it from then on:", names[0], file)
	if s.isFile(names[0]) { // and may be there to be read
		what = fmt.Sprintf("the database %q of %s comes with the commit, and what the app writes there is not in the next release; if it does, this in scotch.cfg keeps it from then on:", names[0], file)
	}
	return []string{fmt.Sprintf("%s\n  [app]\n  persist = %s", what, strings.Join(slices.Concat(app.Persist, names), " "))}
}
