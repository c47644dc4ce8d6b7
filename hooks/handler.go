package hooks

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/sirupsen/logrus"

	"scotch/deployer"
)

// Push is one push under way, as the ssh server knows it.
type Push struct {
	App string
	By  string // name of the key that pushes
	// Key is its fingerprint, From the address that it pushes from.
	Key, From string
	Dir       string // the app's repository
	// May tells whether the pusher has a right ("push", "force") now; nil
	// grants all.
	May func(verb string) bool
	// Created tells that the app was made for this push.
	Created bool
	// Gone is closed when the client has left; nil: never.
	Gone <-chan struct{}
	// Settled is told what is answered for each ref, for a record of it: "live",
	// "stored", or with a reason "refused", and "failed" where a deploy did. nil: nobody is told.
	Settled func(u Update, result, reason string)
}

func (p *Push) settle(u Update, result, reason string) {
	if p.Settled != nil {
		p.Settled(u, result, reason)
	}
}

func (p *Push) may(verb string) bool { return p.May == nil || p.May(verb) }

// Deployer makes commits live.
type Deployer interface {
	// Deploy returns when the commit is live or has failed. When ctx ends
	// while the deploy waits for its turn, it is dropped; one under way is
	// finished. A *deployer.RefusedError is a deploy that was never begun.
	Deploy(ctx context.Context, r deployer.Request, out io.Writer) (deployer.Result, error)
}

// Repository answers what policy asks about an app's repository.
type Repository interface {
	Refs
	History
}

// Refs reads refs.
type Refs interface {
	// Ref returns the object name that a ref points to, "" if there is none.
	Ref(ctx context.Context, app, ref string) (string, error)
	// Head returns the ref that HEAD names; it need not exist.
	Head(ctx context.Context, app string) (ref string, err error)
}

// History looks at commits that the repository has, no longer in quarantine.
type History interface {
	// Kind is the type of an object: "commit", "tag", "tree" or "blob".
	Kind(ctx context.Context, app, id string) (string, error)
	// Complete tells whether all commits that id is made of are there. In a
	// shallow history some are missing.
	Complete(ctx context.Context, app, id string) (bool, error)
	// Descends tells whether old is an ancestor of id, or id itself.
	Descends(ctx context.Context, app, id, old string) (bool, error)
	// Deployable returns a *deployer.RefusedError where the commit's tree
	// holds what a deploy can't bring: submodules, Git LFS pointers, links
	// that leave the tree.
	Deployable(ctx context.Context, app, id string) error
}

// Handler is the server's half: it judges pushes and hands on what deploys.
// Its methods may be called at once by many.
type Handler struct {
	Repository Repository
	Deployer   Deployer
	// Branch is [git] branch of an app; set tells that a file names it. A
	// *deployer.RefusedError refuses all that is pushed to it.
	Branch func(app string) (branch string, set bool, err error)
	// Limits is asked in pre-receive, about the whole push; nil: none.
	Limits Limits
	// SSH is how a person reaches this server's commands, for hints:
	// "ssh -p 2222 scotch@apps.example.org".
	SSH string
	Log logrus.FieldLogger // nil: nothing is logged
}

// Limits judges a whole push while its objects are still in git's quarantine
// (git-receive-pack(1)): a refusal leaves nothing behind.
type Limits interface {
	// Allow returns a *deployer.RefusedError for a push that is too large.
	// quarantine is the directory with the new objects, "" where git brought none.
	Allow(ctx context.Context, app, quarantine string, updates []Update) error
}

// undelivered is how long an answer may wait for a pusher who has left.
const undelivered = 2 * time.Second

// Handle serves the hooks of one push until git and its hooks have closed their
// ends of conn, or the pusher has left; then it closes conn. It returns after
// the deploy has. ctx ends with the server; the context of a deploy ends as well
// when the pusher leaves.
func (h *Handler) Handle(ctx context.Context, conn net.Conn, p Push) {
	log := h.log().WithFields(logrus.Fields{"app": p.App, "by": p.By})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// The socket is read all the time, so that its end is seen while a deploy
	// waits in the queue: it says that git is gone.
	requests := make(chan *request)
	over := make(chan struct{})
	readErr := make(chan error, 1)
	go func() {
		defer close(requests)
		defer cancel()
		in := bufio.NewReader(conn)
		for {
			q, err := readRequest(in)
			if err != nil {
				readErr <- err
				return
			}
			select {
			case requests <- q:
			case <-over:
				readErr <- net.ErrClosed
				return
			}
		}
	}()
	left := make(chan struct{})
	go func() {
		defer close(left)
		select {
		case <-p.Gone:
			cancel()
		case <-ctx.Done():
		}
		// Whoever still reads gets what is queued, a dead line does not hold us.
		conn.SetWriteDeadline(time.Now().Add(undelivered))
	}()

	s := newStream(conn)
	push := &push{Handler: h, Push: p, log: log}
	for gone := false; !gone; {
		select {
		case q, ok := <-requests:
			if !ok {
				gone = true
				break
			}
			out := newPrinter(s, q.id)
			out.end(push.serve(ctx, q, out))
		case <-p.Gone:
			gone = true
		}
	}
	close(over)
	s.close()
	// A hook that can't get rid of its lines, since git does not read any more
	// once the pusher is gone, ends by this.
	conn.Close()
	if err := <-readErr; !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		log.WithError(err).Warn("reading from git's hooks")
	}
	<-left
}

func (h *Handler) log() logrus.FieldLogger {
	if h.Log != nil {
		return h.Log
	}
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

// push is one push between its hooks.
type push struct {
	*Handler
	Push
	log logrus.FieldLogger

	announced []Update        // what git told pre-receive of: all that was pushed
	appBranch string          // the ref that deploys
	settled   map[string]bool // refs that post-receive has nothing to say of
}

// serve answers one hook and returns its exit status.
func (p *push) serve(ctx context.Context, q *request, out *printer) int {
	switch q.hook {
	case PreReceive:
		return p.preReceive(ctx, q, out)
	case ProcReceive:
		p.procReceive(ctx, q, out)
	case PostReceive:
		p.postReceive(q, out)
	default:
		p.log.Warnf("unknown hook %q", q.hook)
		return 1
	}
	return 0
}

// procReceive judges each ref and deploys the one that deploys.
func (p *push) procReceive(ctx context.Context, q *request, out *printer) {
	p.settled = make(map[string]bool)
	if p.Created {
		out.note("made the app %s for this push", p.App)
	}
	for _, d := range p.judge(ctx, q) {
		if d.action == deploy {
			d = p.deploy(ctx, d, q, out)
		}
		for _, l := range d.hint {
			out.note("%s", l)
		}
		out.flush()
		switch d.action {
		case deploy, keep:
			p.settled[d.Ref] = true
			p.settle(d.Update, "live", "")
			out.s.verdict(q.id, "ok", d.Ref, "")
		case store:
			p.settle(d.Update, "stored", "")
			out.s.verdict(q.id, "fall-through", d.Ref, "")
		case refuse:
			result := "refused"
			if d.failed {
				result = "failed"
			}
			p.settle(d.Update, result, d.reason)
			p.log.WithField("ref", d.Ref).Infof("push refused: %s", d.reason)
			out.s.verdict(q.id, "ng", d.Ref, d.reason)
		}
	}
}
