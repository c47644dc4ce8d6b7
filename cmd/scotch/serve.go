package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/control"
	"scotch/deployer/host"
	"scotch/gitserver"
	"scotch/gitserver/access"
	"scotch/hooks"
)

// maxRefs bounds how many refs one push may name.
const maxRefs = hooks.MaxRefs(1000)

// pushLimits are what is looked at while a push's objects are in quarantine.
type pushLimits struct{ *plugins }

// Allow implements hooks.Limits.
func (l pushLimits) Allow(ctx context.Context, app, quarantine string, updates []hooks.Update) error {
	if err := maxRefs.Allow(ctx, app, quarantine, updates); err != nil {
		return err
	}
	if err := l.git.CheckRefs(ctx, app, hooks.Growth(updates)); err != nil {
		return err
	}
	return l.git.CheckQuarantine(ctx, app, quarantine)
}

// server is a running scotch: what commands work on.
type server struct {
	site     *config.Site
	deployer *deployer.Deployer
	keys     *access.Keyring
	log      logrus.FieldLogger
	seen     *observers // nil where no server runs
}

func (s *session) addServe(root *cobra.Command) {
	var o standaloneOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "the server: ssh, deploys, the apps' processes",
		Long: `Runs the server until it gets a signal. SIGTERM ends the server alone: apps go on,
and the next start takes them over. With --standalone, SIGINT (Ctrl-C) ends it
whole, nginx and apps too.

--standalone keeps everything below one directory and needs no root: the site
file DIR/scotch.cfg (written once, with the flags given), DIR/apps-enabled,
DIR/repositories, instances, data, logs and run, its own nginx and uWSGI. The
public keys in ~/.ssh/*.pub are admins'.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.listenSet, o.httpSet = cmd.Flags().Changed("listen"), cmd.Flags().Changed("http")
			return s.serve(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.dir, "standalone", "", "keep everything below `DIR`, without root")
	cmd.Flags().StringVar(&o.listen, "listen", "127.0.0.1:2222", "`ADDR` of ssh, with --standalone")
	cmd.Flags().StringVar(&o.http, "http", "127.0.0.1:8080", "`ADDR` of the apps, with --standalone")
	s.add(root, cmd, rights{here: true})
}

// openSite reads the site's configuration: the files given, or the standard ones.
func openSite(files []string) (*config.Site, error) {
	plugins, standalone := pluginDefaults()
	site, err := config.Open(config.Options{Files: files, Plugins: plugins, Standalone: standalone})
	if err != nil {
		return nil, err
	}
	site.Commands = sshCommand(site)
	return site, nil
}

// serve runs the server until ctx is done, and then ends it in order.
func (s *session) serve(ctx context.Context, o standaloneOptions) error {
	if err := keepInherited(); err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(s.stderr)
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true, TimestampFormat: time.RFC3339})
	manager := newNotifier()
	if s.debug {
		log.SetLevel(logrus.DebugLevel)
	}
	files := s.files
	if o.dir != "" {
		if len(files) > 0 {
			return usageError{errors.New("--standalone brings its own site file: it does not go with -c")}
		}
		file, err := o.prepare(s.stdout)
		if err != nil {
			return err
		}
		files = []string{file}
	} else if o.listenSet || o.httpSet {
		return usageError{errors.New("--listen and --http go with --standalone\nelsewhere the site file says it: [server] listen, [nginx] listen")}
	}
	site, err := openSite(files)
	if err != nil {
		return err
	}
	for _, e := range site.Mistakes {
		log.Errorf("no app can be deployed: %v", e)
	}
	if dir := filepath.Dir(site.Server.HostKey); !isDir(dir) {
		return fmt.Errorf("there is no %q, where [server] host_key is\nmake it; to try scotch without root: scotch serve --standalone DIR", dir)
	}
	// [site] umask is for the processes that are started. What the server makes
	// itself has the mode that it says, such as [site] dirmode.
	syscall.Umask(0o022)
	unlock, err := lockSite(site)
	if err != nil {
		return err
	}
	defer unlock()

	p, err := newPlugins(site, log)
	if err != nil {
		return err
	}
	if p.runner.box != nil {
		if err := p.runner.box.Try(); err != nil {
			log.Warnf("builds and apps are confined by their users and modes alone: %v", err)
		}
	}
	seen, err := newObservers(site, p.runner, log)
	if err != nil {
		return err
	}
	defer seen.close()
	keys := access.OpenKeyring(site.Server.AuthorizedKeys, ownKeys(site)...)
	options := p.options(site, log)
	options.Observer, options.Allowed = seen, stillMay(keys)
	srv := &server{site: site, log: log, deployer: deployer.New(options), seen: seen, keys: keys}
	if err := srv.deployer.Check(ctx); err != nil {
		return err
	}
	srv.keys.Report = func(err error) { log.WithField("file", site.Server.AuthorizedKeys).Errorf("%v", err) }
	// The doors are opened first: an address that is taken stops the start
	// before anything is touched. They are answered at once all are ready.
	sshd, listener, fingerprint, err := srv.sshServer(p)
	if err != nil {
		return err
	}
	defer listener.Close()
	numbers, err := seen.count(site, srv.deployer, sshd)
	if err != nil {
		return err
	}
	socket, err := control.Listen(filepath.Join(site.Paths.Run, socketName))
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := srv.deployer.Start(ctx); err != nil {
		// What served before serves on, whatever keeps this server from starting.
		return errors.Join(err, srv.stop(p, srv.endsWhole(ctx)))
	}
	words := lastWords(site)
	s.lastWords.Store(&words)
	srv.greet(s.stdout, fingerprint, numbers)
	manager.tell("READY=1")

	calls := control.NewServer(srv.call)
	var doors errgroup.Group
	doors.Go(func() error { return sshd.Serve(ctx, listener) })
	doors.Go(func() error { return calls.Serve(ctx, socket) })
	doors.Go(func() error { return seen.serve(ctx, numbers) })
	failed := make(chan error, 1)
	go func() { failed <- doors.Wait() }()
	defer manager.keepAlive(ctx, filepath.Join(site.Paths.Run, socketName), srv.deployer, log)()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	return errors.Join(err, srv.end(ctx, sshd, calls, p))
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// lastWords says what goes on when the server is ended at once.
func lastWords(site *config.Site) string {
	if site.Mode != "standalone" {
		return "scotch: ended at once; the apps go on, and the next start takes them over"
	}
	return fmt.Sprintf("scotch: ended at once; nginx and apps may go on\n        to end them too: %s, and Ctrl-C once", howToStart(site))
}

// endsWhole tells whether the end of ctx is one of nginx and the apps too.
func (s *server) endsWhole(ctx context.Context) bool {
	sig, ok := errors.AsType[*interrupted](context.Cause(ctx))
	return ok && s.site.Mode == "standalone" && sig.signal == os.Interrupt
}

// end stops the server: nothing new begins, deploys under way are finished up
// to [server] stop_timeout. After SIGINT in standalone mode apps end too.
func (s *server) end(cause context.Context, sshd *gitserver.Server, calls *control.Server, p *plugins) error {
	whole := s.endsWhole(cause)
	s.log.Info("stopping; deploys under way are finished first, a second signal ends it at once")
	ctx, cancel := context.WithTimeout(context.Background(), s.site.Server.StopTimeout)
	defer cancel()
	s.deployer.Close(ctx)
	err := s.closeDoors(ctx, sshd, calls)
	err = errors.Join(err, s.stop(p, whole))
	if whole {
		s.log.Info("stopped, nginx and the apps too")
	} else {
		s.log.Info("stopped; the apps go on")
	}
	return err
}

// lastWordsTime is what clients have, once the deploys are done, to read what they were told.
const lastWordsTime = 5 * time.Second

// closeDoors ends sessions and calls once the deploys are done: first by themselves,
// as the last words are read, and then from here, so that nobody writes any longer to a
// client that does not read. Pushes that git has in have until ctx is done.
func (s *server) closeDoors(ctx context.Context, sshd *gitserver.Server, calls *control.Server) error {
	deadline := time.Now().Add(lastWordsTime)
	called, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if end, ok := ctx.Deadline(); ok && end.After(deadline) {
		deadline = end
	}
	pushed, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	closed := make(chan error, 1)
	go func() {
		var doors errgroup.Group
		doors.Go(func() error { calls.Shutdown(called); return nil })
		doors.Go(func() error { return sshd.Shutdown(pushed) })
		closed <- doors.Wait()
	}()
	select {
	case err := <-closed:
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	case <-time.After(time.Until(deadline) + lastWordsTime):
		s.log.Error("a session does not end, and ends with the server")
	}
	return nil
}

// stop ends what runs below the server where it is to end whole.
func (s *server) stop(p *plugins, whole bool) error {
	if !whole {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s.deployer.Close(ctx)
	err := s.deployer.StopAll(ctx)
	_, strays := p.runner.Strays(ctx, nil)
	return errors.Join(err, strays)
}

// listens tells whether a server listens for commands of this machine.
func listens(site *config.Site) bool {
	conn, err := net.DialTimeout("unix", filepath.Join(site.Paths.Run, socketName), time.Second)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// isServing tells whether a server has the lock of a site. It looks at the
// kernel's list (proc_locks(5)): trying would keep a server that starts from it.
func isServing(site *config.Site) bool {
	fi, err := os.Stat(filepath.Join(site.Paths.Run, lockName))
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	locks, err := os.ReadFile("/proc/locks")
	return ok && err == nil && regexp.MustCompile(fmt.Sprintf(`(?m)^[0-9]+: FLOCK .*:%d 0 EOF$`, st.Ino)).Match(locks)
}

const lockName = "server.lock"

// lockSite keeps two servers from working on the same files.
func lockSite(site *config.Site) (unlock func(), err error) {
	if err := new(deployer.Files).MkdirAll("make-run", site.Paths.Run, site.DirMode); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(site.Paths.Run, lockName))
	got, err := lock.TryLock()
	if err != nil {
		if errors.Is(err, fs.ErrPermission) && site.Mode != "standalone" {
			err = fmt.Errorf("%w\nthis machine's server is root's; to try scotch without root: scotch serve --standalone DIR", err)
		}
		return nil, fmt.Errorf("locking %q: %w", lock.Path(), err)
	}
	if !got {
		if !listens(site) {
			return nil, fmt.Errorf("a server is stopping on %q, or just starting\na stop finishes the deploys under way first, for %s at most ([server] stop_timeout); try again in a moment",
				site.Paths.Run, site.Server.StopTimeout)
		}
		return nil, fmt.Errorf("a server is running already on %q\nstop it first, or give this one another directory", site.Paths.Run)
	}
	return func() { lock.Unlock() }, nil
}

// sshServer makes the ssh server and opens its address.
func (s *server) sshServer(p *plugins) (*gitserver.Server, net.Listener, string, error) {
	site := s.site
	key, fingerprint, err := gitserver.LoadOrCreateHostKey(site.Server.HostKey)
	if err != nil {
		return nil, nil, "", err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, "", err
	}
	git := gitserver.GitOptions{Dir: filepath.Join(site.Paths.Run, "git"), Mark: p.runner.Mark,
		MaxPush: site.Server.MaxPush, MaxObjects: int64(site.Server.MaxObjects),
		Limits: gitserver.Limits{Memory: site.Server.PushMemory, CPU: site.Server.PushCPU},
	}
	if git.Credential, err = p.gitCredential(site); err != nil {
		return nil, nil, "", err
	}
	if err := git.Prepare(self); err != nil {
		return nil, nil, "", err
	}
	if err := new(deployer.Files).MkdirAll("make-repositories", site.Paths.Repositories, site.DirMode); err != nil {
		return nil, nil, "", err
	}
	handler := &hooks.Handler{
		Repository: p.git, Deployer: s.deployer, SSH: sshCommand(site), Log: s.log, Limits: pushLimits{p},
		Branch: s.deployer.ConfiguredBranch,
	}
	l, err := net.Listen("tcp", site.Server.Listen)
	if err != nil {
		return nil, nil, "", fmt.Errorf("listening for ssh at %q: %w\nanother program has that address, or it is not this machine's; [server] listen says which to take", site.Server.Listen, err)
	}
	limits := site.Server
	penalty := limits.Penalty
	if penalty == 0 {
		penalty = -1 // none, where gitserver's zero is its default
	}
	return &gitserver.Server{
		MaxConnections: limits.MaxConnections, MaxPerAddress: limits.MaxPerAddress, MaxLogins: limits.MaxLogins, MaxSessions: limits.MaxSessions, MaxPerKey: limits.MaxPerKey,
		LoginTimeout: limits.LoginTimeout, IdleTimeout: limits.IdleTimeout, KeepAlive: limits.KeepAlive,
		LongestPenalty: penalty, Exempt: limits.PenaltyExempt,
		HostKey: key, Keys: s.keys, Repositories: p.git, Git: git, Pushes: handler, Commands: s.command, Log: s.log, Audit: s.seen,
		Room: s.deployer.Room, Recover: p.git.RemoveQuarantines, Sound: p.git.Sound,
		CreateApp: func(ctx context.Context, app, by string) error {
			err := s.deployer.Create(ctx, app, false)
			if hint := hintOf(err); hint != "" {
				return fmt.Errorf("%w\n%s", err, hint)
			}
			return err
		},
	}, l, fingerprint, nil
}

// command runs a command of an ssh session.
func (s *server) command(ctx context.Context, who access.Identity, c gitserver.Command) int {
	run := &session{who: who, stdin: c.Stdin, stdout: c.Stdout, stderr: c.Stderr, term: (*deployer.Terminal)(c.Terminal), screen: c.Terminal != nil, srv: s}
	return run.execute(ctx, append([]string{}, c.Args...))
}

// call runs a command that came over the control socket.
func (s *server) call(ctx context.Context, c control.Call, stdin io.Reader, stdout, stderr io.Writer, term *control.Terminal) int {
	if w := otherFiles(c.Files, s.site.Files); w != "" {
		fmt.Fprintln(stderr, w)
	}
	run := &session{who: local(), stdin: stdin, stdout: stdout, stderr: stderr, term: (*deployer.Terminal)(term), screen: c.Screen, srv: s}
	return run.execute(ctx, append([]string{}, c.Args...))
}

// sshCommand is how a person reaches this server's commands.
func sshCommand(site *config.Site) string {
	host, port := sshAddress(site)
	if port == "22" {
		return "ssh scotch@" + host
	}
	return fmt.Sprintf("ssh -p %s scotch@%s", port, host)
}

// sshAddress is the server's address as a person would write it.
func sshAddress(site *config.Site) (host, port string) {
	host, port, err := net.SplitHostPort(site.Server.Listen)
	if err != nil {
		return site.Server.Listen, "22"
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = site.Domain
		if name, err := os.Hostname(); host == "" && err == nil {
			host = name
		}
	}
	return host, port
}

// remote is the URL of an app's git remote.
func (s *server) remote(app string) string {
	host, port := sshAddress(s.site)
	if port == "22" {
		return fmt.Sprintf("ssh://scotch@%s/%s", host, app)
	}
	return fmt.Sprintf("ssh://scotch@%s/%s", net.JoinHostPort(host, port), app)
}

// address puts this server's address into a text about SERVER:2222, which stays
// where no server runs.
func (s *server) address(text string) string {
	if s == nil || s.site == nil {
		return text
	}
	ssh := strings.TrimPrefix(sshCommand(s.site), "ssh ")
	return strings.NewReplacer("-p 2222 scotch@SERVER", ssh, "ssh://scotch@SERVER:2222/APP", s.remote("APP")).Replace(text)
}

func (s *server) greet(w io.Writer, fingerprint string, numbers net.Listener) {
	fmt.Fprintf(w, "scotch %s\n  git remote   %s\n  commands     %s help\n  host key     %s\n", version(), s.remote("NAME"), sshCommand(s.site), fingerprint)
	if numbers != nil {
		fmt.Fprintf(w, "  metrics      http://%s/metrics\n", numbers.Addr())
	}
	if s.site.Mode == "standalone" {
		fmt.Fprintf(w, "  apps         %s\n", s.deployer.URLPattern())
		fmt.Fprintln(w, "  all runs as the user who started this: nothing here isolates apps from each other or from you")
		if dir := host.OpenToOthers(s.site); dir != "" {
			fmt.Fprintf(w, "  other users of this machine may read what is in %[1]s: chmod 700 %[1]s\n", dir)
		}
	}
	if keys, err := s.keys.List(); err == nil && len(keys) == 0 {
		fmt.Fprintf(w, "  nobody may connect yet: make a key (ssh-keygen -t ed25519), or let one in: %s keys add NAME FILE --role admin\n", localCommand(s.site))
	}
	fmt.Fprintln(w, "ready")
}
