package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestHostileValues: what a push's scotch.cfg may set and what gets into files of
// nginx and uWSGI, into paths or into a program's arguments is refused by name
// where it could mean something there. Of keys that take any text (env, build,
// release) no file is made: env goes by execve, commands are the app's own.
func TestHostileValues(t *testing.T) {
	s := mustOpen(t, "[site]\ndomain=apps.example.org\n", "blog", "")
	values := map[string]string{ // as written in the file; $$ is a $
		"newline":       "x\n    socket = /tmp/x",
		"semicolon":     "x; return 444",
		"closing brace": "x} server { listen 81",
		"nginx's name":  "$$document_root",
		"uWSGI's %":     "%d%x",
		"uWSGI's $":     "$$(HOME)",
		"a shell":       "$$(touch /tmp/x)`id`",
		"uWSGI's @":     "@(exec://touch /tmp/x)",
		"quote":         `x"y`,
		"apostrophe":    "x'y",
		"backslash":     `x\y`,
		"regexp":        "~.*",
		"up":            "../x",
		"option":        "--x",
		"escape":        "x\x1b[2J",
		"direction":     "x\u202ey",
		"hash":          "x #y",
	}
	// What the value is put into: %s stands for it. free are values that mean
	// nothing where they end up.
	for key, free := range map[string]string{
		"[app]\nentry_point = %s":          "",
		"[app]\nentry_point = app:%s":      "",
		"[app]\ninterpreter = %s":          "",
		"[app]\ninterpreter = /usr/bin/%s": "up option uWSGI's @ apostrophe regexp", // of a path, below
		"[app]\npersist = %s":              "",
		"[app]\ncollectstatic = %s":        "",
		"[static]\n/a/ = %s":               "",
		"[static]\n/a/ = data:%s":          "",
		"[static]\n/%s/ = a":               "up option",
		"[health]\nhost = %s":              "",
		"[health]\nstatus = %s":            "",
		"[health]\ntimeout = %s":           "",
		"[health]\nwatch = %s":             "",
		"[health]\npath = %s":              "",
		"[health]\npath = /%s":             "nginx's name uWSGI's % uWSGI's $ apostrophe regexp up option", // a URL, asked by the server itself
		"[env]\nA %s = x":                  "",
		"[app]\ndomains = %s":              "", // and these a push can't set at all
		"[app]\nurl_prefix = /%s/":         "",
		"[app]\nuser = %s":                 "",
		"[uwsgi_config]\nroute-run = %s":   "",
		"[nginx]\ninclude = %s":            "",
		"[paths]\nrun = /%s":               "",
		"[app]\nsrc = %s":                  "",
		"[app]\ndata_path = /%s":           "",
		"[DEFAULT]\nentry_point = %s":      "",
		"[app %s]\nentry_point = x":        "",
	} {
		for name, value := range values {
			text := fmt.Sprintf(key+"\n", value)
			a, err := s.App("blog", AppOptions{InstanceID: "1", Source: []byte(text)})
			if strings.Contains(" "+free+" ", " "+name+" ") {
				if err == nil && strings.ContainsAny(a.Interpreter+a.EntryPoint, "%$;{}\"\\\n") {
					t.Errorf("%s: %q became %q, %q", name, text, a.Interpreter, a.EntryPoint)
				}
				continue
			}
			if err == nil {
				t.Errorf("%s: %q passes", name, text)
				continue
			}
			if !strings.Contains(err.Error(), "scotch.cfg:") {
				t.Errorf("%s: %q: %v", name, text, err)
			}
		}
	}
}
