// Package notify tells others what becomes of deploys: a command of the operator's
// that gets JSON on its input, a URL that gets it by POST ([notify] in the site
// file). It tells of deploys that began, are live or have failed, and of releases
// that were rolled back, by a person or by the watch.
//
// It never holds up a deploy. Each of the two gets events in their order, from a
// queue of its own that is bounded: when nobody takes them, events are dropped
// and the log says how many. The queue is in memory; what waits in it when the
// server ends is lost after a few seconds' grace.
//
// The command runs as the unprivileged user that git runs as ([server] git_user),
// in standalone mode as the caller, with nothing of the server's environment.
package notify
