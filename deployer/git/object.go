package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"scotch/deployer"
)

// What was pushed is read by stock git, within its limits, and not by go-git in
// the server's own memory: there a commit takes time by the square of its
// signature's lines (a minute for 900 KB, which no cancel ends), and an object that
// is made of another one brings that one along, whatever its size.

const (
	// maxCommit is how much of a commit is read, in bytes: its head, and the
	// beginning of its message.
	maxCommit = 1 << 20
	// maxSubject and maxAuthor are how much is kept of what every list and record
	// repeats, in bytes.
	maxSubject = 300
	maxAuthor  = 300
)

// errEnough ends the reading of a git that has more to say.
var errEnough = errors.New("the rest is not needed")

// Kind is the type of an object: "commit", "tag", "tree" or "blob".
func (g *Git) Kind(ctx context.Context, app, id string) (string, error) {
	if !plumbing.IsHash(id) {
		return "", fmt.Errorf("%q is no object name", id)
	}
	kind, err := g.run(ctx, app, "cat-file", "-t", id)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", id, err)
	}
	return kind, nil
}

// Lookup returns the commit with the given object name.
func (g *Git) Lookup(ctx context.Context, app, id string) (deployer.Commit, error) {
	if !plumbing.IsHash(id) {
		return deployer.Commit{}, fmt.Errorf("%q is no object name", id)
	}
	kind, _, data, err := g.object(ctx, app, id, maxCommit)
	if err != nil {
		return deployer.Commit{}, fmt.Errorf("reading commit %s: %w", id, err)
	}
	if kind != "commit" {
		return deployer.Commit{}, fmt.Errorf("there is no commit %s in the repository of %q", id, app)
	}
	return parseCommit(id, data)
}

// object returns the type, the size and the first bytes, at most max, of an
// object; no type where there is none.
func (g *Git) object(ctx context.Context, app, id string, max int64) (kind string, size int64, data []byte, err error) {
	err = g.stream(ctx, app, strings.NewReader(id+"\n"), func(r io.Reader) error {
		in := bufio.NewReader(r)
		head, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasSuffix(head, " missing\n") {
			return nil
		}
		var name string
		if _, err := fmt.Sscanf(head, "%s %s %d\n", &name, &kind, &size); err != nil {
			return fmt.Errorf("git cat-file said %q", strings.TrimSpace(head))
		}
		if data, err = io.ReadAll(io.LimitReader(in, min(size, max))); err == nil && size > max {
			err = errEnough
		}
		return err
	}, "cat-file", "--batch")
	if errors.Is(err, errEnough) {
		err = nil
	}
	return kind, size, data, err
}

// parseCommit reads the beginning of a commit as git writes it (commit.c): of
// what is there twice the first counts.
func parseCommit(id string, data []byte) (deployer.Commit, error) {
	c := deployer.Commit{ID: id}
	var author, committer *object.Signature
	rest := data
	for {
		line, behind, _ := bytes.Cut(rest, []byte("\n"))
		rest = behind
		if len(line) == 0 {
			break
		}
		key, value, _ := bytes.Cut(line, []byte(" "))
		switch word := string(key); {
		case word == "tree" && c.Tree == "":
			c.Tree = string(value)
		case word == "author" && author == nil:
			author = new(object.Signature)
			author.Decode(value)
		case word == "committer" && committer == nil:
			committer = new(object.Signature)
			committer.Decode(value)
		}
	}
	if !plumbing.IsHash(c.Tree) {
		return deployer.Commit{}, fmt.Errorf("reading commit %s: it names no tree", id)
	}
	subject, _, _ := bytes.Cut(bytes.TrimLeft(rest, "\n"), []byte("\n"))
	c.Subject = shortened(string(bytes.TrimSpace(subject)), maxSubject)
	if author != nil {
		c.Author = shortened(author.Name, maxAuthor) + " <" + shortened(author.Email, maxAuthor) + ">"
	}
	if committer != nil {
		c.When = committer.When
	}
	return c, nil
}

// shortened cuts a text, between characters where it has any.
func shortened(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max] + "…"
}

// ReadFile returns one regular file of a commit's tree. One with more than max
// bytes is refused: half a file says something else than the whole. The error
// matches fs.ErrNotExist where there is none.
func (g *Git) ReadFile(ctx context.Context, app string, c deployer.Commit, path string, max int64) (_ []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s at %.7s: %w", path, c.ID, err)
		}
	}()
	if !plumbing.IsHash(c.Tree) {
		return nil, fmt.Errorf("%q is no object name", c.Tree)
	}
	out, err := g.run(ctx, app, "ls-tree", "-z", "-l", "--full-tree", c.Tree, "--", path)
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(out, "\x00")
	if line == "" {
		return nil, fs.ErrNotExist
	}
	e, err := parseEntry(line)
	switch {
	case err != nil:
		return nil, err
	case e.path != path:
		return nil, fs.ErrNotExist
	case e.kind != "blob" || e.mode == "120000":
		return nil, errors.New("not a regular file")
	case e.size > max:
		return nil, fmt.Errorf("it has %s, and may have %s", deployer.Size(e.size), deployer.Size(max))
	}
	_, _, data, err := g.object(ctx, app, e.id, max)
	return data, err
}
