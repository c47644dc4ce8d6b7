// Package python is the toolchain of Python web apps: it finds interpreters,
// reads what an app's source declares, makes virtualenvs and finds entry points.
//
// It reads an app's files as data. Nothing of an app is imported or run here but
// for what an installer does (a setup.py, a build backend), and that runs as
// the app's user, in Install. The source is taken for hostile: reads stay below
// its directory, also through symbolic links, and never wait for a named pipe.
//
// # Which interpreter
//
// [app] interpreter, where a file names one: a path, a name on the server's
// PATH, or a version ("3.12"). A script of that name that fails, as pyenv's shims do for
// what is not chosen, counts as not there. Else the version that .python-version,
// runtime.txt, requires-python of pyproject.toml, Poetry's python or the Pipfile asks
// for, the first of them that is there: the newest that satisfies it of the
// distribution's, those on the PATH, pyenv's and uv's; where there is none uv may
// download one, for all apps. Else, and wherever it satisfies them, /usr/bin/python3: the
// distribution's uWSGI plugin is built for exactly that one, while the first
// python3 on the PATH of a person is often pyenv's.
//
// # Which dependencies
//
// uv.lock (with uv), poetry.lock, pdm.lock, Pipfile.lock, requirements.txt, or the
// project itself (pyproject.toml, setup.py), the first that is there; without any of
// them the virtualenv stays empty. The installer is uv where it is on the server's
// PATH, else pip.
//
// The locks of poetry, pdm and pipenv are exported, as their own tools do it, and
// nothing is resolved: the main (default) group without extras, each package with its
// version, marker, hashes and index, or its repository's commit. Each index has its own
// requirements file, given to the installer as its standard input, since it may hold
// credentials; what has hashes is installed with --require-hashes. A lock that says of no
// package what needs it (poetry before 2, pdm without inherit_metadata) is walked for the
// interpreter; where it has several versions of a package it is refused. A poetry.lock
// that is older than its pyproject.toml is refused, as by "poetry install", and so is a
// uv.lock, as by "uv sync --locked"; of the other two it is said, as "pdm sync" and
// "pipenv sync" go on.
//
// A virtualenv's key is of what is declared, with all included files, of the interpreter's
// path and version, the platform (libc, distribution and its version, processor), and
// the installer's name; not of the installer's version nor of credentials.
//
// What was installed is recorded so that it can be installed again, and nothing is
// resolved: packages of an index by their version, others by their address with its
// commit or hash, those out of the source by their path in it. Credentials are not
// recorded; a rebuild takes them, and the indexes and hashes, from the source. What
// packages need to be built (build-system.requires) is the newest there is then.
//
// # Which entry point
//
// The configured one, else what the files say, in this order: a Procfile's web
// line, Django's settings, wsgi.py, app.py, main.py, application.py, the package
// named like the app, the only other package or file that has one. All of that is read
// before anything is installed, and so is what a file says against an entry point:
// a name that is not in it, an ASGI app, a factory that takes arguments, a module that
// Python or uWSGI has loaded before the app.
package python
