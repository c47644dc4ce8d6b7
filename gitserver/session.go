package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gliderlabs/ssh"
	"github.com/sirupsen/logrus"
	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
	"scotch/gitserver/audit"
)

// session is one command on one channel.
type session struct {
	ssh.Session
	server *Server
	who    access.Identity
	key    gossh.PublicKey
	said   string                // the last error that the person was told, for the record
	cut    atomic.Pointer[error] // why nothing comes in or goes out any more
	log    logrus.FieldLogger
	end    func(why error) // ends the session from outside, as whileAllowed does
	// refused records that the session was not let in.
	refused func(who access.Identity, why, reason string)
	keeps   atomic.Bool     // a push whose pack is in: the server's stop waits for it
	term    *terminal       // nil where the client has none
	work    *sync.WaitGroup // of the channel: what must end before the channel counts as done
}

// session does what a client asks for on a channel and sends the exit status.
// ctx ends when the channel is closed, base with the server.
func (c *connection) session(ctx, base context.Context, conn *gossh.ServerConn, sess ssh.Session, term *terminal, work *sync.WaitGroup) {
	defer c.working(conn, -1)
	status := 1
	defer func() { sess.Exit(status) }()
	s := &session{Session: sess, server: c.server, log: c.log, refused: c.refused, term: term, work: work}
	defer func() {
		if p := recover(); p != nil {
			logPanic(s.log, p)
			status = s.fail(1, errors.New("an error inside the server; its log says more"))
		}
	}()

	var ok bool
	s.who, s.key, ok = c.identity(conn)
	if !ok {
		c.log.Warn("session refused: the key is not known any more")
		who := access.Identity{}
		if s.key != nil {
			who.Fingerprint = gossh.FingerprintSHA256(s.key)
		}
		c.refused(who, RefusedByKey, "the key is not known any more")
		status = s.fail(1, errors.New("your key is not known here any more"))
		return
	}
	s.log = c.log.WithField("by", s.who.Name)
	c.server.sessions.open.Add(1)
	c.server.sessions.total.Add(1)
	defer c.server.sessions.open.Add(-1)
	start := time.Now()
	var verb string
	allowed, over := c.whileAllowed(ctx, conn, s)
	defer over()
	verb, status = s.run(allowed, base)
	if s.cut.Load() != nil {
		status = 1 // which it was told
	}
	s.log.WithFields(logrus.Fields{"verb": verb, "status": status, "took": time.Since(start).Round(time.Millisecond)}).Info("session over")
}

// run returns what was done, without its arguments, which may be secrets, and
// the exit status.
func (s *session) run(ctx, base context.Context) (verb string, status int) {
	words, err := splitCommand(s.RawCommand())
	if err != nil {
		return "", s.fail(2, err)
	}
	svc, app, isGit, err := parseGit(words)
	kind := ofGit
	if !isGit {
		kind = ofCommand
		if len(words) > 0 {
			verb = words[0]
		}
	}
	done, full := s.server.share(s.who, kind)
	if full != nil {
		s.log.Warn("session refused: too much at a time with one key")
		s.refused(s.who, RefusedByLimit, "too many commands, pushes and fetches with one key")
		return verb, s.fail(1, full)
	}
	defer done()
	if !isGit {
		if s.server.Commands == nil {
			return verb, s.fail(2, errors.New("this server takes git's pushes and fetches only"))
		}
		return verb, s.command(ctx, words)
	}
	s.log = s.log.WithField("app", app)
	if err != nil {
		if svc == receivePack {
			return string(svc), s.fail(1, err)
		}
		return string(svc), s.fetched("", func() int { return s.fail(1, err) })
	}
	switch svc {
	case receivePack:
		return string(svc), s.audited(app, func(refs func(audit.Ref)) int { return s.receive(ctx, base, app, refs) })
	case uploadPack:
		return string(svc), s.fetched(app, func() int { return s.upload(ctx, app) })
	}
	return string(svc), s.fetched(app, func() int {
		return s.fail(1, errors.New("archives are not handed out\nclone the app and make one there: git archive"))
	})
}

// command runs a command that is not git's. Its output ends with its client, and
// so does its terminal.
func (s *session) command(ctx context.Context, words []string) int {
	c := Command{Args: words, Stdin: s, Stdout: s, Stderr: s.errOut()}
	if s.term != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		c.Stdin, c.Stdout = s.term.read(ctx, s, cancel, s.log), cooked{s, s.term}
		c.Terminal = &Terminal{Name: s.term.name, Sizes: s.term.sizes, Raw: s.term.raw.Store}
	}
	return s.server.Commands(ctx, s.who, c)
}

// errOut is where words about errors go.
func (s *session) errOut() io.Writer {
	if s.term != nil {
		return cooked{s.Stderr(), s.term}
	}
	return s.Stderr()
}

// fail tells the person what is wrong and returns the status.
func (s *session) fail(status int, err error) int {
	s.said = err.Error()
	sayError(s.errOut(), err)
	return status
}

func sayError(w io.Writer, err error) {
	fmt.Fprintf(w, "scotch: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n        "))
}

// may asks the keyring and the rules anew.
func (s *session) may(v access.Verb, app string) bool {
	who, ok := s.server.Keys.Find(s.key, s.RemoteAddr(), time.Now())
	return ok && access.May(who, v, app)
}

// denied says that an app is not there or not theirs: the same words for both,
// so that nobody learns which apps exist.
func (s *session) denied(app string) int {
	s.log.Warn("denied")
	return s.fail(1, fmt.Errorf("there is no app %q that your key may use\nask an admin of this server, or see what it may: list", app))
}

// upload serves clone, fetch and ls-remote.
func (s *session) upload(ctx context.Context, app string) int {
	if !s.may(access.VerbFetch, app) {
		return s.denied(app)
	}
	if !s.server.Repositories.Exists(app) {
		if s.may(access.VerbCreate, app) {
			return s.fail(1, fmt.Errorf("there is no app %q\nit is made by the first push to it, or by: create %s", app, app))
		}
		return s.denied(app)
	}
	if status := s.unsound(app); status != 0 {
		return status
	}
	t := &traffic{Reader: s, Writer: s}
	defer t.watch(s.server.idleTimeout(), func() { s.silent(errSilentFetch) })()
	g := &gitRun{
		service:  uploadPack,
		dir:      s.server.Repositories.Path(app),
		stdin:    t,
		stdout:   t,
		stderr:   s.Stderr(),
		protocol: s.protocol(),
		copying:  s.work,
	}
	status, err := s.server.Git.run(ctx, g)
	if context.Cause(ctx) == errSilentFetch {
		return s.fail(1, errSilentFetch)
	}
	if err != nil && ctx.Err() == nil {
		s.log.WithError(err).Error("upload-pack")
		return s.fail(1, errors.New("git could not be run; the server's log says why"))
	}
	return status
}

// silent ends the session of a client that says nothing.
func (s *session) silent(why error) {
	defer recovered(s.log)
	s.log.Infof("session ended: %s", firstLine(why.Error()))
	s.end(why)
}

// unsound tells, by a status other than 0, that git must not be run in a repository.
func (s *session) unsound(app string) int {
	if s.server.Sound == nil {
		return 0
	}
	err := s.server.Sound(app)
	if err == nil {
		return 0
	}
	s.log.WithError(err).Error("an unsound repository")
	return s.fail(1, err)
}

// protocol is the version of git's protocol that the client asked for, "" for
// the oldest. Only a value that protocolRE matches gets here.
func (s *session) protocol() string {
	for _, kv := range s.Environ() {
		if v, ok := strings.CutPrefix(kv, "GIT_PROTOCOL="); ok && protocolRE().MatchString(v) {
			return v
		}
	}
	return ""
}
