package git

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"scotch/deployer"
)

// allow refuses a source with so many files and directories, and so many bytes.
func (l Limits) allow(count int, size int64) error {
	switch {
	case l.Files > 0 && count > l.Files:
		return &deployer.RefusedError{
			Reason: fmt.Sprintf("more than %d files and directories in it", l.Files),
			Hint:   "keep out of the repository what is made or installed (node_modules, virtualenvs, data), or have an admin raise [server] max_files",
		}
	case l.Source > 0 && size > l.Source:
		return &deployer.RefusedError{
			Reason: fmt.Sprintf("its files have more than %s", deployer.Size(l.Source)),
			Hint:   "keep large files out of the repository, or have an admin raise [server] max_source",
		}
	}
	return nil
}

// met is which limit ended a git, in the words of its programs or by the signal that
// it or one of them got, and what to do; "" for none.
func (e *gitError) met(l deployer.ProcessLimits, signal string) string {
	switch {
	case l.Memory > 0 && e.has("out of memory", "unable to create thread"): // die() of git's wrapper.c
		return fmt.Sprintf("it needs more memory than the %s that it gets here\nan object, or the chain of changes that one is made of, is too large: keep large files out of the repository, or have an admin raise [server] push_memory", deployer.Size(l.Memory))
	case l.CPU > 0 && (signal == "SIGXCPU" || e.has("died of signal 24")):
		return fmt.Sprintf("it was ended: it may use the processor for %s\nhave an admin raise [server] push_cpu", l.CPU)
	case l.FileSize > 0 && (signal == "SIGXFSZ" || e.has("died of signal 25")):
		return tooMuch(l.FileSize)
	}
	return ""
}

func tooMuch(most int64) string {
	return fmt.Sprintf("it brings more than the %s that this server takes\nkeep large files out of the repository, or have an admin raise [server] max_push", deployer.Size(most))
}

// errLarge ends the look through a quarantine.
var errLarge = errors.New("a large object")

// CheckQuarantine returns a *deployer.RefusedError where one of the objects that
// a push has brought is larger than may be. quarantine is git's directory for
// them below the app's repository (git-receive-pack(1), QUARANTINE ENVIRONMENT),
// "" where there is none.
func (g *Git) CheckQuarantine(ctx context.Context, app, quarantine string) error {
	if quarantine == "" || g.o.Limits.Object <= 0 {
		return nil
	}
	// The path comes from a process that runs as git's user: its name alone is used.
	name := filepath.Base(quarantine)
	dir := filepath.Join(g.Path(app), "objects", name)
	if !strings.HasPrefix(name, "tmp_objdir-incoming-") && !strings.HasPrefix(name, "incoming-") {
		return fmt.Errorf("%q is no quarantine of %q", quarantine, app)
	}
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("reading the pushed objects: %w", err)
	}
	return g.checkObjects(ctx, app, dir, "the push", 0)
}

// CheckRefs returns a *deployer.RefusedError where the app's repository would have
// too many branches and tags with that many more. git reads all of them for each
// push and fetch, and each that is not packed is a file.
func (g *Git) CheckRefs(ctx context.Context, app string, more int) error {
	most := g.o.Limits.Refs
	if most <= 0 || more <= 0 {
		return nil
	}
	n := more
	err := g.stream(ctx, app, nil, func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			n++
		}
		return lines.Err()
	}, "for-each-ref", "--format=", "refs/heads/", "refs/tags/")
	if err != nil || n <= most {
		return err
	}
	return &deployer.RefusedError{
		Reason: fmt.Sprintf("the repository of %q would have %d branches and tags, more than the %d that this server takes", app, n, most),
		Hint:   "delete some: git push REMOTE --delete NAME...; or have an admin raise [server] max_refs",
	}
}

// checkObjects judges the objects in a directory, and none elsewhere: each by its
// size, and how many there are, where most is not 0.
func (g *Git) checkObjects(ctx context.Context, app, dir, of string, most int) error {
	if g.o.Limits.Object <= 0 && most <= 0 {
		return nil
	}
	c, err := g.command(app, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectsize) %(objecttype) %(objectname)")
	if err != nil {
		return err
	}
	// Deltas of a thin pack have their bases in it by now; nothing else is needed.
	c.Env = append(c.Env, "GIT_OBJECT_DIRECTORY="+dir)
	var large string
	n := 0
	err = g.streamOf(ctx, c, "cat-file", func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			size, object, _ := strings.Cut(lines.Text(), " ")
			bytes, err := strconv.ParseInt(size, 10, 64)
			if err != nil {
				return fmt.Errorf("git cat-file said %q", lines.Text())
			}
			if n++; most > 0 && n > most {
				return &deployer.RefusedError{
					Reason: fmt.Sprintf("%s brings more than the %d objects that this server takes", of, most),
					Hint:   "have an admin raise [server] max_objects",
				}
			}
			if g.o.Limits.Object > 0 && bytes > g.o.Limits.Object {
				large = object
				return errLarge
			}
		}
		return lines.Err()
	})
	if !errors.Is(err, errLarge) {
		return err
	}
	kind, id, _ := strings.Cut(large, " ")
	what := kind
	if kind == "blob" {
		what = "file"
	}
	return &deployer.RefusedError{
		Reason: fmt.Sprintf("a %s in %s is larger than %s: object %.12s", what, of, deployer.Size(g.o.Limits.Object), id),
		Hint:   fmt.Sprintf("to see its name: git log --all --oneline --find-object=%.12s\nkeep large files out of the repository, or have an admin raise [server] max_object", id),
	}
}
