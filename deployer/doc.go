// Package deployer makes commits live. A deploy is two stages: checkout makes a
// new instance (source, virtualenv, dependencies) beside the one that serves,
// register starts it, proves it healthy and switches to it by one rename of the
// symbolic link current. Whatever fails before that rename leaves the old
// instance serving, untouched.
//
// The package declares the small interfaces that it needs (plugin.go) and knows
// none of their implementations: where code comes from (Source, Repositories),
// what runs it (AppServer), what answers the world (WebServer), and how
// processes are started (Runner). The file system is its only store.
//
// It never parses what a client typed, never speaks ssh, and never writes into
// a directory of an app other than the one it was asked for.
package deployer
