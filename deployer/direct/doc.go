// Package direct runs processes without the help of a service manager: each
// command and each app is the leader of a session of its own, started by the
// server itself. It is the runner of standalone servers and of machines where
// systemd is not the first process.
//
// # What belongs to a command
//
// A command's family is whoever is in its session or process group, its
// descendants, and whoever carries its mark or its stamp. The mark are three
// environment variables that every process gets besides the environment that it
// was given.
//
//	SCOTCH_SITE    the run directory of the site
//	SCOTCH_RUN     one start by one server, "4f2a9c1b0d3e5f67.12"
//	SCOTCH_RECORD  for processes that outlive the server: their record
//
// The mark finds a daemon that has left its session (setsid, double fork) and
// what a server that was killed left behind. The stamp is a limit that means
// nothing else and that no process can lift (RLIMIT_LOCKS): it finds those that
// have emptied their environment besides. A process that lowers that limit gives
// itself away where it runs as a user whom nobody else starts anything as
// (Options.Own); one of another user, such as the server's own, who could as well
// end the server, is lost sight of.
//
// Whoever is found is ended until nobody is found any more. Processes that fork
// and end faster than they are looked at can outrun that; a namespace of processes
// can't be outrun.
//
// # Boxes
//
// Where Options have a Box, what works for an app and runs as another user is
// started by bubblewrap, which gives it a view of the machine of its own. The
// leader of the family is the process in the box; bubblewrap stays beside it, for
// its status.
//
// # What survives
//
// Processes of Start write to a file, never to a pipe, and do not notice the
// end of the server. Their record says which process it is (pid, start time,
// boot), so that the next server finds exactly that one again, never another
// that got its number.
//
// The package needs Linux 5.10 (pidfd_open(2) with PIDFD_NONBLOCK) and /proc.
package direct
