// Package gitserver is the ssh server that git pushes to and that takes
// scotch's commands.
//
// It says who is there (the key that was proved, found anew in the keyring for
// each session), asks package access whether they may, and then either runs the
// stock git, for git-receive-pack and git-upload-pack, or hands the words of a
// command on. What a push means is not decided here: git's hooks and whoever
// implements [PushHandler] speak about it over one socket per push, which git's
// hooks inherit.
//
// The path of a repository is built from a checked name, never taken from a
// client. The environment of git is built from nothing. There is no shell, no
// forwarding, no agent, no subsystem and no password, and a terminal for commands
// alone.
//
// Connections, those without a login, sessions and silence have limits, and an
// address that misbehaves is kept out for a while: see docs/SECURITY.md.
//
// Use [Server]; its zero value wants Keys, HostKey, Repositories and Git only.
// [Server.Serve] returns when its context ends; [Server.Shutdown] then waits for
// the sessions under way and [Server.Close] ends them.
package gitserver
