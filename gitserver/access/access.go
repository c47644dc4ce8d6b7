package access

import "slices"

// Role is what a key may do in general. The empty Role may do nothing.
type Role string

// The roles, from the least to the most.
const (
	Read  Role = "read"  // lists, clones, reads logs
	Push  Role = "push"  // read, and all that changes an app
	Admin Role = "admin" // everything
)

// Valid tells whether r is one of the three roles.
func (r Role) Valid() bool { return r.rank() > 0 }

func (r Role) rank() int {
	switch r {
	case Read:
		return 1
	case Push:
		return 2
	case Admin:
		return 3
	}
	return 0
}

// Identity is somebody whose key has been proved, or who reached the server
// from its own machine. The zero Identity may do nothing.
type Identity struct {
	Name        string // the key's comment
	Fingerprint string // "SHA256:…" as ssh-keygen -l prints it
	Role        Role
	Apps        []string // the apps that the role holds for; nil: all
	// Local tells that no key was asked for: the control socket's own mode
	// was the check. It gives no right by itself, Role does.
	Local bool
	Addr  string // where from, as net.Addr prints it
}

// Covers tells whether id may do all that was may.
func (id Identity) Covers(was Identity) bool {
	switch {
	case id.Role.rank() < was.Role.rank():
		return false
	case id.Role == Admin, id.Apps == nil:
		return true
	case was.Role == Admin, was.Apps == nil:
		return false
	}
	return !slices.ContainsFunc(was.Apps, func(app string) bool { return !slices.Contains(id.Apps, app) })
}

// Verb is something that can be done: a command of the command tree by its
// name, or an act of git.
type Verb string

// What git does.
const (
	VerbFetch Verb = "fetch" // clone, fetch, ls-remote
	VerbPush  Verb = "push"
	VerbForce Verb = "force" // a push that is no fast-forward
)

// The commands.
const (
	VerbHelp     Verb = "help"
	VerbList     Verb = "list"
	VerbPS       Verb = "ps"
	VerbReleases Verb = "releases"
	VerbLogs     Verb = "logs"

	VerbDump     Verb = "dump"
	VerbDeploy   Verb = "deploy"
	VerbCancel   Verb = "cancel"
	VerbRollback Verb = "rollback"
	VerbLock     Verb = "lock"
	VerbUnlock   Verb = "unlock"
	VerbRestart  Verb = "restart"
	VerbStop     Verb = "stop"
	VerbStart    Verb = "start"
	VerbRebuild  Verb = "rebuild"
	VerbRun      Verb = "run"
	VerbEnv      Verb = "env"
	VerbConfig   Verb = "config" // reading, and writing what is the app's own business
	VerbKey      Verb = "key"    // the app's deploy key, its public half

	VerbCreate   Verb = "create"
	VerbDestroy  Verb = "destroy"
	VerbKeys     Verb = "keys"
	VerbOperator Verb = "operator" // writing the keys of config that are an operator's: domains, users, limits, paths
	VerbAudit    Verb = "audit"
	VerbDF       Verb = "df"
	VerbPrune    Verb = "prune"
	VerbDoctor   Verb = "doctor"
)

// least is the least role that a verb needs. overview tells that the verb means
// something without an app, for everybody: the callee shows each person the
// apps that May allows.
func least(v Verb) (r Role, overview bool) {
	switch v {
	case VerbHelp, VerbList, VerbPS:
		return Read, true
	case VerbFetch, VerbReleases, VerbLogs:
		return Read, false
	case VerbPush, VerbForce,
		VerbDump, VerbDeploy, VerbCancel, VerbRollback, VerbLock, VerbUnlock,
		VerbRestart, VerbStop, VerbStart, VerbRebuild, VerbRun, VerbEnv, VerbConfig, VerbKey:
		return Push, false
	case VerbCreate, VerbDestroy, VerbKeys, VerbOperator, VerbAudit, VerbDF, VerbPrune, VerbDoctor:
		return Admin, false
	}
	return "", false
}

// May decides whether id may do v to an app. An empty app means "not about one
// app": allowed for those whose role holds for all apps, and for everybody
// where v shows each their own. A verb that is not known here is denied to all.
//
// It does not ask whether the app exists: who may not must not learn that either.
func May(id Identity, v Verb, app string) bool {
	need, overview := least(v)
	if need == "" || id.Role.rank() < need.rank() {
		return false
	}
	switch {
	case id.Role == Admin, id.Apps == nil:
		return true
	case app == "":
		return overview
	}
	return slices.Contains(id.Apps, app)
}
