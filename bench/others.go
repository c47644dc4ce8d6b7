package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// plainApp needs no package.
func plainApp(version string) map[string]string {
	return map[string]string{
		"app.py": fmt.Sprintf("def app(environ, start_response):\n    start_response(\"200 OK\", [])\n    return [b\"version %s.\"]\n", version), "scotch.cfg": briefWatch,
	}
}

// template is the name of the app that others are copies of.
const template = "templateapp"

// addOthers gives a server that does not run yet a number of other apps: each is
// configured, has a repository, a release that was live, its nginx site, and is
// stopped, so that no uWSGI of theirs takes memory. They are copies of one that was
// deployed, with its name replaced.
func (w *world) addOthers(ctx context.Context, n int) error {
	if n == 0 {
		return nil
	}
	if err := w.start(ctx); err != nil {
		return err
	}
	p, err := w.project(ctx, template)
	if err != nil {
		return err
	}
	if err := p.commit(ctx, "One", plainApp("0")); err != nil {
		return err
	}
	if _, err := p.push(ctx, "main"); err != nil {
		return err
	}
	if err := w.settle(ctx, template); err != nil {
		return err
	}
	if _, err := w.scotch(ctx, "stop", template); err != nil {
		return err
	}
	if err := w.end(syscall.SIGINT); err != nil {
		return err
	}
	for i := range n {
		name := fmt.Sprintf("other%d", i)
		for _, tree := range []string{"instances/%s", "repositories/%s.git", "apps-enabled/%s.cfg", "data/%s", "logs/%s"} {
			from, to := filepath.Join(w.dir, fmt.Sprintf(tree, template)), filepath.Join(w.dir, fmt.Sprintf(tree, name))
			if err := copyApp(from, to, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyApp copies a file or a tree of the template, with the app's name replaced in
// what speaks of it. Of virtualenvs only the links to Python are there, without
// which each start of the server would make them anew: nothing of a stopped app runs.
func copyApp(from, to, name string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir() && d.Name() == "lib" && strings.Contains(rel, ".venvs/"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(strings.ReplaceAll(target, template, name), dst)
		case !d.Type().IsRegular(), strings.Contains(rel, ".venvs/") && filepath.Base(filepath.Dir(rel)) == "bin":
			return nil // a socket; a program
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(from, "/repositories/") {
			return os.WriteFile(dst, data, 0o644)
		}
		if strings.HasSuffix(path, ".json") {
			if data, err = renamed(data, name); err != nil {
				return fmt.Errorf("%s: %w", rel, err)
			}
		}
		return os.WriteFile(dst, bytes.ReplaceAll(data, []byte(template), []byte(name)), 0o600)
	})
}

// renamed replaces the template's name in the files that a record holds, as base64.
func renamed(record []byte, name string) ([]byte, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if text, ok := v["Data"].(string); ok {
				if data, err := base64.StdEncoding.DecodeString(text); err == nil {
					v["Data"] = bytes.ReplaceAll(data, []byte(template), []byte(name))
				}
			}
			for _, part := range v {
				walk(part)
			}
		case []any:
			for _, part := range v {
				walk(part)
			}
		}
	}
	walk(v)
	return json.Marshal(v)
}
