package git

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"scotch/deployer"
)

// Prepare locks the refs and compares their old values. The locks are held by a
// `git update-ref --stdin` that waits for the word, so they last as long as the
// transaction and no longer; ctx bounds the preparing alone.
//
// Stock git and not go-git: go-git writes refs in place, without lock and fsync.
//
// A lock that is in the way was left by a git that was killed, since nobody else
// moves these refs (see unlock): it is removed.
func (g *Git) Prepare(ctx context.Context, app string, updates []deployer.RefUpdate) (deployer.RefTransaction, error) {
	t, err := g.prepare(ctx, app, updates)
	if err != nil && ctx.Err() == nil && strings.Contains(err.Error(), ".lock': File exists") {
		if left := g.unlock(app, updates); left != nil {
			return nil, errors.Join(err, left)
		}
		t, err = g.prepare(ctx, app, updates)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (g *Git) prepare(ctx context.Context, app string, updates []deployer.RefUpdate) (*transaction, error) {
	var lines strings.Builder
	lines.WriteString("start\n")
	for _, u := range updates {
		l, err := updateLine(u)
		if err != nil {
			return nil, err
		}
		lines.WriteString(l)
	}
	lines.WriteString("prepare\n")

	c, err := g.command(app, "update-ref", "--stdin")
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	t := &transaction{in: inW, out: bufio.NewReader(outR), cancel: cancel, done: make(chan struct{})}
	t.unlock = func() error { return g.unlock(app, updates) }
	c.Stdin, c.Stdout, c.Stderr = inR, outW, &t.stderr
	go func() {
		defer close(t.done)
		t.err = failed(c, "update-ref", &t.stderr, g.runner.Run(running, c))
		// Whoever writes or reads now must not wait for a git that is gone.
		inR.CloseWithError(io.ErrClosedPipe)
		outW.Close()
	}()

	stop := context.AfterFunc(ctx, cancel)
	err = t.say(lines.String(), "start: ok", "prepare: ok")
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		t.end()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("locking the refs of %q: %w", app, err)
	}
	return t, nil
}

// updateLine words one update for `git update-ref --stdin`.
func updateLine(u deployer.RefUpdate) (string, error) {
	if err := plumbing.ReferenceName(u.Ref).Validate(); err != nil || !strings.HasPrefix(u.Ref, "refs/") || strings.ContainsAny(u.Ref, " \n\"") {
		return "", fmt.Errorf("%q is no name of a ref", u.Ref)
	}
	for _, id := range []string{u.Old, u.New} {
		if id != "" && !plumbing.IsHash(id) {
			return "", fmt.Errorf("%q is no object name", id)
		}
	}
	old := ""
	if u.Old != "" {
		old = " " + u.Old
	}
	if u.New == "" {
		return "delete " + u.Ref + old + "\n", nil
	}
	return "update " + u.Ref + " " + u.New + old + "\n", nil
}

// transaction is a git update-ref that waits for its next line.
type transaction struct {
	in     *io.PipeWriter
	out    *bufio.Reader
	stderr tail
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of the git; read after done
	unlock func() error
}

// say sends lines and waits for the answers.
func (t *transaction) say(lines string, answers ...string) error {
	if _, err := io.WriteString(t.in, lines); err != nil {
		return t.why(err)
	}
	for _, want := range answers {
		got, err := t.out.ReadString('\n')
		if err != nil {
			return t.why(err)
		}
		if got = strings.TrimSuffix(got, "\n"); got != want {
			return fmt.Errorf("git update-ref said %q instead of %q", deployer.Neutral(got), want)
		}
	}
	return nil
}

// why is what ended the git, rather than that its pipe broke.
func (t *transaction) why(err error) error {
	<-t.done
	if t.err != nil {
		return t.err
	}
	return err
}

// end closes the git's input, which aborts what is not committed, and waits.
func (t *transaction) end() error {
	t.in.Close()
	// Nobody reads answers any more; the git must not wait for that.
	io.Copy(io.Discard, t.out)
	<-t.done
	t.cancel()
	var exit *deployer.ExitError
	if errors.As(t.err, &exit) && exit.Signal != "" {
		return errors.Join(t.err, t.unlock())
	}
	return t.err
}

// unlock removes the locks of a transaction whose git was killed: each ref's
// own and, where HEAD names one of them, HEAD's (git's refs/files-backend.c).
// Nobody else moves these refs: the caller has the app's turn, and git leaves
// the branch that deploys to the deployer.
func (g *Git) unlock(app string, updates []deployer.RefUpdate) error {
	root, err := os.OpenRoot(g.Path(app))
	if err != nil {
		return err
	}
	defer root.Close()
	errs := []error{}
	names := []string{"HEAD"}
	for _, u := range updates {
		names = append(names, u.Ref)
	}
	for _, name := range names {
		if err := root.Remove(name + ".lock"); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Commit moves the refs. They are on disk when it returns.
func (t *transaction) Commit() error {
	err := t.say("commit\n", "commit: ok")
	return errors.Join(err, t.end())
}

// Abort lets go of the locks and moves nothing.
func (t *transaction) Abort() error {
	err := t.say("abort\n", "abort: ok")
	return errors.Join(err, t.end())
}
