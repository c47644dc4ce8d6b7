package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// fetch brings [app] src into the app's own repository, below refs/scotch/source,
// so that no ref of the users' moves.
//
// Stock git and not go-git: it runs as the user that owns the repository, it
// syncs what it stores (core.fsync), checks it (fetch.fsckObjects), reads
// ~/.ssh/config and known_hosts as people know it, and speaks to credential
// helpers, proxies and the newest servers; go-git reads a source's packs into
// the server's own memory.
func (g *Git) fetch(ctx context.Context, app *config.App, out io.Writer) error {
	if err := validSource(app.Source); err != nil {
		return err
	}
	if !g.Exists(app.Name) {
		if err := g.Create(ctx, app.Name, app.Branch); err != nil {
			return err
		}
	}
	refs := []string{"+refs/heads/*:" + sourceRefs + "heads/*", "+refs/tags/*:" + sourceRefs + "tags/*"}
	err := g.fetchRefs(ctx, app, out, append(refs, "+HEAD:"+sourceRefs+"HEAD"))
	var e *gitError
	if errors.As(err, &e) && strings.Contains(e.said, "couldn't find remote ref HEAD") {
		// The source's HEAD names a branch that it does not have.
		_, derr := g.run(ctx, app.Name, "update-ref", "-d", sourceRefs+"HEAD")
		err = errors.Join(derr, g.fetchRefs(ctx, app, out, refs))
	}
	if errors.As(err, &e) {
		return fmt.Errorf("fetching %q: %s\n%s", redact(app.Source), e.reason(), advice(e.all))
	}
	if err != nil {
		return fmt.Errorf("fetching %q: %w", redact(app.Source), err)
	}
	return nil
}

func (g *Git) fetchRefs(ctx context.Context, app *config.App, out io.Writer, refs []string) error {
	args := []string{"fetch", "--progress", "--prune", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"}
	if filepath.IsAbs(app.Source) || strings.HasPrefix(app.Source, "file://") {
		// The operator named this path; git would refuse it for its owner alone
		// (safe.directory in git-config(1)).
		args = append(args, "--upload-pack=git -c safe.directory=* upload-pack")
	}
	args = append(append(args, "--", app.Source), refs...)
	c, err := g.command(app.Name, args...)
	if err != nil {
		return err
	}
	if g.o.FetchEnv != nil {
		c.Env = append(c.Env, g.o.FetchEnv(app.Name)...)
	}
	c.Timeout = g.o.Timeout
	var stderr tail
	hide := strings.NewReplacer(app.Source, redact(app.Source))
	c.Stderr = io.MultiWriter(&hiding{w: &stderr, r: hide}, &progress{w: out, hide: hide})
	return failed("fetch", &stderr, g.runner.Run(ctx, c))
}

// hiding replaces a source with its redacted form, chunk by chunk: git writes
// messages whole.
type hiding struct {
	w io.Writer
	r *strings.Replacer
}

func (h *hiding) Write(p []byte) (int, error) {
	_, err := h.r.WriteString(h.w, string(p))
	return len(p), err
}

// progress hands on the lines of git's progress, each in its last state: what
// comes after the last carriage return.
type progress struct {
	w    io.Writer
	hide *strings.Replacer
	buf  []byte
}

func (p *progress) Write(b []byte) (int, error) {
	p.buf = append(p.buf, b...)
	for {
		i := bytes.IndexByte(p.buf, '\n')
		if i < 0 {
			if j := bytes.LastIndexByte(p.buf, '\r'); j >= 0 {
				p.buf = p.buf[:copy(p.buf, p.buf[j+1:])]
			}
			if len(p.buf) > maxOutput {
				p.buf = nil
			}
			return len(b), nil
		}
		l := string(p.buf[:i])
		p.buf = p.buf[:copy(p.buf, p.buf[i+1:])]
		l = strings.TrimRight(l, "\r")
		if s := strings.TrimSpace(l[strings.LastIndexByte(l, '\r')+1:]); s != "" {
			// A reader that is gone does not stop a fetch.
			fmt.Fprintln(p.w, deployer.Neutral(p.hide.Replace(s)))
		}
	}
}

// scpLike is git's short form of an ssh address, HOST:PATH with or without a user.
var scpLike = regexp.MustCompile(`^([^/:@]+@)?[A-Za-z0-9][^/:]*:.`)

// validSource refuses what git would take for an option, a helper program or a
// path that depends on where it runs.
func validSource(src string) error {
	scheme, _, isURL := strings.Cut(src, "://")
	switch {
	case strings.ContainsFunc(src, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("[app] src is %q, which no address looks like", src)
	case isURL:
		switch scheme {
		case "https", "http", "ssh", "git", "file":
			return nil
		}
		return fmt.Errorf("[app] src is %q: %q is no way to fetch\nuse https://, ssh://, git://, http://, file:// or a path", redact(src), scheme)
	case filepath.IsAbs(src):
		return nil
	case strings.Contains(src, "::"):
	case scpLike.MatchString(src):
		return nil
	}
	return fmt.Errorf("[app] src is %q: neither an address nor an absolute path\nexamples: https://example.org/blog.git, git@example.org:me/blog, /srv/git/blog.git", src)
}

// redact hides the password of an address.
func redact(src string) string {
	u, err := url.Parse(src)
	if err != nil || u.User == nil {
		return src
	}
	if _, has := u.User.Password(); has || u.Scheme == "https" || u.Scheme == "http" {
		u.User = url.User("***") // a lone name of https is a token as a rule
	}
	return u.String()
}

// reason is what ssh said, where that is why git could not read: git itself
// only says that it could not.
func (e *gitError) reason() string {
	if !strings.Contains(strings.ToLower(e.said), "could not read from remote repository") {
		return e.said
	}
	for l := range strings.Lines(e.all) {
		if l = strings.TrimSpace(l); strings.Contains(l, "verification failed") || strings.Contains(l, "Permission denied") || strings.HasPrefix(l, "ssh: ") {
			return deployer.Neutral(l)
		}
	}
	return e.said
}

// advice is the next step for what git said about a fetch.
func advice(said string) string {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(said, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("mismatched algorithms", "hash algorithm", "object format"):
		return "the source is a sha256 repository, which is not supported yet: make it anew with git init --object-format=sha1"
	case has("Host key verification failed"):
		return "the server does not know that host's key: add it to known_hosts (ssh-keyscan HOST), after comparing it"
	case has("Could not resolve host", "unable to access", "Connection refused", "timed out"):
		return "can this server reach that host? try: git ls-remote ADDRESS"
	case has("Permission denied", "could not read Username", "could not read from remote repository", "Could not read from remote repository", "Authentication failed"):
		return "may this server read it? a private repository needs the app's deploy key or a token in the address"
	}
	return "check [app] src; by hand: git ls-remote ADDRESS"
}
