// Package config reads the configuration of a server and of its apps, and says
// for each value which file it came from.
//
// The layers, later ones win: the built-in defaults (defaults.cfg), the
// plugins' defaults, the site files, the scotch.cfg of the app's source, the
// app's own file. [Open] reads the first three, [Site.App] adds the others.
//
// The syntax is that of Python's configparser with extended interpolation
// (https://docs.python.org/3/library/configparser.html), and Python's module is
// the judge: a test gives both the same files. What differs on purpose:
//
//   - In [env], [build_env] and [static] keys keep their case, and [DEFAULT]
//     stays out of them: names of environment variables and URLs have a case,
//     and an app's environment holds what was put there, nothing else.
//   - [DEFAULT] adds no keys to a plugin's free section ([uwsgi_config]), whose
//     keys are passed on as they are. Interpolation there sees it.
//   - A NUL byte is an error.
//   - A file over 1 MiB, a file with more than 5000 keys and sections, and a
//     value that interpolates to more than 1 MiB or in more than 10000 steps
//     are errors: a pushed file must not exhaust the server.
//   - All errors of a file are reported, not only the first.
//   - Keys are lower-cased by the Unicode of Go, which may be a year older or
//     newer than Python's.
//   - Unknown sections and keys are errors.
//
// Values of [env] and [build_env] are secrets: no error of this package quotes one.
//
// The package reads files and computes; it never writes one, never starts a
// process, and never asks the system who its users are.
package config
