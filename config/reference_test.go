package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/CONFIGURATION.md")

// realPlugins are the plugins that scotch comes with, as far as they are there:
// those of this list first, then every package with a defaults.cfg.
func realPlugins(t *testing.T) []Defaults {
	t.Helper()
	names := []string{"uwsgi", "nginx"}
	found, err := filepath.Glob(filepath.Join("..", "deployer", "*", "defaults.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		if name := filepath.Base(filepath.Dir(file)); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var all []Defaults
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("..", "deployer", name, "defaults.cfg"))
		if errors.Is(err, fs.ErrNotExist) {
			t.Logf("%s has no defaults.cfg: a stand-in is used", name)
			for _, p := range testPlugins() {
				if p.Name == name {
					text = p.Text
				}
			}
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, Defaults{Name: name, Text: text})
	}
	return all
}

// Every key is in defaults.cfg, with its documentation, and in the table of
// types and rights; none is in one of them alone.
func TestSchemaIsWhole(t *testing.T) {
	known := make(map[ref]bool)
	for _, k := range Schema(realPlugins(t)) {
		known[ref{k.Section, k.Name}] = true
		if k.Doc == "" || k.Type == "" || !strings.HasSuffix(k.Doc, ".") && !strings.HasSuffix(k.Doc, ":") {
			t.Errorf("[%s] %s: type %q, documentation %q", k.Section, k.Name, k.Type, k.Doc)
		}
	}
	for _, d := range documentedKeys(builtin) {
		if d.key != "" && !known[ref{d.section, d.key}] {
			t.Errorf("[%s] %s is in defaults.cfg and has no rule", d.section, d.key)
		}
	}
	d, errs := parse("defaults.cfg", builtin)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	values := newValues(nil)
	values.add(d, LayerDefaults)
	for _, r := range rules() {
		_, has := values.raw(ref{r.section, r.key})
		k, _ := newSchema(nil).find(ref{r.section, r.key})
		if has == k.Unset {
			t.Errorf("[%s] %s: default %q, unset %t", r.section, r.key, k.Default, k.Unset)
		}
	}
}

// docs/CONFIGURATION.md is made from the schema: go test ./config -run Reference -update
func TestReference(t *testing.T) {
	plugins := realPlugins(t)
	want := reference(plugins)
	file := filepath.Join("..", "docs", "CONFIGURATION.md")
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s does not agree with the code\nwrite it again: go test ./config -run Reference -update", file)
	}
}

const referenceHead = `# Configuration

<!-- Made from the code: go test ./config -run Reference -update -->

Every app has a file of its own, ` + "`/etc/scotch/apps-enabled/NAME.cfg`" + `, and the server has a site file, ` + "`/etc/scotch.cfg`" + `.
An empty app's file is fine: everything has a default. ` + "`scotch dump --origin APP`" + ` shows each value that counts, and
the file and line it comes from.

## Which file wins

Later ones win:

1. the defaults below, and those of the plugins;
2. the site files: ` + "`/etc/scotch.cfg`, `~/.scotch.cfg`, `./scotch.cfg`" + ` (the last one not inside a git work tree), or instead
   of these the files that ` + "`-c FILE`" + ` names;
3. ` + "`scotch.cfg`" + ` at the root of the app's source. It travels with the code, so it may set only the keys marked *source* below,
   and its values refer only to its own keys and to ` + "`${name}`" + `;
4. the app's own file. A site file can move it: ` + "`[app] config`" + `.

Anything may be set in a site file: there it is the default for all apps.

## How a file is written

` + "```ini" + `
# a comment; a comment is a line of its own
[app]
src = https://git.example.org/blog.git
build = npm ci
    npm run build

[env]
DATABASE_URL = postgres:///${app:name}
PRICE = 5 $$
` + "```" + `

The syntax is that of Python's [configparser](https://docs.python.org/3/library/configparser.html) with extended interpolation:

- ` + "`KEY = VALUE` or `KEY: VALUE`" + `; keys in any case; lines that are indented deeper go on with the value above;
- ` + "`${key}`" + ` is another value of the same section, ` + "`${section:key}`" + ` one of another section, ` + "`$$`" + ` a dollar sign;
- ` + "`[DEFAULT]`" + ` holds values that all sections see, where neither they nor the defaults below say otherwise;
- a section or a key that is there twice in one file is an error, as is one that scotch does not know.

What differs from Python's module, on purpose:

- in ` + "`[env]`, `[build_env]` and `[static]`" + ` keys keep their case and ` + "`[DEFAULT]`" + ` stays out; it adds no options to ` + "`[uwsgi_config]`" + ` either;
- files over 1 MiB, with more than 5000 keys and sections, or with a NUL byte are errors, and so are values that interpolate to more than 1 MiB;
- all errors are reported at once, with file, line and key.

White space at the ends of a line is stripped. ` + "`${text:empty}`" + ` protects it.

## Values

| type | examples |
|---|---|
| size | ` + "`500` (bytes), `64k`, `100m`, `1.5g`" + `; k is 1024 |
| duration | ` + "`60` (seconds), `90s`, `10m`, `2h`, `1d`" + ` |
| on or off | ` + "`on off yes no true false 1 0`" + ` |
| octal mode | ` + "`0755`" + ` |
| path | absolute, without white space and ` + "`\" ' $ % : ; { } ( ) [ ] < > * ? | & # \\`" + ` and the backquote, which other programs' files can't hold |
| relative path | inside its directory, with ` + "`/`" + ` between parts: ` + "`services/blog`" + ` |
| hosts | ` + "`example.org`, `*.example.org`, `*`" + `, separated by white space; others than ASCII in punycode; no port |
| git URL | https, http, ssh, git, file, or ` + "`git@host:path`" + `. No relative path and no ` + "`~`" + `: the server reads it, in no particular directory |
| HTTP statuses | ` + "`200-399 401 403 404`" + ` |

## Keys

*Set in* says which files may set a key: *site* the site files, *app* the app's own file, *source* the ` + "`scotch.cfg`" + ` of its source.
`

// reference is docs/CONFIGURATION.md.
func reference(plugins []Defaults) []byte {
	var out bytes.Buffer
	out.WriteString(referenceHead)
	sections := make(map[string]string)
	for _, d := range documentedKeys(builtin) {
		if d.key == "" {
			sections[d.section] = d.doc
		}
	}
	for _, p := range plugins {
		for _, d := range documentedKeys(p.Text) {
			if _, known := sections[d.section]; d.key == "" && !known {
				sections[d.section] = d.doc
			}
		}
	}
	section := ""
	cell := func(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
	code := func(s string) string { return "`" + cell(s) + "`" }
	keys := Schema(plugins)
	var order []string
	for _, k := range keys {
		if !strings.Contains(" "+strings.Join(order, " ")+" ", " "+k.Section+" ") {
			order = append(order, k.Section)
		}
	}
	for _, section = range order {
		fmt.Fprintf(&out, "\n### [%s]\n\n%s\n\n| key | default | type | set in | |\n|---|---|---|---|---|\n", section, sections[section])
		for _, k := range keys {
			if k.Section != section {
				continue
			}
			value := code(k.Default)
			switch {
			case k.Any:
				value = ""
			case k.Set == SetNowhere:
				value = ""
			case k.Unset:
				value = "*unset*; example: " + code(k.Default)
			case k.Default == "":
				value = "empty"
			}
			doc := k.Doc
			if k.Any {
				doc = ""
			}
			fmt.Fprintf(&out, "| %s | %s | %s | %s | %s |\n", code(k.Name), value, cell(k.Type), k.Set, cell(doc))
		}
	}
	return out.Bytes()
}
