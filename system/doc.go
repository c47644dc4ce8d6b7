// Package system holds the tests of scotch on real systemd, on the releases of
// Debian that it is made for. It has nothing but tests:
//
//	make test-system
//	make test-system SYSTEM='-run TestServe/trixie -v'
//
// They take root, debootstrap and systemd-nspawn. Where a container can't be booted
// (no root, no namespaces, no control groups) they are left out, and a line says
// so. Nothing of them is true on the machine: each boots a container of its own,
// over a root that is made once (a minute for each release, from where the
// machine's own apt gets Debian, through its proxy) and kept below
// ${XDG_CACHE_HOME}/scotch/system, which may be removed at any time. What a
// container writes is in memory and goes with it. It has no network but its
// loopback interface, so what it needs must be in the list of packages
// (machine_test.go); a change of the list makes the root anew.
//
// The tests run in namespaces of mounts and processes of their own. So nothing is
// left of them however they end, by Ctrl-C too.
//
// Ubuntu is not among the releases: its archive is another one, which a machine
// with Debian's apt sources (and a proxy that knows only those) may not reach.
//
// # Adding steps
//
// A test boots with each(t, func(t *testing.T, m *machine) {…}), which runs it on
// every release, and then works through
//
//	m.run("systemctl", "restart", "scotch")     a command inside, its output; fails the test if it fails
//	m.sh(`curl -fsS http://blog.example.test/`) the same for a script of the shell
//	m.try(…)                                    the same, with its exit status
//	m.copy(from, to, mode), m.write(to, text, mode)
//	m.eventually("what", func() error)          for what comes by itself: polls until nil
//	m.reboot()                                  returns when it has booted again
//	m.install()                                 scotch as a service, from files written here
//
// Commands inside run as transient units (systemd-run --pipe), so that they
// belong to the container as everything else in it does. The machine is powered
// off and all of it is removed when the test ends; a failed test prints the last
// of its journal.
package system
