package deployer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"scotch/config"
)

// The small interfaces that the stages stand on. A plugin implements the ones
// that fit it; cmd/scotch registers it by a plain call. Plugins render files
// and name commands: Files writes, a Runner runs.

// Commit is one commit of an app's repository.
type Commit struct {
	ID      string // 40 hexadecimal digits
	Tree    string // object name of its tree
	Subject string // first line of the message, not neutralised: it comes from whoever pushed
	Author  string
	When    time.Time
}

// ExportStats counts what an export wrote.
type ExportStats struct {
	Files int
	Bytes int64
}

// Source is where an app's code comes from.
type Source interface {
	// Resolve finds the commit that ref names. For an app with [app] src set it
	// first fetches that source into the app's own repository, progress going
	// to out. An empty ref means the app's branch.
	Resolve(ctx context.Context, app *config.App, ref string, out io.Writer) (Commit, error)

	// Lookup returns the commit with the given object name, which is in the
	// app's own repository already.
	Lookup(ctx context.Context, app string, id string) (Commit, error)

	// ReadFile returns one regular file of a commit's tree; one with more than
	// max bytes is an error. The error matches fs.ErrNotExist where there is none.
	ReadFile(ctx context.Context, app string, c Commit, path string, max int64) ([]byte, error)

	// Export writes the commit's tree into dst, an existing empty directory, as
	// plain files: no .git, export-ignore honoured, the executable bit and
	// symbolic links that stay in the tree kept, nothing executed.
	Export(ctx context.Context, app string, c Commit, dst string) (ExportStats, error)
}

// DeployKeys is an extra ability of a Source: each app has an ssh key of its
// own, by which it reads private repositories.
type DeployKeys interface {
	// DeployKey returns the public half of the app's key, as in a .pub file. It
	// is made at its first use.
	DeployKey(app string) (public string, err error)
	// DeployKeyDir is where the key is kept, also where there is none. It goes
	// with the app.
	DeployKeyDir(app string) string
	// Lend lets processes of the user, "" for the server's own, use the key
	// until the loan ends, without seeing it. nil: there is nothing to lend.
	Lend(app, user string) (*KeyLoan, error)
}

// KeyLoan is an app's deploy key that was lent. Its End must be called.
type KeyLoan struct {
	SSHCommand string      // for GIT_SSH_COMMAND
	Dir        string      // which that command writes below
	Asked      func() bool // whether somebody asked for a key
	// End takes the key back, and says which host keys were pinned meanwhile.
	End func() (pinned []string, err error)
}

// RefUpdate is one change of a transaction on refs. Old is compared with the
// ref's value first: 40 zeros say that it must not exist, an empty Old compares
// nothing. An empty New deletes the ref.
type RefUpdate struct {
	Ref, Old, New string
}

// RefTransaction is a prepared transaction: its refs are locked and its old
// values have been compared. Exactly one of Commit and Abort must be called.
type RefTransaction interface {
	Commit() error
	Abort() error
}

// Repositories keeps the bare repository of each app. The deployer moves refs
// through it, in one transaction with a switch.
type Repositories interface {
	// Create makes an app's bare repository, with HEAD on branch; one that is
	// there already stays as it is, but for HEAD.
	Create(ctx context.Context, app, branch string) error
	// Exists tells whether the app has a repository.
	Exists(app string) bool
	// Path is the repository's directory, also where it does not exist.
	Path(app string) string
	// Ref returns the object name that a ref points to, "" if there is none.
	Ref(ctx context.Context, app, ref string) (string, error)
	// Prepare locks the refs and compares their old values.
	Prepare(ctx context.Context, app string, updates []RefUpdate) (RefTransaction, error)
	// Recover removes what a killed git left behind: lock files and
	// quarantines. No git of this server may run in the repository meanwhile.
	Recover(app string) error
}

// File is what a plugin wants on disk. Files writes it durably.
type File struct {
	Path string
	Data []byte
	Mode fs.FileMode
	// SharedBy is a glob pattern of the files that need this one. It goes when
	// its last app's files went and nothing matches any more. Empty: it belongs
	// to one app alone.
	SharedBy string
}

// Instance is one instance of an app, as the plugins see it.
type Instance struct {
	App     *config.App
	ID      string
	Dir     string // <instances>/NAME/ID
	Source  string // where the code is, [app] root applied
	Venv    string
	Run     string // sockets and generated files
	Data    string
	Release int    // 0 while it has none
	Commit  string // 40 hexadecimal digits
	// Interpreter is the one that the venv was made with.
	Interpreter Interpreter
	EntryPoint  EntryPoint
	Env         []string // the whole environment of the app, KEY=value
}

// Interpreter is the one that an app's virtualenv is made with.
type Interpreter struct {
	Path    string // absolute, links resolved as far as the venv needs
	Version string // "3.11.2"
	Why     string // where the choice comes from: "[app] interpreter", "default"
}

// Dependencies is what an app's source declares that must be installed.
type Dependencies struct {
	// Key names the virtualenv that satisfies them: equal keys, equal
	// virtualenvs. Lower-case letters and digits, at most 40.
	Key string
	// Shareable tells that a virtualenv with this key may be used again.
	Shareable bool
	From      string   // the file that declares them, "requirements.txt"; "" for none
	Installer string   // "uv 0.9.1", "pip"
	Notes     []string // what a person should know, a line each
}

// Toolchain turns source into something that can run: it finds interpreters
// and entry points and makes virtualenvs. It reads an app's files and never
// imports or runs them, but for what an installer does in Install.
type Toolchain interface {
	// Interpreter finds the app's interpreter. Its error lists those that are there.
	Interpreter(ctx context.Context, app *config.App, src string) (Interpreter, error)
	// Dependencies reads what src declares. extra are packages to install besides.
	Dependencies(ctx context.Context, app *config.App, src string, in Interpreter, extra []string) (Dependencies, error)
	// Install makes a whole virtualenv in dir, which is empty or does not exist,
	// and returns what is in it, sorted: NAME==VERSION from an index, NAME @ ADDRESS
	// with the commit or hash from elsewhere, NAME @ ./PATH out of the source, all
	// without credentials. env is the whole
	// environment of the installer, user and group who it runs as.
	// Half a virtualenv is left in dir when it fails: the caller removes it.
	Install(ctx context.Context, in InstallRequest) ([]string, error)
	// EntryPoint finds the app's WSGI callable: the configured one, or by reading files.
	EntryPoint(ctx context.Context, app *config.App, src string) (EntryPoint, error)
}

// Preparer is an extra ability of a Toolchain: what it needs to read an app's source
// is started before the source is there.
type Preparer interface {
	// Prepare is for one operation on the app, which ends it by done, or by ctx.
	Prepare(ctx context.Context, app string) (done func())
}

// Checker is an extra ability of a Toolchain: it tells whether an interpreter is
// still the one that a virtualenv was made with.
type Checker interface {
	// Changed says why the virtualenv can't be relied on any more ("" where it
	// can): its interpreter is gone, fails, or is of another minor version than
	// in says. It is cheap to call for every app: each interpreter is looked at once.
	// Of the app its name, user and group are known.
	Changed(ctx context.Context, app *config.App, in Interpreter, venv string) (why string, err error)
}

// InstallRequest is what Toolchain.Install gets.
type InstallRequest struct {
	App         *config.App
	Source      string // the app's source, [app] root applied
	Dir         string // the virtualenv's own path, for good: it can't be moved
	Interpreter Interpreter
	Deps        Dependencies
	Extra       []string // as for Dependencies
	// Pinned is what an earlier Install returned. Where not empty exactly these
	// packages are installed, besides Extra, and nothing is resolved.
	Pinned  []string
	Env     []string
	Out     io.Writer     // gets the installer's output as it comes
	Timeout time.Duration // of each command
	Writes  []string      // as in Command
}

// EntryPoint is where an application server finds the app.
type EntryPoint struct {
	Module, Callable string
	Factory          bool   // Callable is called without arguments, once, to get the app
	Framework        string // "Django", "Flask", "" where not known
	Why              string // "configured", "detected: app.py"
	// From is where a person named it, "" where nobody did: "[app] entry_point of scotch.cfg:2".
	From string `json:",omitempty"`
}

// String is MODULE:CALLABLE, with () behind a factory.
func (e EntryPoint) String() string {
	s := e.Module + ":" + e.Callable
	if e.Factory {
		s += "()"
	}
	return s
}

// Plan says how an application server runs an instance.
type Plan struct {
	Files   []File // written before the process starts
	Process Process
	Socket  string // where it answers
	// Ready is a file that exists once the process accepts requests.
	Ready string
	// Server is the name of the application server that planned it. The deployer
	// fills it in: another one knows nothing of such a process.
	Server string `json:",omitempty"`
	// Protocol is what Socket speaks, as in Route. The deployer fills it in.
	Protocol string `json:",omitempty"`
}

// AppServer runs the instances of apps.
type AppServer interface {
	// Plan renders the files of an instance and names its process. out gets a
	// line where a person should know of a choice. An error names what is
	// missing on the server and how to mend it.
	Plan(ctx context.Context, i *Instance, out io.Writer) (*Plan, error)

	// Socket is the path, below an instance's run directory, that it answers at.
	Socket(runDir string) string

	// Probe sends one request through the socket and returns the status of the
	// answer. An empty reply, as an exception of the app gives, is ErrEmptyReply.
	Probe(ctx context.Context, socket string, r ProbeRequest) (status int, err error)
}

// Protocols that an application server's socket may speak, as Route has them.
const (
	ProtocolUWSGI = "uwsgi"
	ProtocolHTTP  = "http"
)

// Speaker is an extra ability of an AppServer: the protocol of its sockets.
// Without it that is ProtocolUWSGI.
type Speaker interface {
	Protocol() string
}

// Requirer is an extra ability of an AppServer: packages that the venv of an
// app needs so that this server can run it with that interpreter (PEP 508
// requirements), none where the server's own program does.
type Requirer interface {
	Requires(ctx context.Context, in Interpreter) ([]string, error)
}

// LogReader is an extra ability of an AppServer: it picks what explains a
// failure out of the last lines of an instance's log.
type LogReader interface {
	Relevant(lines []string) []string
}

// ErrEmptyReply is returned by Probe when the connection was closed without a byte.
var ErrEmptyReply = errors.New("the app closed the connection without an answer")

// ProbeRequest is the request that proves an instance healthy.
type ProbeRequest struct {
	App    string // whom it is for
	User   string // who listens at the socket, "" for the server's own user
	Path   string // "/" or longer, with the app's prefix
	Prefix string // [app] url_prefix without the last slash, "" for "/"
	Host   string
	Scheme string
}

// Route says what a web server is to serve for an app.
type Route struct {
	App    *config.App
	Socket string // through the link current, so that a switch needs no reload
	// Protocol is what the socket speaks; "" is ProtocolUWSGI.
	Protocol string
	Source   string // below it are App.Static's files, through the link current
	Data     string // and those of its data
	// Stopped is a file; while it exists the app answers 503 with a page.
	Stopped string
	// Dir is the app's directory: <instances>/NAME.
	Dir string
}

// WebServer answers the world and hands requests on to apps.
type WebServer interface {
	// Render returns every file that the route needs. Files are independent of
	// other apps' but for File.SharedBy, so its cost does not grow with their number.
	Render(r Route) ([]File, error)
	// Base returns the files that serve no app in particular.
	Base() ([]File, error)
	// Test returns the command that checks all configuration, ours and others'.
	// All deploys stand behind it: it has a Timeout.
	Test() Command
	// Reload makes the server read its configuration and returns when every
	// worker answers by it.
	Reload(ctx context.Context, run Runner) error
	// URL is where a route is reached from outside: its first concrete domain.
	URL(a *config.App) string
}

// Owner is an extra ability of a WebServer: glob patterns of the files that it
// writes for apps and nobody else does. What no live app needs of them is removed.
type Owner interface {
	Owned() []string
}

// Reacher is an extra ability of a WebServer: why requests for an app do not come
// to its files, in words with a next step; "" where they do.
type Reacher interface {
	Reach(ctx context.Context, a *config.App) string
}

// Explainer is an extra ability of a WebServer: the next step for a complaint of
// its Test, "" for none.
type Explainer interface {
	Explain(output string) string
}

// Hosted is an extra ability of a WebServer that scotch runs itself
// (standalone): the process to supervise, nil where the distribution runs it.
type Hosted interface {
	Process() *Process
	// Addresses are where the process listens, HOST:PORT each.
	Addresses() []string
}

// Command is a process that is waited for.
type Command struct {
	Args []string // Args[0] is looked up in the PATH of Env
	Dir  string
	Env  []string // the whole environment, never nil: nothing is inherited
	User string   // run as this user, with its groups; empty: as the caller
	// Group replaces the user's primary group where set.
	Group string
	Stdin io.Reader // nil: nothing to read
	// Stdout and Stderr get output as it comes; equal values get both in order.
	Stdout, Stderr io.Writer
	// TTY is a terminal: the command's standard input, output and error, all
	// three, and the controlling terminal of its session. Its owner becomes User.
	// Name is its path. nil: Stdin, Stdout and Stderr count. The caller closes it.
	TTY *os.File
	// Timeout ends the command's whole process group when it is over: SIGINT,
	// then SIGTERM, then SIGKILL. 0 means none.
	Timeout time.Duration
	Umask   int // -1 or the umask of the process; 0 is 0022
	// App is the app that the command works for; empty where it is the server's
	// own. It decides where a runner with control groups puts it.
	App    string
	Limits Limits
	// Each limits its processes one by one. It is for the server's own commands: of
	// those of an app a runner with control groups takes no notice of it.
	Each ProcessLimits
	// Writes are the directories that a command of an app's may write below,
	// besides a /tmp of its own and as far as its user may; nil: all that its user
	// may. A runner that confines nothing takes no notice.
	Writes []string
}

// Process is a process that goes on by itself and outlives the server.
type Process struct {
	Name   string // "blog/000042": for people, and the name of a unit
	Record string // a file of the runner's own that lets the next server find the process again
	Args   []string
	Dir    string
	Env    []string
	User   string
	Group  string
	Log    string   // standard output and error are appended to this file
	Umask  int      // as in Command
	Limits Limits   `json:",omitzero"`
	Writes []string `json:",omitempty"` // as in Command
	// Grace is how long a stop may take before the group is killed.
	Grace time.Duration
}

// Running is a process that a Runner started or found again.
type Running interface {
	PID() int
	Since() time.Time
	// Done is closed when the process has ended.
	Done() <-chan struct{}
	// Err says how it ended, in words ("exited with 22", "killed by SIGKILL");
	// nil before that and after an exit with 0. A process found again, that
	// is no child of this server, says only that it ended.
	Err() error
	// Signal sends sig to the process itself (not to its group).
	Signal(sig int) error
	// Stop ends the process and all its group: SIGTERM, then SIGKILL when the
	// grace is over or ctx is done. It returns when none is left.
	Stop(ctx context.Context) error
}

// MemoryVictim is an extra ability of a Running: how many of its processes the
// kernel has killed since the start because its limit of memory was reached.
type MemoryVictim interface {
	MemoryKills() (int, error)
}

// ErrNotRunning is returned by Adopt when the recorded process is gone.
var ErrNotRunning = errors.New("not running")

// Runner is the one place where processes are started.
type Runner interface {
	// Run starts a command in a session of its own and waits for it. A failure
	// to start, an exit status other than 0 (an *ExitError), a deadline
	// (*TimeoutError) and a cancelled ctx are errors. When it returns no process of the command's group is left.
	Run(ctx context.Context, c Command) error
	// Start starts a process in a session of its own.
	Start(p Process) (Running, error)
	// Adopt finds a process that an earlier server started, by its record.
	Adopt(p Process) (Running, error)
	// Strays ends every process that an earlier server of this site started and
	// that keep does not name (by Process.Record): half-done builds, one-off
	// commands, instances that nobody serves from. It returns how many there were.
	Strays(ctx context.Context, keep []string) (int, error)
}
