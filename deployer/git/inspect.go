package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"scotch/deployer"
)

const (
	// maxSymlink is the longest target of a symbolic link (PATH_MAX), in bytes.
	maxSymlink = 4096
	// maxAttributes is the largest .gitattributes that git reads, in bytes
	// (ATTR_MAX_FILE_SIZE in attr.h is 100 MB; nobody needs that).
	maxAttributes = 1 << 20
	// maxPointer is the largest Git LFS pointer, in bytes, and pointerHead how
	// each begins (docs/spec.md of Git LFS).
	maxPointer  = 1024
	pointerHead = "version https://git-lfs.github.com/spec/v1\n"

	maxName = 255  // NAME_MAX, in bytes
	maxPath = 2048 // leaves room for the instance's own path within PATH_MAX
	maxHops = 40   // MAXSYMLINKS of Linux
	maxDeep = 100  // directories in one another; each is held open by an export

	// maxPassed bounds how many trees are remembered.
	maxPassed = 256
)

// Deployable returns a *deployer.RefusedError where the commit's tree holds
// what an export can't bring: submodules, Git LFS pointers, symbolic links
// that leave the tree, names that could pass for git's own.
func (g *Git) Deployable(ctx context.Context, app, commit string) error {
	key := app + " " + commit
	g.mu.Lock()
	known := g.passed[key]
	g.mu.Unlock()
	if known {
		return nil
	}
	if err := g.inspect(ctx, app, commit); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.passed) >= maxPassed {
		clear(g.passed)
	}
	g.passed[key] = true
	return nil
}

func (g *Git) inspect(ctx context.Context, app, commit string) error {
	var (
		modules, names, attributes []string
		deep                       []string
		count                      int
		size                       int64
		links                      = make(map[string]string) // path to object, then to target
		files                      []entry
		dirs                       = make(map[string]bool)
	)
	err := g.tree(ctx, app, commit, func(e entry) error {
		// The first two are judged while git still lists: a few small trees that
		// hold each other ten times over make billions of files.
		count++
		size += e.size
		if err := g.o.Limits.allow(count, size); err != nil {
			return err
		}
		base := path.Base(e.path)
		switch {
		case len(e.path) > maxPath || strings.Count(e.path, "/") >= maxDeep:
			if len(deep) < maxKept {
				deep = append(deep, e.path)
			}
			return nil
		case badPath(e.path):
			names = append(names, e.path)
		}
		switch {
		case e.mode == "160000":
			modules = append(modules, e.path)
		case e.mode == "120000":
			links[e.path] = e.id
		case e.kind == "tree":
			dirs[e.path] = true
		default:
			files = append(files, e)
			if base == ".gitattributes" {
				attributes = append(attributes, e.id)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(deep) > 0 {
		return refused(fmt.Sprintf("paths longer than %d bytes or with more than %d directories", maxPath, maxDeep), deep, "shorten them and commit: git mv OLD NEW")
	}
	if len(names) > 0 {
		return refused("names in it that can't be written safely", names, "rename them and commit: git mv OLD NEW")
	}
	if len(modules) > 0 {
		return refused("submodules are not supported yet", modules,
			"commit their files instead, or install them as packages (requirements.txt: NAME @ git+https://…)")
	}
	if bad, err := g.escaping(ctx, app, links, dirs); err != nil {
		return err
	} else if len(bad) > 0 {
		return refused("symbolic links leave the tree", bad, "make them lead to files of the repository, relative to where they are")
	}
	pointers, err := g.pointers(ctx, app, attributes, files)
	if err != nil {
		return err
	}
	if len(pointers) > 0 {
		return refused("Git LFS is not supported yet", pointers,
			"commit the files themselves: git lfs migrate export --include=PATH, or keep them out of the repository")
	}
	return nil
}

const (
	maxNamed = 5   // how many paths a refusal names,
	maxShown = 80  // bytes of each
	maxKept  = 100 // how many long ones are held to be counted
)

func refused(why string, paths []string, hint string) error {
	slices.Sort(paths)
	shown := make([]string, 0, maxNamed)
	for _, p := range paths[:min(len(paths), maxNamed)] {
		if len(p) > maxShown {
			p = strings.ToValidUTF8(p[:maxShown], "") + "…"
		}
		shown = append(shown, fmt.Sprintf("%q", p))
	}
	more := ""
	if n := len(paths) - len(shown); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return &deployer.RefusedError{Reason: why + ": " + strings.Join(shown, ", ") + more, Hint: hint}
}

// badPath tells whether a path can't be written as it is. What Linux can write
// (newlines, invalid UTF-8, case twins) is exported as it is.
func badPath(p string) bool {
	if len(p) > maxPath {
		return true
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." || len(part) > maxName || isDotGit(part) {
			return true
		}
	}
	return false
}

// isDotGit tells whether a name is ".git" in the eyes of some file system, by
// the rules of git's own verify_path (read-cache.c), is_ntfs_dotgit (path.c)
// and is_hfs_dotgit (utf8.c): case, trailing dots and spaces, NTFS streams and
// short names, characters that HFS+ ignores.
func isDotGit(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	for part := range strings.SplitSeq(name, `\`) {
		part, _, _ = strings.Cut(part, ":")
		switch strings.ToLower(strings.TrimRight(part, ". ")) {
		case ".git", "git~1":
			return true
		}
	}
	return false
}

// escaping returns the symbolic links whose target is not in the tree.
func (g *Git) escaping(ctx context.Context, app string, links map[string]string, dirs map[string]bool) ([]string, error) {
	paths := make([]string, 0, len(links))
	ids := make([]string, 0, len(links))
	for p, id := range links {
		paths, ids = append(paths, p), append(ids, id)
	}
	var bad []string
	err := g.blobs(ctx, app, ids, maxSymlink, func(i int, target []byte) error {
		links[paths[i]] = string(target)
		if target == nil {
			bad = append(bad, paths[i])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for p, target := range links {
		if !slices.Contains(bad, p) && escapes(p, target, links) {
			bad = append(bad, p)
		}
	}
	return bad, nil
}

// escapes follows a link as the kernel would, through the other links of the
// tree, and tells whether it leaves the tree, or never ends. A target that does
// not exist is none of its business.
func escapes(link, target string, links map[string]string) bool {
	at := path.Dir(link) // where the walk is, with no link in it
	rest := strings.Split(target, "/")
	if strings.HasPrefix(target, "/") || target == "" || strings.Contains(target, "\x00") {
		return true
	}
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at == "." {
				return true
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		to, isLink := links[next]
		if !isLink {
			at = next
			continue
		}
		if hops++; hops > maxHops || strings.HasPrefix(to, "/") {
			return true
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return false
}

// pointers returns the Git LFS pointers in a tree. Only one whose attributes
// speak of LFS is looked through.
func (g *Git) pointers(ctx context.Context, app string, attributes []string, files []entry) ([]string, error) {
	uses := false
	err := g.blobs(ctx, app, attributes, maxAttributes, func(_ int, data []byte) error {
		uses = uses || bytes.Contains(data, []byte("filter=lfs"))
		return nil
	})
	if err != nil || !uses {
		return nil, err
	}
	ids := make([]string, len(files))
	for i, f := range files {
		ids[i] = f.id
	}
	var found []string
	err = g.blobs(ctx, app, ids, maxPointer, func(i int, data []byte) error {
		if bytes.HasPrefix(data, []byte(pointerHead)) {
			found = append(found, files[i].path)
		}
		return nil
	})
	return found, err
}

// inWords is a refusal as one error, for where it is met in a stage.
func inWords(err error) error {
	var no *deployer.RefusedError
	if errors.As(err, &no) && no.Hint != "" {
		return fmt.Errorf("%s\n%s", no.Reason, no.Hint)
	}
	return err
}
