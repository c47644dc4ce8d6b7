// Package systemd runs processes as transient units of systemd: each instance of
// an app and each command that works for an app is a service of its own, in
//
//	scotch.slice
//	  scotch-blog.slice                        all that is the app's
//	    scotch-app-blog-000042.service         an instance
//	    scotch-run-blog-4f2a9c1b.7.service     a build, a release or a one-off command
//
// It is the runner of system mode where systemd is the first process. Commands
// of the server's own (git, nginx -t) are none of its business: it hands them to
// the runner that it was given for them.
//
// # Names
//
// A dash divides, in names of units and, by systemd.slice(5), slices from those
// that they are in. So the dash of a name becomes a dot, which no app's name has:
// the units of blog-api are scotch-app-blog.api-000042.service, and nothing that
// matches those of blog matches them. A site whose run directory is not
// /run/scotch has a prefix of its own instead of scotch.
//
// # What nobody sees
//
// Every user may read the properties of every unit, Environment= and ExecStart=
// too. So a unit says neither: its program is this one, with Arg as its argument.
// It gets the environment, the arguments and the standard files over a socket,
// which systemd hands to it as its standard input, and then becomes the program
// (Child). The same socket tells that the program was started, or why not.
//
// # What is confined
//
// All that an app runs, its builds too, has no capability and gains no privilege,
// writes its own directories (deployer.Command.Writes) alone, has a /tmp, a
// /dev/shm and a /dev of its own, sees no process of others, and none of what is
// the server's (Options.Hidden): confine.go. A drop-in of the administrator's
// loosens it for one app, as systemd.unit(5) has it for names with dashes:
// /etc/systemd/system/scotch-app-blog-.service.d/local.conf.
//
// # What survives
//
// Units of Start do not notice the end of the server, nor does stopping the
// server's own unit end them. They are found again by their record, which holds
// the unit's name. Stopping a unit (also by systemctl, and when the machine is
// shut down) sends SIGTERM to its main process alone, and SIGKILL to whatever is
// left of its control group when that has ended or its grace is over.
//
// # Limits
//
// They are each unit's own. While a deploy has two instances run at once, each
// may take them, so that the new one can't have the old one killed. The kernel
// kills one process at the limit of memory; an app's master starts its worker
// again, a build ends.
//
// The package needs systemd 240 (Type=exec) and Linux 5.10 (pidfd_open(2)).
package systemd
