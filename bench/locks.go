package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// locks measures the formats of locks: Django with thirty packages, resolved once by
// uv, and the same versions and hashes written as each tool writes them. So what
// differs between the rows is the reading of the lock, and not what it installs.
func locks(ctx context.Context, b *bench) error {
	if _, err := lookPath(b.world, "uv"); err != nil {
		b.skip("installs of locks", "there is no uv, which resolves them")
		return nil
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	files, list, err := b.lock(ctx)
	if err != nil {
		return err
	}
	pinned, err := readPinned(list)
	if err != nil {
		return err
	}
	files["requirements.txt"] = list
	files["poetry.lock"], files["pdm.lock"] = poetryLock(pinned), pdmLock(pinned)
	if files["Pipfile.lock"], err = pipfileLock(pinned); err != nil {
		return err
	}
	rounds := b.scaled(1, 1)
	cache := filepath.Join(b.home, "cache-locks")
	formats := []string{"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.txt"}
	first, again, hand := map[string]*sample{}, map[string]*sample{}, &sample{}
	for _, f := range formats {
		first[f], again[f] = &sample{}, &sample{}
	}
	byHand := func() (time.Duration, error) {
		return b.installByHand(ctx, "uv", cache, list)
	}
	if err := b.warm(ctx, files["requirements.txt"], byHand); err != nil {
		return err
	}
	for round := range rounds {
		took, err := byHand()
		if err != nil {
			return err
		}
		hand.took(took)
		for _, format := range formats {
			app := fmt.Sprintf("%s-%d", strings.ToLower(strings.ReplaceAll(format, ".", "-")), round)
			b.say("%s", app)
			p, err := b.project(ctx, app)
			if err != nil {
				return err
			}
			for i, s := range []*sample{first[format], again[format]} {
				tree := withLock(files, format)
				tree["more.py"] = fmt.Sprintf("# change %d\n", i)
				if err := p.commit(ctx, "One", tree); err != nil {
					return err
				}
				pushed, err := p.push(ctx, "main")
				if err != nil {
					return err
				}
				s.took(pushed.took)
				if err := b.settle(ctx, app); err != nil {
					return err
				}
			}
		}
	}
	for _, f := range formats {
		b.add(row{What: f + " of Django and 30 packages: first deploy, full cache", Unit: "s", Peer: "uv alone", Floor: hand, Ours: first[f]})
		b.add(row{What: f + " of Django and 30 packages: unchanged", Unit: "s", Ours: again[f]})
	}
	return b.end(interrupt)
}

// warm fills the caches of the server and of the installer by hand.
func (b *bench) warm(ctx context.Context, list string, byHand func() (time.Duration, error)) error {
	if _, err := byHand(); err != nil {
		return err
	}
	p, err := b.project(ctx, "warm")
	if err != nil {
		return err
	}
	files := djangoApp()
	files["requirements.txt"] = list
	if err := p.commit(ctx, "One", files); err != nil {
		return err
	}
	if _, err := p.push(ctx, "main"); err != nil {
		return err
	}
	return b.settle(ctx, "warm")
}

// lock has uv resolve the app's packages. It returns the app with its pyproject.toml
// and uv.lock, and the lock as a list with hashes.
func (b *bench) lock(ctx context.Context) (files map[string]string, list string, err error) {
	files = djangoApp()
	wanted, err := json.Marshal(strings.Fields(files["requirements.txt"]))
	if err != nil {
		return nil, "", err
	}
	delete(files, "requirements.txt")
	files["pyproject.toml"] = "[project]\nname = \"shop\"\nversion = \"1\"\nrequires-python = \">=3.10\"\ndependencies = " + string(wanted) +
		"\n\n[tool.uv]\npackage = false\n\n[tool.pdm]\ndistribution = false\n\n[tool.poetry]\npackage-mode = false\n"
	dir := filepath.Join(b.home, "locked")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "pyproject.toml"), []byte(files["pyproject.toml"]), 0o644); err != nil {
		return nil, "", err
	}
	for _, args := range [][]string{
		{"lock", "-q", "--python", "/usr/bin/python3"},
		{"export", "-q", "--frozen", "--no-header", "--no-annotate", "--no-emit-project", "-o", "list.txt"},
	} {
		if _, err := b.run(ctx, dir, "uv", args...); err != nil {
			return nil, "", err
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "uv.lock"))
	if err != nil {
		return nil, "", err
	}
	files["uv.lock"] = string(data)
	data, err = os.ReadFile(filepath.Join(dir, "list.txt"))
	return files, string(data), err
}

// withLock is the app with one of its locks.
func withLock(files map[string]string, format string) map[string]string {
	tree := maps.Clone(files)
	for _, f := range []string{"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.txt"} {
		if f != format {
			delete(tree, f)
		}
	}
	return tree
}

// pinned is one line of a list with hashes.
type pinned struct {
	name, version, marker string
	hashes                []string
}

// readPinned reads what "uv export" writes: NAME==VERSION ; MARKER, and a line for each hash.
func readPinned(list string) ([]pinned, error) {
	var all []pinned
	lines := bufio.NewScanner(strings.NewReader(list))
	for lines.Scan() {
		text := strings.TrimSpace(strings.TrimSuffix(lines.Text(), "\\"))
		if hash, ok := strings.CutPrefix(text, "--hash="); ok && len(all) > 0 {
			last := &all[len(all)-1]
			last.hashes = append(last.hashes, hash)
			continue
		}
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		what, marker, _ := strings.Cut(text, ";")
		name, version, ok := strings.Cut(strings.TrimSpace(what), "==")
		if !ok {
			return nil, fmt.Errorf("uv export wrote a line that pins nothing: %q", text)
		}
		name, _, _ = strings.Cut(name, "[")
		all = append(all, pinned{name, version, strings.TrimSpace(marker), nil})
	}
	return all, lines.Err()
}

// lockFiles is the array of hashes as poetry and pdm write it.
func (p pinned) lockFiles() string {
	var b strings.Builder
	for i, h := range p.hashes {
		fmt.Fprintf(&b, "    {file = \"%s-%d\", hash = %q},\n", p.name, i, h)
	}
	return "files = [\n" + b.String() + "]\n"
}

func poetryLock(all []pinned) string {
	var b strings.Builder
	for _, p := range all {
		fmt.Fprintf(&b, "[[package]]\nname = %q\nversion = %q\noptional = false\npython-versions = \"*\"\ngroups = [\"main\"]\n", p.name, p.version)
		if p.marker != "" {
			fmt.Fprintf(&b, "markers = %q\n", p.marker)
		}
		b.WriteString(p.lockFiles() + "\n")
	}
	return b.String() + "[metadata]\nlock-version = \"2.1\"\npython-versions = \">=3.10\"\ncontent-hash = \"\"\n"
}

func pdmLock(all []pinned) string {
	var b strings.Builder
	b.WriteString("[metadata]\ngroups = [\"default\"]\nstrategy = [\"inherit_metadata\"]\nlock_version = \"4.5.0\"\n\n")
	for _, p := range all {
		fmt.Fprintf(&b, "[[package]]\nname = %q\nversion = %q\ngroups = [\"default\"]\n", p.name, p.version)
		if p.marker != "" {
			fmt.Fprintf(&b, "marker = %q\n", p.marker)
		}
		b.WriteString(p.lockFiles() + "\n")
	}
	return b.String()
}

func pipfileLock(all []pinned) (string, error) {
	packages := map[string]map[string]any{}
	for _, p := range all {
		entry := map[string]any{"version": "==" + p.version, "hashes": slices.Sorted(slices.Values(p.hashes))}
		if p.marker != "" {
			entry["markers"] = p.marker
		}
		packages[p.name] = entry
	}
	text, err := json.MarshalIndent(map[string]any{
		"_meta":   map[string]any{"hash": map[string]string{"sha256": ""}, "pipfile-spec": 6, "requires": map[string]string{}, "sources": []any{}},
		"default": packages, "develop": map[string]any{},
	}, "", "    ")
	return string(text), err
}
