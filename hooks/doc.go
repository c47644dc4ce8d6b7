// Package hooks decides what a push does. It has two halves that speak over one
// unix socket, which git's hooks inherit from the server through git.
//
// The client half (Main) is what git runs as pre-receive, proc-receive and
// post-receive. It is a relay: it sends on what git gave it, writes the answer's
// lines to standard error, which git carries to the pusher as "remote: " lines,
// and speaks the protocol of githooks(5) for proc-receive. It decides nothing,
// so it may run as a user without rights.
//
// The server half (Handler) judges each ref (policy.go): the app's branch is
// handed to a Deployer and answered when it is live or has failed, other
// branches and tags are left to git to store, anything else is refused with the
// reason and the next step. The app's branch is moved by the Deployer, in one
// transaction with the switch; git only hears "ok".
//
// A pusher who leaves never disturbs a deploy under way: what can't be
// delivered is dropped. The package starts no processes and writes no files.
package hooks
