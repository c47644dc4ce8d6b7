// Package uwsgi runs apps with uWSGI: one master process for each instance,
// started directly, on a unix socket in the instance's run directory.
//
// Plan renders the instance's ini file and names the process, Probe sends one
// request through the socket, Stats reads what the master counts.
//
// Which uWSGI: the distribution's (the package uwsgi-core) with its python
// plugin, where the plugin embeds the very Python that the virtualenv was made
// with. Otherwise the wheel pyuwsgi, which Requires puts into the virtualenv.
// The plugin with another Python of the same version would run that version's
// standard library of the wrong build, and with another version crash.
//
// The process is started as the app's user by whoever runs the plan: uWSGI
// itself never has a right to drop. uWSGI expands %x, $(...) and @(...) in the
// values of an ini file, so every value is matched against a pattern before it
// is written; the app's environment goes by execve and never into the file.
//
// Whoever may connect to the socket can run code as the app's user (uwsgi
// variables such as UWSGI_FILE): the run directory's rights are what protects it.
package uwsgi
