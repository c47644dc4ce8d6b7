package git

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Histories are walked by stock git: it has commit graphs and bitmaps, and needs
// no object in the server's memory.

// Complete tells whether all commits that id is made of are there.
func (g *Git) Complete(ctx context.Context, app, id string) (bool, error) {
	if !plumbing.IsHash(id) {
		return false, fmt.Errorf("%q is no object name", id)
	}
	_, err := g.run(ctx, app, "rev-list", "--quiet", id, "--not", "--all")
	if status(err) == 128 {
		return false, nil
	}
	return err == nil, err
}

// Descends tells whether old is an ancestor of id, or id itself.
func (g *Git) Descends(ctx context.Context, app, id, old string) (bool, error) {
	if !plumbing.IsHash(id) || !plumbing.IsHash(old) {
		return false, fmt.Errorf("%q or %q is no object name", id, old)
	}
	_, err := g.run(ctx, app, "merge-base", "--is-ancestor", old, id)
	if status(err) == 1 {
		return false, nil
	}
	return err == nil, err
}

// entry is one line of git ls-tree -r -t -l.
type entry struct {
	mode, kind, id, path string
	size                 int64 // bytes of a file, else 0
}

// tree lists a commit's tree, with its directories, until each returns an error.
func (g *Git) tree(ctx context.Context, app, commit string, each func(entry) error) error {
	return g.stream(ctx, app, nil, func(r io.Reader) error {
		in := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := in.ReadString(0)
			if err == io.EOF && line == "" {
				return nil
			}
			if err != nil {
				return err
			}
			e, err := parseEntry(strings.TrimSuffix(line, "\x00"))
			if err == nil {
				err = each(e)
			}
			if err != nil {
				return err
			}
		}
	}, "ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit)
}

// parseEntry reads "MODE TYPE NAME SIZE<TAB>PATH" (git-ls-tree(1)): any byte but
// NUL may be in a path, a tab too.
func parseEntry(line string) (entry, error) {
	head, path, ok := strings.Cut(line, "\t")
	f := strings.Fields(head)
	if !ok || len(f) != 4 || !plumbing.IsHash(f[2]) || path == "" {
		return entry{}, fmt.Errorf("git ls-tree said %q", line)
	}
	e := entry{mode: f[0], kind: f[1], id: f[2], path: path}
	if f[3] == "-" {
		return e, nil
	}
	var err error
	if e.size, err = strconv.ParseInt(f[3], 10, 64); err != nil || e.size < 0 {
		return entry{}, fmt.Errorf("git ls-tree said %q", line)
	}
	return e, nil
}

// blobs reads objects in the order of their names. each gets the content of
// those up to max bytes, nil for larger ones.
func (g *Git) blobs(ctx context.Context, app string, ids []string, max int64, each func(i int, data []byte) error) error {
	if len(ids) == 0 {
		return nil
	}
	// --batch would read large objects only to be thrown away, so sizes first.
	var small []int
	err := g.stream(ctx, app, strings.NewReader(strings.Join(ids, "\n")+"\n"), func(r io.Reader) error {
		in := bufio.NewReader(r)
		for i := range ids {
			size, err := objectHeader(in)
			if err != nil {
				return err
			}
			if size <= max {
				small = append(small, i)
			} else if err := each(i, nil); err != nil {
				return err
			}
		}
		return nil
	}, "cat-file", "--batch-check")
	if err != nil || len(small) == 0 {
		return err
	}
	var want strings.Builder
	for _, i := range small {
		want.WriteString(ids[i] + "\n")
	}
	return g.stream(ctx, app, strings.NewReader(want.String()), func(r io.Reader) error {
		in := bufio.NewReader(r)
		for _, i := range small {
			size, err := objectHeader(in)
			if err != nil {
				return err
			}
			data := make([]byte, size+1) // and the newline behind it
			if _, err := io.ReadFull(in, data); err != nil {
				return err
			}
			if err := each(i, data[:size]); err != nil {
				return err
			}
		}
		return nil
	}, "cat-file", "--batch")
}

// objectHeader reads "NAME TYPE SIZE" (git-cat-file(1), BATCH OUTPUT).
func objectHeader(in *bufio.Reader) (int64, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	f := strings.Fields(line)
	if len(f) != 3 {
		return 0, fmt.Errorf("git cat-file said %q", strings.TrimSpace(line))
	}
	return strconv.ParseInt(f[2], 10, 64)
}
