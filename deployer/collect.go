package deployer

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"scotch/config"
)

// collectScript runs in the app's own Python, as its user, by manage.py: that
// is how Django's settings come about. It tells about them in one line that
// begins with collectMark, and then collects.
//
//go:embed collect.py
var collectScript string

const collectMark = "scotch-collectstatic: "

// djangoStatic is what collectScript tells.
type djangoStatic struct {
	Root       string `json:"root"` // STATIC_ROOT, links resolved; "" where it is not set
	URL        string `json:"url"`  // STATIC_URL as the settings say it
	Inside     bool   `json:"inside"`
	WhiteNoise bool   `json:"whitenoise"`
	Collect    bool   `json:"collect"`
}

// collects tells whether Django is to be asked for static files.
func (op *operation) collects(a *config.App, rec *Record, src string) bool {
	if !a.CollectStatic || rec.EntryPoint.Framework != "Django" {
		return false
	}
	fi, err := os.Lstat(filepath.Join(src, "manage.py"))
	return err == nil && fi.Mode().IsRegular()
}

// collectStatic runs Django's collectstatic where STATIC_ROOT is set, and maps
// what it made. Settings that can't be asked for, such as those of a manage.py
// that is for development, are no failure: the app's own start is the proof.
func (op *operation) collectStatic(ctx context.Context, a *config.App, rec *Record, src string) error {
	if err := op.d.files.before("run-collectstatic"); err != nil {
		return err
	}
	begin := time.Now()
	i := instanceFor(a, rec)
	out := op.report.Output()
	defer out.Close()
	w := &collectOutput{to: out}
	err := op.d.Runner.Run(ctx, Command{
		Args: []string{filepath.Join(i.Venv, "bin", "python"), "manage.py", "shell", "-c", collectScript}, Dir: i.Source,
		Env:  append(i.environment(a.BuildEnv), "SCOTCH_COLLECT="+strings.Join([]string{rec.Source, a.DataPath}, ":")),
		User: a.User, Group: a.Group, Stdout: w, Stderr: w, Timeout: a.StepTimeout, Umask: op.d.site.Umask,
		App: op.app, Limits: BuildLimits(a), Writes: op.buildWrites(a, rec),
	})
	told, before := w.end()
	out.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if told == nil {
		op.report.Note("note: static files are not collected, for manage.py did not tell Django's settings: %s", collectTrouble(err, before))
		return nil
	}
	if err != nil {
		if exit, ok := errors.AsType[*ExitError](err); ok {
			exit.Name = "collectstatic"
		}
		return fmt.Errorf("%w\nmend it, or turn it off with collectstatic = off in [app] of scotch.cfg", err)
	}
	switch {
	case told.Root == "":
		return nil
	case !told.Inside:
		op.report.Note("note: STATIC_ROOT is %q, outside of the source: collectstatic is not run\nset STATIC_ROOT = BASE_DIR / \"staticfiles\" for it", told.Root)
		return nil
	case !told.Collect:
		return nil // the staticfiles app is not installed
	}
	what := op.mapCollected(a, rec, src, told)
	op.report.Step("static", what, since(begin))
	return nil
}

// collectTrouble is the last line of what was said before Django told anything.
func collectTrouble(err error, said []string) string {
	if len(said) > 0 {
		return said[len(said)-1]
	}
	if err != nil {
		return FirstLine(err.Error())
	}
	return "it printed nothing"
}

// What a [static] line could say too.
var (
	collectedURL  = pattern(`\A/([A-Za-z0-9._-]+/)+\z`)
	collectedPath = pattern(`\A[A-Za-z0-9_+@][A-Za-z0-9._+@-]*(/[A-Za-z0-9._+@-]+)*\z`)
)

// mapCollected notes where the web server is to answer with what was collected,
// and says so.
func (op *operation) mapCollected(a *config.App, rec *Record, src string, told *djangoStatic) string {
	const done = "collectstatic done"
	url := told.URL
	if !strings.HasPrefix(url, "/") && !strings.Contains(url, "://") {
		url = "/" + url // Django itself puts SCRIPT_NAME before it
	} else if prefix := strings.TrimSuffix(a.URLPrefix, "/"); prefix != "" && strings.HasPrefix(url, "/") && !strings.HasPrefix(url, "//") {
		below, ok := strings.CutPrefix(url, prefix+"/")
		if !ok {
			op.report.Note("note: STATIC_URL is %q, outside of [app] url_prefix %s: nothing answers there\nset STATIC_URL = %q, and Django puts the prefix before it", told.URL, a.URLPrefix, strings.TrimPrefix(url, "/"))
			return done
		}
		url = "/" + below
	}
	rel, inData := "", false
	if data, err := filepath.EvalSymlinks(a.DataPath); err == nil && within(data, told.Root) {
		rel, _ = filepath.Rel(data, told.Root)
		inData = true
	} else if root, err := filepath.EvalSymlinks(src); err == nil && within(root, told.Root) {
		rel, _ = filepath.Rel(root, told.Root)
	}
	for _, s := range a.Static {
		if s.URL == url {
			return done + "; [static] maps " + url
		}
	}
	switch {
	case told.WhiteNoise:
		return done + ", served by WhiteNoise"
	case strings.Contains(url, "//") || url == "/":
		return done + ", served at " + told.URL
	case !collectedURL().MatchString(url) || !collectedPath().MatchString(rel):
		op.report.Note("note: the web server can't map STATIC_URL %q to %q: letters, digits and . _ - alone", told.URL, told.Root)
		return done
	}
	rec.Collected = &Collected{URL: url, Path: filepath.ToSlash(rel), Data: inData}
	top := src
	if inData {
		top = a.DataPath
	}
	files, some := countFiles(top, rec.Collected.Path)
	return fmt.Sprintf("%s%s at %s (collectstatic)", some, plural(files, "file"), strings.TrimSuffix(a.URLPrefix, "/")+url)
}

// maxCounted bounds how many files are counted for one line.
const maxCounted = 100_000

// countFiles counts the files below a directory of the app's, whose path the app
// itself has told: links on the way lead out of it nowhere. more is said before a
// number that is not all.
func countFiles(top, dir string) (n int, more string) {
	root, err := os.OpenRoot(top)
	if err != nil {
		return 0, ""
	}
	defer root.Close()
	fs.WalkDir(root.FS(), dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		if n >= maxCounted {
			more = "over "
			return fs.SkipAll
		}
		return nil
	})
	return n, more
}

// collectOutput finds the line of collectScript in what comes. Before it lines
// are kept back: they matter only if it does not come.
type collectOutput struct {
	to io.Writer

	mu     sync.Mutex
	buf    []byte
	before []string
	told   *djangoStatic
}

func (c *collectOutput) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told != nil {
		return c.to.Write(p)
	}
	c.buf = append(c.buf, p...)
	for c.told == nil {
		i := bytes.IndexByte(c.buf, '\n')
		if i < 0 {
			if len(c.buf) > maxLine {
				c.buf = c.buf[:0]
			}
			return len(p), nil
		}
		c.line(string(c.buf[:i]))
		c.buf = c.buf[i+1:]
	}
	_, err := c.to.Write(c.buf)
	c.buf = nil
	return len(p), err
}

func (c *collectOutput) line(s string) {
	if text, ok := strings.CutPrefix(s, collectMark); ok {
		told := new(djangoStatic)
		if json.Unmarshal([]byte(text), told) == nil {
			c.told = told
			return
		}
	}
	if strings.TrimSpace(s) != "" && len(c.before) < 1000 {
		c.before = append(c.before, s[:min(len(s), 1000)])
	}
}

// end returns what was told, nil for nothing, and the lines before it.
func (c *collectOutput) end() (*djangoStatic, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == nil {
		s := bufio.NewScanner(bytes.NewReader(c.buf))
		for s.Scan() {
			c.line(s.Text())
		}
	}
	return c.told, c.before
}
