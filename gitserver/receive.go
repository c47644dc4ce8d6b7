package gitserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"scotch/gitserver/access"
	"scotch/gitserver/audit"
	"scotch/hooks"
)

// receive serves a push. ctx ends when the client has left, base with the
// server: a push that has reached git's hooks goes on without its client.
func (s *session) receive(ctx, base context.Context, app string, refs func(audit.Ref)) int {
	if s.server.Pushes == nil {
		return s.fail(1, errors.New("this server takes no pushes"))
	}
	if !s.may(access.VerbPush, app) {
		if s.may(access.VerbFetch, app) && s.server.Repositories.Exists(app) {
			s.log.Warn("denied")
			return s.fail(1, fmt.Errorf("your key may read %q and not push to it\nask an admin of this server", app))
		}
		return s.denied(app)
	}
	if s.server.Room != nil {
		if err := s.server.Room(); err != nil {
			s.log.WithError(err).Warn("push refused")
			return s.fail(1, err)
		}
	}
	client := &traffic{Reader: s, Writer: s}
	client.slow.Store(true)
	heard := client.watch(s.server.idleTimeout(), func() { s.silent(errSilentPush) })
	defer heard()
	if s.server.Repositories.Exists(app) {
		return s.push(ctx, base, &receipt{app: app, client: client, heard: heard, refs: refs})
	}
	if s.server.CreateApp == nil || !s.may(access.VerbCreate, app) {
		return s.denied(app)
	}
	return s.firstPush(ctx, base, &receipt{app: app, client: client, heard: heard, refs: refs})
}

// receipt is one push that is taken in.
type receipt struct {
	app     string
	client  *traffic
	heard   func() // git's hooks speak: from here on the client may be as silent as it likes
	options []string
	begun   []byte // what came from the client already
	created bool   // the app was made for it
	refs    func(audit.Ref)
}

// firstPush serves a push to an app that is not there. The client is shown the
// refs of an empty repository; the app is made when the client's answer shows
// that it pushes something, so not for git push --dry-run. What the client
// then sends goes to a git that takes the conversation up where the first one
// left it (git-receive-pack(1), --http-backend-info-refs and --stateless-rpc).
func (s *session) firstPush(ctx, base context.Context, r *receipt) int {
	status, err := s.server.Git.run(ctx, &gitRun{
		service:  receivePack,
		options:  []string{"--http-backend-info-refs"},
		dir:      s.server.Git.empty(),
		stdout:   r.client,
		stderr:   s.Stderr(),
		protocol: s.protocol(),
	})
	if context.Cause(ctx) == errSilentPush {
		return s.fail(1, errSilentPush)
	}
	if err != nil || status != 0 {
		return s.broken(ctx, status, err)
	}
	// gitprotocol-common(5): four hexadecimal digits of length, 0000 is a flush.
	first := make([]byte, 4)
	switch _, err := io.ReadFull(r.client, first); {
	case context.Cause(ctx) == errSilentPush:
		return s.fail(1, errSilentPush)
	case err != nil, string(first) == "0000":
		return 0 // nothing to push, or gone
	}
	if n, err := strconv.ParseUint(string(first), 16, 16); err != nil || n <= 4 {
		return s.fail(1, errors.New("this is not git's protocol"))
	}
	// Not with ctx: a client who leaves now must not leave half an app.
	if err := s.server.CreateApp(base, r.app, s.who.Name); err != nil {
		s.log.WithError(err).Error("making the app")
		return s.fail(1, fmt.Errorf("making the app %q: %w", r.app, err))
	}
	s.log.Info("app made by a push")
	r.options, r.begun, r.created = []string{"--stateless-rpc"}, first, true
	return s.push(ctx, base, r)
}

// push runs git receive-pack and the handler that its hooks speak to. It
// returns when both are done; the client has its exit status before.
func (s *session) push(ctx, base context.Context, r *receipt) int {
	app := r.app
	if status := s.unsound(app); status != 0 {
		return status
	}
	under := s.server.receivingOf(app)
	under.begin()
	killed := false
	defer func() {
		if err := under.end(killed, s.server.Recover); err != nil {
			s.log.WithError(err).Warn("removing what a killed git left behind")
		}
	}()
	ours, theirs, err := socketPair()
	if err != nil {
		return s.broken(ctx, 1, err)
	}
	heard := &heard{Conn: ours, first: func() { // from git's hooks
		s.keeps.Store(true)
		r.heard()
	}}
	gone := make(chan struct{})
	p := hooks.Push{
		App:     app,
		By:      s.who.Name,
		Key:     s.who.Fingerprint,
		From:    s.who.Addr,
		Dir:     s.server.Repositories.Path(app),
		May:     func(verb string) bool { return s.may(access.Verb(verb), app) },
		Created: r.created,
		Gone:    gone,
		Settled: func(u hooks.Update, result, reason string) {
			r.refs(audit.Ref{Ref: u.Ref, Old: u.Old, New: u.New, Result: result, Reason: reason})
		},
	}
	var handler sync.WaitGroup
	handled := make(chan struct{})
	handler.Go(func() {
		defer close(handled)
		defer ours.Close()
		defer recovered(s.log)
		s.server.Pushes.Handle(base, heard, p)
	})

	gitCtx, cancel := context.WithCancel(base)
	defer cancel()
	ended := make(chan struct{}) // git has
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-ctx.Done():
			close(gone)
		case <-ended:
			return
		}
		if context.Cause(ctx) == errSilentPush {
			// Its input has ended with the session: git cleans up, and ends.
			select {
			case <-time.After(5 * time.Second):
				cancel()
			case <-ended:
			}
			return
		}
		// git hears of nothing: what it writes is dropped, so that it stores
		// the refs that were granted and removes its temporary files. It
		// gets a grace for that when the push has been dealt with.
		select {
		case <-handled:
		case <-ended:
			return
		}
		select {
		case <-time.After(or(s.server.Git.Grace, 30*time.Second)):
			s.log.Warn("git goes on without its client and is ended")
			cancel()
		case <-ended:
		}
	})
	limits := s.server.Git
	in := &pushed{r: io.MultiReader(bytes.NewReader(r.begun), r.client), maxBytes: limits.MaxPush, maxObjects: limits.MaxObjects,
		onPack: func() { r.client.slow.Store(false) }}
	said := &complaints{before: &heard.anything}
	status, err := s.server.Git.run(gitCtx, &gitRun{
		service:  receivePack,
		options:  r.options,
		dir:      p.Dir,
		stdin:    in,
		stdout:   &untilGone{w: io.MultiWriter(r.client, said)},
		stderr:   &untilGone{w: io.MultiWriter(s.Stderr(), said)},
		protocol: s.protocol(),
		hook:     theirs,
		copying:  s.work,
	})
	close(ended)
	watch.Wait()
	why := in.refused()
	if why == "" {
		why = limits.Limits.exceeded(said)
	}
	if why != "" {
		s.log.Infof("push refused: %s", firstLine(why))
		s.fail(1, errors.New(why))
	} else if said.refusedPack() {
		// The pusher has git's own words.
		why = "git did not take the pack in"
		s.said = why
	}
	if err != nil {
		var exit *exec.ExitError
		killed = errors.As(err, &exit) && !exit.Exited()
		status = s.broken(ctx, status, err)
	}
	if context.Cause(ctx) == errSilentPush {
		status = s.fail(1, errSilentPush)
	}
	s.Exit(status)
	handler.Wait()
	if why != "" {
		// git's own status is 0 where it could tell the client.
		return max(status, 1)
	}
	return status
}

// broken reports that git itself failed.
func (s *session) broken(ctx context.Context, status int, err error) int {
	if err == nil {
		return status
	}
	if ctx.Err() == nil {
		s.log.WithError(err).Error("receive-pack")
		s.fail(1, errors.New("git was ended before its time; the server's log says why"))
	}
	return 1
}

// untilGone writes to a client as long as there is one, and then to nowhere.
type untilGone struct {
	w    io.Writer
	gone bool
}

func (u *untilGone) Write(p []byte) (int, error) {
	if !u.gone {
		if _, err := u.w.Write(p); err != nil {
			u.gone = true
		}
	}
	return len(p), nil
}

// socketPair returns the two ends of a socket: one for here, one to inherit.
func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket for git's hooks: %w", err)
	}
	here := os.NewFile(uintptr(fds[0]), "hooks")
	defer here.Close() // FileConn has its own copy
	theirs = os.NewFile(uintptr(fds[1]), "hooks")
	ours, err = net.FileConn(here)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making a socket for git's hooks: %w", err)
	}
	return ours, theirs, nil
}
