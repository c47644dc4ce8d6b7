package python

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

var entryPattern = pattern(`^([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)(\(\))?$`)

// howTo is the line that ends every search.
const howTo = "name it in scotch.cfg, at the root of the source:\n  [app]\n  entry_point = "

// EntryPoint implements deployer.Toolchain.
func (t *Toolchain) EntryPoint(ctx context.Context, app *config.App, src string) (deployer.EntryPoint, error) {
	a, err := t.askReader(ctx, app, question{About: aboutEntryPoint, Source: src})
	if err != nil {
		return deployer.EntryPoint{}, err
	}
	return *cmp.Or(a.EntryPoint, &deployer.EntryPoint{}), nil
}

// entryPoint finds the entry point. from is who names it, where one is configured.
func entryPoint(app *config.App, from, src string) (deployer.EntryPoint, error) {
	s, err := openSource(src)
	if err != nil {
		return deployer.EntryPoint{}, err
	}
	defer s.Close()
	f := finder{s: s, app: app.Name}
	if app.EntryPoint != "" {
		m := entryPattern().FindStringSubmatch(app.EntryPoint)
		if m == nil {
			return deployer.EntryPoint{}, fmt.Errorf("[app] entry_point is %q\nwrite MODULE:CALLABLE, such as blog.wsgi:application, or MODULE:FACTORY() for a function that returns the app", app.EntryPoint)
		}
		e := deployer.EntryPoint{Module: m[1], Callable: m[2], Factory: m[3] != "", Why: "configured"}
		e.Framework = f.framework(e.Module)
		e.From = from
		return e, f.verify(app, e, from)
	}
	e, err := f.find()
	if err == nil && e.Why == fromProcfile {
		err = f.verify(app, e, "the Procfile")
	}
	return e, err
}

// finder looks for the entry point of one source.
type finder struct {
	s   source
	app string
	// For the error, where nothing is found:
	asgi   string // a file with an app of the other kind
	hidden string // a file with an app that can't be imported by its name
	wants  string // a factory that takes arguments

	followed map[string]module // files that others import from, read once each
	read     int               // bytes of those
}

// maxFollowed bounds what is read, and kept, of files that others import from.
const maxFollowed = 32 << 20

// follow is what a file binds that another one imports from, nothing where too much
// was read already.
func (f *finder) follow(file string) module {
	m, ok := f.followed[file]
	if !ok && f.read < maxFollowed {
		text, _ := f.s.text(file)
		f.read += len(text)
		m = parseModule(text)
		if f.followed == nil {
			f.followed = map[string]module{}
		}
		f.followed[file] = m
	}
	return m
}

func (f *finder) find() (deployer.EntryPoint, error) {
	for _, look := range []func() (deployer.EntryPoint, bool, error){
		f.procfile, f.django, f.rootFiles, f.namesake, f.otherPackages, f.otherFiles, f.fallback,
	} {
		if e, ok, err := look(); ok || err != nil {
			return e, err
		}
	}
	return deployer.EntryPoint{}, f.nothing()
}

// nothing says why no entry point was found, and what there is in place of it.
func (f *finder) nothing() error {
	procfile := "no Procfile"
	if f.s.isFile("Procfile") {
		procfile = "no web line in the Procfile"
	}
	if w, ok := f.web(); ok {
		procfile = w.passedOver()
	}
	none := &deployer.NoEntryPointError{
		Reason: "no entry point found: no app, application, create_app() or make_app() in wsgi.py, app.py, main.py, application.py or a package, and " + procfile,
		Hint:   howTo + "MODULE:CALLABLE",
	}
	found := f.wide()
	switch {
	case f.hidden != "":
		return hiddenError(f.hidden, strings.TrimSuffix(path.Base(f.hidden), ".py"))
	case f.asgi != "":
		return asgiError(f.asgi)
	case f.wants != "":
		none.Reason, none.Hint, _ = strings.Cut("no entry point found: "+f.wants, "\n")
		return none
	case len(found) > 0:
		none.Reason = "no entry point found in the usual places"
		none.Hint = "what may be one; " + strings.TrimSuffix(howTo, "  entry_point = ") + entryLines(found)
	}
	none.Below = f.below()
	return none
}

// usual are the modules that hold an app, the likeliest first.
var usual = [...]string{"wsgi", "app", "main", "application"}

func (f *finder) rootFiles() (deployer.EntryPoint, bool, error) {
	for _, dir := range f.roots() {
		for _, name := range usual {
			if e, ok := f.file(path.Join(dir, name+".py"), name); ok {
				return e, true, nil
			}
		}
	}
	return deployer.EntryPoint{}, false, nil
}

// factories are the functions that return an app, by their usual names.
var factories = [...]string{"create_app", "make_app"}

// roots are the directories whose modules are at the top: that of the source
// and, in a src layout, src.
func (f *finder) roots() []string {
	if f.s.isDir("src") && !f.s.isFile("src/__init__.py") {
		return []string{".", "src"}
	}
	return []string{"."}
}

// file looks for a callable in one file, which is of no use where its module is
// not the one that an import finds.
func (f *finder) file(name, module string) (deployer.EntryPoint, bool) {
	e, ok := f.inFile(name, module)
	if ok && isHidden(module) {
		f.hidden = name
		return deployer.EntryPoint{}, false
	}
	return e, ok
}

func (f *finder) inFile(name, module string) (deployer.EntryPoint, bool) {
	text, ok := f.s.text(name)
	if !ok {
		return deployer.EntryPoint{}, false
	}
	m := parseModule(text)
	e := deployer.EntryPoint{Module: module, Framework: framework(m.imports), Why: "detected: " + name}
	if e.Framework != "" {
		e.Why = "detected: " + e.Framework + ", " + name
	}
	isAsync := func(n string, factory bool) bool {
		what := f.async(name, m, n, factory)
		if what != "" && f.asgi == "" {
			f.asgi = what
		}
		return what != ""
	}
	for _, n := range []string{"app", "application"} {
		v, ok := m.assigned[n]
		switch {
		case !ok, notAnApp().MatchString(v), isAsync(n, false):
		case dashApp().MatchString(v) && m.assigned["server"] != "":
			e.Callable = "server" // Dash hands out its Flask app by that name
			return e, true
		default:
			e.Callable = n
			return e, true
		}
		// "def app(environ, start_response)" is an app as PEP 3333 has it.
		if free, ok := m.called[n]; ok && !free {
			e.Callable = n
			return e, true
		}
		if m.async[n] {
			isAsync(n, false)
		}
	}
	for _, n := range factories {
		free, ok := m.called[n]
		switch {
		case (free || m.async[n]) && isAsync(n, true):
		case free:
			e.Callable, e.Factory = n, true
			return e, true
		case ok && f.wants == "":
			f.wants = wantsArguments(n, name)
		}
	}
	for _, n := range []string{"app", "application", "create_app", "make_app"} {
		from, ok := m.imported[n]
		factory := strings.HasSuffix(n, "_app")
		// "from . import app" is a module more often than an app.
		if !ok || from.module == "." || strings.HasSuffix(from.module, "celery") || m.assigned[n] != "" || isAsync(n, factory) {
			continue
		}
		e.Callable, e.Factory = n, factory
		return e, true
	}
	return deployer.EntryPoint{}, false
}

var (
	notAnApp = pattern(`^(None\b|(\w+\.)*(Celery|Typer|QApplication|Blueprint)\()`)
	asyncApp = pattern(`^(\w+\.)*(FastAPI|Starlette|Quart|Litestar|Sanic|BlackSheep|ASGIApp|ProtocolTypeRouter|WsgiToAsgi|asgi\.App|get_asgi_application)\(`)
	dashApp  = pattern(`^(\w+\.)*Dash\(`)
	madeApp  = pattern(`^(\w+\.)*(Flask|Bottle|App|API|make_wsgi_app|get_wsgi_application)\(`)
)

var (
	calls    = pattern(`^(\w+)\(`)
	nameOnly = pattern(`^\w+$`)
)

// maxHops bounds how far a name is followed.
const maxHops = 8

// place is a name in a module of the source; factory: what a call of it returns.
type place struct {
	file    string
	m       module
	name    string
	factory bool
}

// from is where what a name stands for comes from: another name, a factory, another
// file of the source. False where it is made here, or can't be followed.
func (f *finder) from(p place) (place, bool) {
	v := p.m.assigned[p.name]
	imported, ok := p.m.imported[p.name]
	_, isFunction := p.m.called[p.name]
	switch {
	case isFunction || p.m.async[p.name]:
		return p, false
	case !p.factory && calls().MatchString(v):
		if call := calls().FindString(v); len(call)+closing(v[len(call):])+1 != len(v) {
			return p, false // and something is made of that
		}
		p.name, p.factory = calls().FindStringSubmatch(v)[1], true
		return p, true
	case nameOnly().MatchString(v):
		p.name = v
		return p, true
	case v != "" || !ok:
		return p, false
	}
	next, ok := f.importedFile(p.file, imported.module)
	if !ok {
		return p, false
	}
	return place{next, f.follow(next), imported.name, p.factory}, true
}

// async follows a name of a module to what it is made of. It says where there is an
// ASGI app, "" where none can be read. file is the module's.
func (f *finder) async(file string, m module, name string, factory bool) string {
	p, ok := place{file, m, name, factory}, true
	for range maxHops {
		switch {
		case p.factory && (p.m.async[p.name] || asyncApp().MatchString(p.m.returned[p.name])):
			return fmt.Sprintf("what %s() in %s returns", p.name, p.file)
		case p.m.async[p.name], !p.factory && asyncApp().MatchString(p.m.assigned[p.name]):
			return p.name + " in " + p.file
		}
		if p, ok = f.from(p); !ok {
			break
		}
	}
	return ""
}

// importedFile is the file that a module of the source imports from, which is of
// the source too.
func (f *finder) importedFile(file, module string) (string, bool) {
	rel := strings.TrimLeft(module, ".")
	if rel == module {
		return f.moduleFile(module)
	}
	dir := path.Dir(file)
	for range len(module) - len(rel) - 1 {
		dir = path.Dir(dir)
	}
	base := path.Join(dir, strings.ReplaceAll(rel, ".", "/"))
	for _, name := range []string{path.Join(base, "__init__.py"), base + ".py"} {
		if f.s.isFile(name) {
			return name, true
		}
	}
	return "", false
}

// framework names the framework whose module is imported.
func framework(imports []string) string {
	for _, i := range imports {
		switch i {
		case "flask", "django", "bottle", "falcon", "pyramid", "dash", "tornado", "cherrypy":
			return strings.ToUpper(i[:1]) + i[1:]
		}
	}
	return ""
}

// framework looks for a module's file.
func (f *finder) framework(module string) string {
	if f.s.isFile("manage.py") {
		if text, _ := f.s.text("manage.py"); strings.Contains(text, "DJANGO_SETTINGS_MODULE") {
			return "Django"
		}
	}
	if name, ok := f.moduleFile(module); ok {
		text, _ := f.s.text(name)
		return framework(parseModule(text).imports)
	}
	return ""
}

// moduleFile finds the file of a module below the source.
func (f *finder) moduleFile(module string) (string, bool) {
	rel := strings.ReplaceAll(module, ".", "/")
	for _, dir := range f.roots() {
		for _, name := range []string{path.Join(dir, rel, "__init__.py"), path.Join(dir, rel+".py")} {
			if f.s.isFile(name) {
				return name, true
			}
		}
	}
	return "", false
}

// namesake looks in the package or module that is named like the app, and in a
// package that has one of the usual names.
func (f *finder) namesake() (deployer.EntryPoint, bool, error) {
	for _, name := range append([]string{strings.ReplaceAll(f.app, "-", "_")}, usual[:]...) {
		for _, dir := range f.roots() {
			if e, ok := f.packaged(dir, name); ok {
				return e, true, nil
			}
			if e, ok := f.file(path.Join(dir, name+".py"), name); ok {
				return e, true, nil
			}
		}
	}
	return deployer.EntryPoint{}, false, nil
}

// packaged looks in a package: first where deployments are meant to look.
func (f *finder) packaged(dir, name string) (deployer.EntryPoint, bool) {
	base := path.Join(dir, name)
	if e, ok := f.file(base+"/wsgi.py", name+".wsgi"); ok {
		return e, true
	}
	if e, ok := f.file(base+"/__init__.py", name); ok {
		return e, true
	}
	for _, m := range usual[1:] {
		if e, ok := f.file(base+"/"+m+".py", name+"."+m); ok {
			return e, true
		}
	}
	return deployer.EntryPoint{}, false
}

// noApp are folders that look like packages and are none to be served.
var noApp = [...]string{"test", "tests", "testing", "doc", "docs", "example", "examples", "scripts", "migrations", "venv", "env", "node_modules", "build", "dist", "static", "templates"}

func (f *finder) otherPackages() (deployer.EntryPoint, bool, error) {
	var found []deployer.EntryPoint
	for _, dir := range f.roots() {
		for _, entry := range f.s.list(dir) {
			name := entry.Name()
			if !identifier().MatchString(name) || slices.Contains(noApp[:], name) || !f.s.isDir(path.Join(dir, name)) {
				continue
			}
			if e, ok := f.packaged(dir, name); ok {
				found = append(found, e)
			}
		}
	}
	return single(found)
}

// otherFiles looks at the rest of the files at the top (run.py, server.py),
// also for an app under another name.
func (f *finder) otherFiles() (deployer.EntryPoint, bool, error) {
	var found []deployer.EntryPoint
	for _, dir := range f.roots() {
		for _, entry := range f.s.list(dir) {
			module, ok := strings.CutSuffix(entry.Name(), ".py")
			if !ok || !identifier().MatchString(module) || strings.HasPrefix(module, "test_") || slices.Contains([]string{"setup", "conftest", "manage", "noxfile", "fabfile", "tasks", "celery"}, module) {
				continue
			}
			name := path.Join(dir, entry.Name())
			if e, ok := f.file(name, module); ok {
				found = append(found, e)
				continue
			}
			text, _ := f.s.text(name)
			m := parseModule(text)
			for _, n := range sortedKeys(m.assigned) {
				switch {
				case !madeApp().MatchString(m.assigned[n]):
				case isHidden(module):
					f.hidden = name
				default:
					found = append(found, deployer.EntryPoint{Module: module, Callable: n, Framework: framework(m.imports), Why: "detected: " + name})
				}
			}
		}
	}
	return single(found)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// single accepts the only candidate there is.
func single(found []deployer.EntryPoint) (deployer.EntryPoint, bool, error) {
	switch len(found) {
	case 0:
		return deployer.EntryPoint{}, false, nil
	case 1:
		return found[0], true, nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d entry points found, and none is the likelier one:", len(found))
	for _, e := range found {
		fmt.Fprintf(&b, "\n  %s", e)
	}
	return deployer.EntryPoint{}, false, fmt.Errorf("%s\n%s%s", b.String(), howTo, found[0])
}

// fallback is the default of the configuration, where its module exists.
func (f *finder) fallback() (deployer.EntryPoint, bool, error) {
	name := strings.ReplaceAll(f.app, "-", "_")
	file, ok := f.moduleFile(name)
	if !ok || f.asgi != "" || f.wants != "" || f.hidden != "" {
		return deployer.EntryPoint{}, false, nil
	}
	text, _ := f.s.text(file)
	return deployer.EntryPoint{Module: name, Callable: "create_app", Factory: true, Framework: framework(parseModule(text).imports), Why: "default"}, true, nil
}
