package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"scotch/config"
	"scotch/deployer"
)

// Options is what a Git may be given besides.
type Options struct {
	// User owns the repositories, and git runs as this user (system mode).
	// Empty: all is the caller's.
	User string
	// FetchEnv is added to the environment of a fetch of [app] src: HOME,
	// GIT_SSH_COMMAND, proxies. nil adds nothing.
	FetchEnv func(app string) []string
	// Keys holds the apps' deploy keys and the host keys that are pinned for
	// them. Empty: there are none, and ssh does as its user's files say.
	Keys string
	// Run is for what exists during a fetch: the sockets of agents. It goes with Keys.
	Run string
	// Timeout ends a fetch of [app] src; 0 means 10 minutes.
	Timeout time.Duration
	// Limits of what is taken in and deployed. 0: none.
	Limits Limits
}

// Limits are what a push, a fetch and the source of a deploy may hold, and what
// each process of git may take for it.
type Limits struct {
	Push    int64 // bytes of a fetch's pack
	Objects int   // in a fetch's pack

	Refs int // branches and tags of a repository

	Object int64 // bytes of one object, unpacked
	Files  int   // files and directories of a source
	Source int64 // bytes of a source's files, unpacked

	Memory int64         // bytes that it may write to in memory
	CPU    time.Duration // of processor time
}

// Git is the repositories below one directory. Make one with New; its methods
// may be called at once by many.
type Git struct {
	root   string
	runner deployer.Runner
	o      Options

	// passed remembers trees that Deployable has passed, by commit, so that a
	// push does not look through the same tree twice.
	mu     sync.Mutex
	passed map[string]bool

	keyMu sync.Mutex // the files below Options.Keys
}

// New keeps repositories as root/APP.git. run starts git.
func New(root string, run deployer.Runner, o Options) *Git {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	return &Git{root: root, runner: run, o: o, passed: make(map[string]bool)}
}

// Path is the repository's directory, also where it does not exist.
func (g *Git) Path(app string) string { return filepath.Join(g.root, app+".git") }

// Exists tells whether the app has a repository.
func (g *Git) Exists(app string) bool {
	if config.ValidName(app) != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(g.Path(app), "HEAD"))
	return err == nil
}

// largeObject is where go-git stops to hold objects in memory, in bytes.
const largeObject = 1 << 20

// open opens the repository for reading. It is opened anew each time: packs and
// refs come and go under other processes' hands.
func (g *Git) open(app string) (*gogit.Repository, error) {
	if err := config.ValidName(app); err != nil {
		return nil, err
	}
	s := filesystem.NewStorageWithOptions(osfs.New(g.Path(app)), cache.NewObjectLRU(4*cache.MiByte),
		filesystem.Options{LargeObjectThreshold: largeObject})
	r, err := gogit.Open(s, nil)
	if errors.Is(err, gogit.ErrRepositoryNotExists) {
		return nil, fmt.Errorf("app %q has no repository", app)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the repository of %q: %w", app, err)
	}
	return r, nil
}

// settings are the configuration of every git that is run, as it is given by
// GIT_CONFIG_COUNT (git-config(1)): a repository's own file has no say in them.
func settings() [][2]string {
	return [][2]string{
		{"core.fsync", "all"}, // by default neither loose objects nor refs are synced
		{"core.hooksPath", "/dev/null"},
		{"core.fsmonitor", "false"},
		{"core.alternateRefsCommand", "true"}, // the program of that name, which does nothing
		{"gc.auto", "0"},                      // a gc in the middle of an export breaks readers
		{"maintenance.auto", "false"},
		{"tar.umask", "0022"},
		{"core.bigFileThreshold", "32m"}, // larger ones are streamed, not held in memory
		{"transfer.fsckObjects", "true"},
		// Real histories hold these (old tools wrote them), and they harm nobody.
		{"fetch.fsck.zeroPaddedFilemode", "ignore"},
		{"fetch.fsck.badTimezone", "ignore"},
		{"fetch.fsck.missingSpaceBeforeDate", "ignore"},
	}
}

// environment is the whole environment of a git.
func environment() []string { return environmentOf(settings()) }

// environmentOf is environment with other settings.
func environmentOf(settings [][2]string) []string {
	return set([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/nonexistent",
		"LC_ALL=C.UTF-8",
		"LANGUAGE=en", // messages are read by this package
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_NO_REPLACE_OBJECTS=1",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_ALLOW_PROTOCOL=file:git:http:https:ssh",
	}, settings...)
}

// set adds settings to an environment: the numbered pairs that git takes beside its
// files (git-config(1), GIT_CONFIG_COUNT). Of a key that has one value the last counts.
func set(env []string, settings ...[2]string) []string {
	const count = "GIT_CONFIG_COUNT="
	n := 0
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		text, ok := strings.CutPrefix(v, count)
		if ok {
			n, _ = strconv.Atoi(text) // set wrote it
		}
		return ok
	})
	for _, kv := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", n, kv[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, kv[1]))
		n++
	}
	return append(env, fmt.Sprintf("%s%d", count, n))
}

// command is a git in the app's repository. --git-dir names it, so that git
// neither searches for one nor asks who owns it.
func (g *Git) command(app string, args ...string) (deployer.Command, error) {
	if err := g.Sound(app); err != nil {
		return deployer.Command{}, err
	}
	return deployer.Command{
		Args: append([]string{"git", "--git-dir=" + g.Path(app)}, args...),
		Dir:  "/",
		Env:  environment(),
		User: g.o.User,
		Each: deployer.ProcessLimits{Memory: g.o.Limits.Memory, CPU: g.o.Limits.CPU},
	}, nil
}

// gitError is a git that failed, with what it said.
type gitError struct {
	verb   string
	said   string // last line of standard error
	all    string // standard error, as much as was kept of it
	status int    // exit status, -1 where there is none
	limit  string // which limit it met, and what to do, "" for none
	err    error
}

func (e *gitError) Error() string {
	if e.limit != "" {
		return fmt.Sprintf("git %s: %s", e.verb, e.limit)
	}
	if e.said == "" {
		return fmt.Sprintf("git %s: %v", e.verb, e.err)
	}
	return fmt.Sprintf("git %s: %s", e.verb, e.said)
}

func (e *gitError) Unwrap() error { return e.err }

func failed(c deployer.Command, verb string, stderr *tail, err error) error {
	if err == nil {
		return nil
	}
	e := &gitError{verb: verb, said: stderr.last(), all: stderr.String(), status: -1, err: err}
	var exit *deployer.ExitError
	if !errors.As(err, &exit) {
		return e
	}
	// Where a limit ended it, its status says nothing.
	if e.limit = e.met(c.Each, exit.Signal); e.limit == "" {
		e.status = exit.Status
	}
	return e
}

// status is the exit status that a failed git left, -1 for other errors.
func status(err error) int {
	var e *gitError
	if errors.As(err, &e) {
		return e.status
	}
	return -1
}

// run runs a git and returns what it wrote, at most maxOutput bytes of it.
func (g *Git) run(ctx context.Context, app string, args ...string) (string, error) {
	c, err := g.command(app, args...)
	if err != nil {
		return "", err
	}
	var out, stderr tail
	c.Stdout, c.Stderr = &out, &stderr
	err = g.runner.Run(ctx, c)
	return strings.TrimSuffix(out.String(), "\n"), failed(c, args[0], &stderr, err)
}

// stream runs a git whose output read takes as it comes; the git is ended when
// read returns early. in is its standard input, nil for none.
func (g *Git) stream(ctx context.Context, app string, in io.Reader, read func(io.Reader) error, args ...string) error {
	c, err := g.command(app, args...)
	if err != nil {
		return err
	}
	c.Stdin = in
	return g.streamOf(ctx, c, args[0], read)
}

func (g *Git) streamOf(ctx context.Context, c deployer.Command, verb string, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	var stderr tail
	c.Stdout, c.Stderr = pw, &stderr
	ended := make(chan error, 1)
	go func() {
		err := failed(c, verb, &stderr, g.runner.Run(ctx, c))
		pw.CloseWithError(err) // nil reads as the end
		ended <- err
	}()
	readErr := read(pr)
	if readErr == nil {
		_, readErr = io.Copy(io.Discard, pr)
	}
	if readErr != nil {
		cancel()
	}
	pr.CloseWithError(readErr)
	err := <-ended
	var own *gitError
	if readErr != nil && !errors.As(readErr, &own) {
		return readErr
	}
	return err
}

// tail keeps the end of what is written to it, at most maxOutput bytes.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxOutput = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - maxOutput; n > 0 {
		t.b = t.b[:copy(t.b, t.b[n:])]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// last is the line that says why: git's last "fatal:" or "error:", else its
// last line.
func (t *tail) last() string {
	var last, why string
	for l := range bytes.FieldsFuncSeq([]byte(t.String()), func(r rune) bool { return r == '\n' || r == '\r' }) {
		s := strings.TrimSpace(string(l))
		if s == "" {
			continue
		}
		last = s
		for _, p := range []string{"fatal: ", "error: "} {
			if rest, ok := strings.CutPrefix(s, p); ok {
				why = rest
			}
		}
	}
	if why != "" {
		last = why
	}
	return deployer.Neutral(last)
}
