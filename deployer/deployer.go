package deployer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"scotch/config"
)

// Options is what a Deployer is made of.
type Options struct {
	Site         *config.Site
	Source       Source
	Repositories Repositories
	Toolchain    Toolchain
	AppServer    AppServer
	WebServer    WebServer
	Runner       Runner
	Files        *Files // nil: the plain ones
	Log          logrus.FieldLogger
	// SSH is how a person reaches this server's commands, for hints:
	// "ssh -p 2222 scotch@apps.example.org".
	SSH string
	// Allowed is asked before an operation runs [app] release, and again just before
	// its switch: whoever asked for it may have lost the right meanwhile. Its error
	// refuses the operation. nil: nobody loses any.
	Allowed func(by Actor, app string) error
	// Observer is told of deploys and other switches; nil: nobody is.
	Observer Observer
	// BuildEnv is added to the environment of builds, before [build_env].
	BuildEnv []config.Var
}

// Deployer makes commits live and keeps them so. Make one with New; without
// Start it only reads (list, releases). Its methods may be called at once by
// many.
type Deployer struct {
	Options
	site  *config.Site
	files *Files
	log   logrus.FieldLogger

	queue queue
	slots *semaphore.Weighted // deploys at a time on this server
	wide  int                 // how many
	// webLock holds one who renders, tests and switches the web server's files.
	webLock   chan struct{}
	webHolder atomic.Pointer[webHolder]
	// gcLock holds the one repository that is packed anew.
	gcLock chan struct{}

	// ctx ends with the server, cancelled by Close; what runs under it is
	// counted by work, what watches processes by watchers.
	stop context.CancelCauseFunc
	ctx  context.Context
	// open ends before that, when nothing new may begin: what waits is refused.
	shut     context.CancelCauseFunc
	open     context.Context
	work     sync.WaitGroup
	watchers sync.WaitGroup
	// lastOfWork is the constant; a test has no patience.
	lastOfWork time.Duration

	restarts atomic.Int64 // of apps' processes that ended by themselves

	mu       sync.Mutex
	started  bool
	closing  bool
	apps     map[string]*appState
	web      *member // the web server, where scotch runs it
	claims   map[string]map[claim]bool
	claimsOK bool
	runsLock sync.Mutex // numbers of detached commands are given one by one
}

// appState is what the server knows of an app besides what is on disk.
type appState struct {
	live   *member
	damage error // of what is live, found at the start
	// displaced is why it is not on the web though it is live, "" where it is.
	displaced string
	starting  bool                // after the server's own start, its turn has not come
	retiring  map[string]*member  // by instance
	vigil     *vigil              // over what went live last
	turn      *turn               // of who has it
	op        *operation          // under way, once it has its slot
	runs      map[int]detachedRun // detached one-off commands under way
	inUse     map[string]int      // instances that one-off commands run in: how many
	guests    map[*guest]bool     // what a destroy ends and waits for
	listed    listed              // what the last list showed
}

// errClosing is the cause of contexts that end because the server stops.
var errClosing = errors.New("the server is stopping")

// New returns a deployer that only reads until Start.
func New(o Options) *Deployer {
	d := &Deployer{Options: o, site: o.Site, files: o.Files, log: o.Log, apps: map[string]*appState{}}
	if d.files == nil {
		d.files = new(Files)
	}
	n := o.Site.Server.Deploys
	if n <= 0 {
		n = runtime.NumCPU()
	}
	d.wide = n
	d.slots = semaphore.NewWeighted(int64(n))
	d.webLock, d.gcLock = make(chan struct{}, 1), make(chan struct{}, 1)
	d.lastOfWork = lastOfWork
	d.queue.lines = map[string][]*ticket{}
	d.ctx, d.stop = context.WithCancelCause(context.Background())
	d.open, d.shut = context.WithCancelCause(context.Background())
	return d
}

// state returns the state of an app, made when missing. The caller holds d.mu.
func (d *Deployer) state(app string) *appState {
	s := d.apps[app]
	if s == nil {
		s = &appState{retiring: map[string]*member{}}
		d.apps[app] = s
	}
	return s
}

// lastOfWork is how long the server's stop waits for the end of what it has cancelled:
// a build that ignores its signals gets 10 s of it. What is not over by then is for
// the next start to tidy up, as after a crash.
const lastOfWork = 20 * time.Second

// Close ends the server's part: nothing new begins, what waits for its turn is
// refused, deploys under way are waited for until ctx is done and then cancelled, and
// waited for no longer than lastOfWork. Apps go on; the next server adopts them.
func (d *Deployer) Close(ctx context.Context) {
	d.mu.Lock()
	d.closing = true
	d.mu.Unlock()
	d.shut(errClosing)
	idle, over := make(chan struct{}), make(chan struct{})
	go func() {
		d.work.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	d.stop(errClosing)
	late := time.NewTimer(d.lastOfWork)
	defer late.Stop()
	go func() {
		<-idle
		d.watchers.Wait() // begun by none but work
		close(over)
	}()
	select {
	case <-over:
	case <-late.C:
		d.log.Error("something under way does not end; the next start tidies up behind it")
	}
}

// StopAll ends every process of every app, and the web server where scotch
// runs it. Call it after Close. Stopped apps are not marked: the next start
// brings them back.
func (d *Deployer) StopAll(ctx context.Context) error {
	d.mu.Lock()
	var all []*member
	var runs []Running
	for _, s := range d.apps {
		if s.live != nil {
			all = append(all, s.live)
		}
		for _, m := range s.retiring {
			all = append(all, m)
		}
		if s.vigil != nil && s.vigil.old != nil {
			all = append(all, s.vigil.old)
		}
		for _, r := range s.runs {
			runs = append(runs, r.running)
		}
	}
	web := d.web
	d.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, len(all)+1+len(runs))
	for i, r := range runs {
		wg.Go(func() { errs[len(all)+1+i] = r.Stop(ctx) })
	}
	if web != nil {
		errs[len(all)] = web.end(ctx)
	}
	for i, m := range all {
		wg.Go(func() { errs[i] = m.end(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// begin counts a piece of work that Close waits for.
func (d *Deployer) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started || d.closing {
		return refusedClosing()
	}
	d.work.Add(1)
	return nil
}

func refusedClosing() error {
	return &RefusedError{Reason: errClosing.Error(), Hint: "try again in a moment"}
}

// whileOpen is ctx until the server stops. why tells what a wait under it that
// failed with err is answered.
func (d *Deployer) whileOpen(ctx context.Context) (open context.Context, why func(err error) error, release func()) {
	open, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(d.open, func() { cancel(errClosing) })
	why = func(err error) error {
		if d.open.Err() != nil {
			return refusedClosing()
		}
		if err != nil {
			return fmt.Errorf("dropped while it waited for its turn: %w", context.Cause(open))
		}
		return nil
	}
	return open, why, func() { unhook(); cancel(nil) }
}

// enter waits for the app's turn, as queue.enter does, and not beyond the end of
// the server: what has its turn by then is not begun. Nothing is, of an app whose
// destroy failed.
func (d *Deployer) enter(ctx context.Context, app, what, by string, waiting func(ahead *ticket)) (leave func(), err error) {
	if leave, err = d.enterAny(ctx, app, what, by, waiting); err != nil {
		return nil, err
	}
	if err := d.spared(app); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// enterAny is enter for what may be done with an app whose destroy failed.
func (d *Deployer) enterAny(ctx context.Context, app, what, by string, waiting func(ahead *ticket)) (leave func(), err error) {
	open, why, release := d.whileOpen(ctx)
	defer release()
	leave, err = d.queue.enter(open, app, what, by, waiting)
	if reason := why(err); reason != nil {
		if err == nil {
			leave()
		}
		return nil, reason
	}
	return leave, nil
}

// NoAppError says that there is no such app, or that it was never deployed.
type NoAppError struct{ App, What string }

func (e *NoAppError) Error() string { return fmt.Sprintf("app %q %s", e.App, e.What) }

// app loads an app's configuration as it is now, for what is live.
func (d *Deployer) app(name string) (*config.App, error) {
	a, err := d.site.App(name, config.AppOptions{})
	return a, d.ofApp(name, err)
}

// known tells whether there is such an app, also where its file has mistakes or is
// gone: what only looks at what is there needs none of its values.
func (d *Deployer) known(name string) error {
	_, err := d.app(name)
	if errors.As(err, new(config.Errors)) || errors.As(err, new(*fileGoneError)) {
		return nil
	}
	return err
}

// logPath is where the processes of an instance write.
func (d *Deployer) logPath(app, id string) string {
	return filepath.Join(d.site.Paths.Logs, app, id+".log")
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
