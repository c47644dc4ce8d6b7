package gitserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
	"github.com/sirupsen/logrus"
	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// session is one command on one channel.
type session struct {
	ssh.Session
	server *Server
	who    access.Identity
	key    gossh.PublicKey
	log    logrus.FieldLogger
	work   *sync.WaitGroup // of the channel: what must end before the channel counts as done
}

// session does what a client asks for on a channel and sends the exit status.
// ctx ends when the channel is closed, base with the server.
func (c *connection) session(ctx, base context.Context, conn *gossh.ServerConn, sess ssh.Session, work *sync.WaitGroup) {
	defer c.working(conn, -1)
	status := 1
	defer func() { sess.Exit(status) }()
	s := &session{Session: sess, server: c.server, log: c.log, work: work}
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
		status = s.fail(1, errors.New("your key is not known here any more"))
		return
	}
	s.log = c.log.WithField("by", s.who.Name)
	start := time.Now()
	var verb string
	verb, status = s.run(ctx, base)
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
	if !isGit {
		if len(words) > 0 {
			verb = words[0]
		}
		if s.server.Commands == nil {
			return verb, s.fail(2, errors.New("this server takes git's pushes and fetches only"))
		}
		return verb, s.server.Commands(ctx, s.who, Command{Args: words, Stdin: s, Stdout: s, Stderr: s.Stderr()})
	}
	s.log = s.log.WithField("app", app)
	if err != nil {
		return string(svc), s.fail(1, err)
	}
	switch svc {
	case receivePack:
		return string(svc), s.receive(ctx, base, app)
	case uploadPack:
		return string(svc), s.upload(ctx, app)
	}
	return string(svc), s.fail(1, errors.New("archives are not handed out\nclone the app and make one there: git archive"))
}

// fail tells the person what is wrong and returns the status.
func (s *session) fail(status int, err error) int {
	fmt.Fprintf(s.Stderr(), "scotch: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n        "))
	return status
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
	g := &gitRun{
		service:  uploadPack,
		dir:      s.server.Repositories.Path(app),
		stdin:    s,
		stdout:   s,
		stderr:   s.Stderr(),
		protocol: s.protocol(),
		copying:  s.work,
	}
	status, err := s.server.Git.run(ctx, g)
	if err != nil && ctx.Err() == nil {
		s.log.WithError(err).Error("upload-pack")
		return s.fail(1, errors.New("git could not be run; the server's log says why"))
	}
	return status
}

// protocol is the version of git's protocol that the client asked for, "" for
// the oldest. Only a value that protocolRE matches gets here.
func (s *session) protocol() string {
	for _, kv := range s.Environ() {
		if v, ok := strings.CutPrefix(kv, "GIT_PROTOCOL="); ok && protocolRE.MatchString(v) {
			return v
		}
	}
	return ""
}
