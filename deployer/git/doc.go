// Package git keeps the apps' bare repositories: it makes them, resolves what
// people name, fetches [app] src, exports a commit's tree and moves refs in
// transactions. It implements deployer.Source, deployer.Repositories and what
// package hooks asks of a repository.
//
// Two engines share the work. go-git reads refs, and makes new repositories. The
// stock git does what must hold against a hostile repository or a power cut, in
// processes that can be limited and run as an unprivileged user: it moves refs
// (update-ref, with fsync), reads every object that was pushed, walks histories,
// packs and fetches, and streams trees (git archive). Where stock git takes
// go-git's place, a comment says why.
//
// Every git runs with an environment made from nothing: no system's or user's
// configuration, no hooks, no terminal. The package starts no process itself; a
// deployer.Runner does. It writes nothing but repositories below its root, the
// directory that Export is given, and below Options.Keys the apps' deploy keys
// and the host keys that were pinned for them.
//
// A private key is read by the server alone. What fetches, git as its own user
// or a build as the app's, talks for that while to an agent (ssh-agent(1)) of
// this package's. Names and passwords of an address reach git through its
// environment, never its arguments, and are cut out of what it says.
package git
