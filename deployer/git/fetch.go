package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"path/filepath"
	"strings"

	"scotch/config"
	"scotch/deployer"
)

// fetch brings [app] src into the app's own repository, below refs/scotch/source,
// so that no ref of the users' moves. Nothing stays of one that fails or is too
// large (see incoming).
//
// Stock git and not go-git: it runs as the user that owns the repository, it
// syncs what it stores (core.fsync), checks it (fetch.fsckObjects), reads
// ~/.ssh/config and known_hosts as people know it, and speaks to proxies and the
// newest servers; go-git reads a source's packs into the server's own memory.
func (g *Git) fetch(ctx context.Context, app *config.App, out io.Writer) (err error) {
	src, err := parseSource(app.Source)
	if err != nil {
		return err
	}
	if err := src.missing(); err != nil {
		return fmt.Errorf("fetching %q: %w", src.shown, err)
	}
	if !g.Exists(app.Name) {
		if err := g.Create(ctx, app.Name, app.Branch); err != nil {
			return err
		}
	}
	in, err := g.newIncoming(ctx, app.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	if src.ssh {
		err = g.fetchSSH(ctx, app, in, src, out)
	} else {
		err = g.fetchAll(ctx, app, in, src, out, nil, nil)
	}
	if err == nil {
		err = in.settle(ctx, out)
	} else {
		in.explain(err)
	}
	var e *gitError
	if errors.As(err, &e) && e.limit != "" {
		return fmt.Errorf("fetching %q: %s", src.shown, e.limit)
	}
	if errors.As(err, &e) {
		return fmt.Errorf("fetching %q: %s\n%s", src.shown, g.reason(src, e), g.advice(app.Name, src, e))
	}
	if err != nil {
		return fmt.Errorf("fetching %q: %w", src.shown, err)
	}
	return nil
}

// fetchSSH fetches with the app's own key, and with those of the user that git
// runs as where there is none, or where the app's is not let in.
func (g *Git) fetchSSH(ctx context.Context, app *config.App, in *incoming, src *source, out io.Writer) (err error) {
	l, err := g.lend(app.Name, g.o.User)
	if err != nil {
		return err
	}
	if l == nil {
		return g.fetchAll(ctx, app, in, src, out, nil, nil)
	}
	defer func() {
		pinned, perr := l.end()
		for _, s := range pinned {
			fmt.Fprintln(out, s)
		}
		if err == nil {
			err = perr
		}
	}()
	// ssh's words about a changed host key are to name the file that stays.
	places := []string{l.path(pinsName), g.pinsPath(app.Name)}
	if l.hasKey {
		command := l.sshCommand("IdentityAgent="+l.path("agent"), "IdentityFile="+l.path("key.pub"), "IdentitiesOnly=yes")
		err := g.fetchAll(ctx, app, in, src, out, []string{"GIT_SSH_COMMAND=" + command}, places)
		var e *gitError
		if !errors.As(err, &e) || !e.notLetIn() || !g.userHasKeys() {
			return err
		}
		fmt.Fprintln(out, "the app's own key is not let in; trying the keys of the user that git runs as")
	}
	var env []string
	if _, set := g.fetchVar(app.Name, "GIT_SSH_COMMAND"); !set {
		env = append(env, "GIT_SSH_COMMAND="+l.sshCommand())
	}
	return g.fetchAll(ctx, app, in, src, out, env, places)
}

// userHasKeys tells whether ssh may find keys besides the app's.
func (g *Git) userHasKeys() bool {
	for _, name := range []string{"SSH_AUTH_SOCK", "GIT_SSH_COMMAND"} {
		if _, set := g.fetchVar("", name); set {
			return true
		}
	}
	u, err := user.Current()
	if g.o.User != "" {
		u, err = user.Lookup(g.o.User)
	}
	if err != nil {
		return false
	}
	for _, name := range []string{"id_*", "config"} {
		if found, _ := filepath.Glob(filepath.Join(u.HomeDir, ".ssh", name)); len(found) > 0 {
			return true
		}
	}
	return false
}

func (g *Git) fetchVar(app, name string) (value string, set bool) {
	if g.o.FetchEnv == nil {
		return "", false
	}
	for _, kv := range g.o.FetchEnv(app) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value, set = v, true
		}
	}
	return value, set
}

// fetchAll fetches branches, tags and HEAD. env is added to git's environment;
// hide are pairs of what git may say and what is shown instead.
func (g *Git) fetchAll(ctx context.Context, app *config.App, in *incoming, src *source, out io.Writer, env, hide []string) error {
	refs := []string{"+refs/heads/*:" + sourceRefs + "heads/*", "+refs/tags/*:" + sourceRefs + "tags/*"}
	err := g.fetchRefs(ctx, app, in, src, out, append(refs, "+HEAD:"+sourceRefs+"HEAD"), env, hide)
	var e *gitError
	if errors.As(err, &e) && strings.Contains(e.said, "couldn't find remote ref HEAD") {
		// The source's HEAD names a branch that it does not have.
		err = g.fetchRefs(ctx, app, in, src, out, refs, env, hide)
	}
	return err
}

func (g *Git) fetchRefs(ctx context.Context, app *config.App, in *incoming, src *source, out io.Writer, refs, env, hide []string) error {
	args := []string{"fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"}
	if src.path != "" {
		// The operator named this path; git would refuse it for its owner alone
		// (safe.directory in git-config(1)).
		args = append(args, "--upload-pack=git -c safe.directory=* upload-pack")
	}
	args = append(append(args, "--", src.address), refs...)
	c, err := in.command(args...)
	if err != nil {
		return err
	}
	c.Each.FileSize = g.o.Limits.Push
	if g.o.FetchEnv != nil {
		c.Env = append(c.Env, g.o.FetchEnv(app.Name)...)
	}
	c.Env = append(src.login(c.Env), env...)
	c.Timeout = g.o.Timeout
	var stderr tail
	r := strings.NewReplacer(append(src.hidden(), hide...)...)
	c.Stderr = io.MultiWriter(&hiding{w: &stderr, r: r}, &progress{w: out, hide: r})
	err = failed(c, "fetch", &stderr, g.runner.Run(ctx, c))
	var e *gitError
	var exit *deployer.ExitError
	if errors.As(err, &e) && src.path == "" && errors.As(err, &exit) && exit.Signal == "" {
		// What another machine ran out of is not our limit.
		e.limit = (&gitError{all: strings.Join(e.complaints(), "\n")}).met(c.Each, "")
	}
	return err
}

// complaints are the lines in which a git says what is wrong, but not those that it
// hands on from the other end.
func (e *gitError) complaints() (all []string) {
	for l := range strings.Lines(e.all) {
		l = strings.TrimSpace(l[strings.LastIndexByte(strings.TrimRight(l, "\r\n"), '\r')+1:])
		if strings.HasPrefix(l, "fatal: ") || strings.HasPrefix(l, "error: ") {
			all = append(all, l)
		}
	}
	return all
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
		s := strings.TrimSpace(l[strings.LastIndexByte(l, '\r')+1:])
		// git's list of refs has all of them, as what it fetches into has none.
		if s != "" && !strings.HasPrefix(s, "From ") && !strings.Contains(s, " -> "+sourceRefs) {
			// A reader that is gone does not stop a fetch.
			fmt.Fprintln(p.w, deployer.Neutral(p.hide.Replace(s)))
		}
	}
}
