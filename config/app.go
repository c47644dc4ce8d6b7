package config

import (
	"io/fs"
	"net/netip"
	"time"
)

// Site is the configuration of a server: built-in defaults, plugins' defaults
// and site files, merged.
type Site struct {
	*Values

	Mode    string // "system" or "standalone"
	Domain  string // [site] domain, "" where none
	DirMode fs.FileMode
	Umask   int
	Paths   Paths
	Server  Server
	Notify  Notify
	Metrics Metrics
	Plugins map[string]bool // [plugins] NAME = on/off
	// Files are the site files that were read, absolute, in the order of reading.
	Files []string
	// Mistakes are what is wrong with what the site files say for all apps.
	Mistakes Errors
	// Named tells that they were named, in place of the standard ones.
	Named bool
	// Commands is how people reach the server's commands, "ssh HOST", for the hints
	// of errors. Who opens the site sets it; empty stands for scotch here.
	Commands string

	layers     []layer
	schema     *schema
	neighbours *neighbours
}

// Paths are the directories of [paths], absolute.
type Paths struct {
	Configuration, AppsEnabled, Instances, Repositories, Data, Logs, Run string
}

// Server is [server].
type Server struct {
	Listen         string         // HOST:PORT of the ssh server
	HostKey        string         // path
	AuthorizedKeys string         // path
	Deploys        int            // deploys at a time; 0: number of cores
	MinFree        int64          // bytes
	MaxPush        int64          // bytes of one push
	MaxObjects     int            // objects of one push
	MaxObject      int64          // bytes of one object
	MaxRefs        int            // branches and tags of a repository
	MaxFiles       int            // files and directories of a source
	MaxSource      int64          // bytes of a source
	PushMemory     int64          // bytes; of a git that receives
	PushCPU        time.Duration  // of a git that receives
	LogSize        int64          // bytes at which an app's log is rotated
	LogKeep        int            // rotated logs kept
	GitUser        string         // system mode: who git and its hooks run as
	StopTimeout    time.Duration  // how long a stopping server waits for deploys under way
	MaxConnections int            // ssh connections at a time
	MaxPerAddress  int            // of one address, or one IPv6 /64
	MaxLogins      int            // that have not logged in
	MaxSessions    int            // sessions at a time on one connection
	MaxPerKey      int            // pushes, fetches and commands at a time with one key
	LoginTimeout   time.Duration  // from connecting to the first command
	IdleTimeout    time.Duration  // of a connection without a command
	KeepAlive      time.Duration  // silence after which a client is asked for a sign of life
	Penalty        time.Duration  // the longest that an address is kept out; 0: none is
	PenaltyExempt  []netip.Prefix // who never is
}

// Notify says who is told what becomes of deploys.
type Notify struct {
	Command string        // for a shell; "" for none
	URL     string        // http or https, "" for none; it may hold a secret
	Timeout time.Duration // of one run of the command, of one request
}

// Metrics says where numbers for a monitoring system are had.
type Metrics struct {
	Listen string // HOST:PORT of a loopback address, "" for none
}

// App is the configuration of one app, of one instance where an instance's id was given.
type App struct {
	*Values

	Name         string
	InstanceID   string
	Source       string // [app] src, "" for the app's own repository
	InstancePath string
	VenvPath     string
	SourcePath   string
	RunPath      string
	DataPath     string
	Interpreter  string
	// InterpreterSet tells that a file names the interpreter, not the default.
	InterpreterSet bool
	EntryPoint     string // "" where it is to be detected
	Root           string // slash-separated, relative, "" for the whole tree
	Build          string
	Release        string
	ReleaseSet     bool // a file says what it is, "" among others
	CollectStatic  bool // Django's collectstatic is run
	Persist        []string
	Workers        int
	Threads        int
	MaxBody        int64
	Timeout        time.Duration
	User           string // "" in standalone mode: whoever runs scotch
	Group          string
	Domains        []string // "*" for every host
	URLPrefix      string   // begins and ends with "/"
	Keep           int
	Env            []Var
	BuildEnv       []Var
	Static         []Static
	Health         Health
	StepTimeout    time.Duration // [deploy] timeout
	ReleaseTimeout time.Duration // of the release command, 0 for none
	// Limits are those of [limits] that are set, checked, as written.
	Limits    map[string]string
	Branch    string // [git] branch
	BranchSet bool   // a file names the branch
	// DirMode is the site's, unless the app's file differs.
	DirMode fs.FileMode
}

// Var is one environment variable.
type Var struct{ Name, Value string }

// Static is a URL prefix that the web server answers from files.
type Static struct {
	URL  string // begins and ends with "/"
	Path string // relative, slash-separated
	Data bool   // Path is below the app's data directory, else below its source
}

// Health is [health].
type Health struct {
	Path    string
	Timeout time.Duration
	Status  StatusSet
	Host    string // "" for the first concrete domain
	Watch   time.Duration
}
