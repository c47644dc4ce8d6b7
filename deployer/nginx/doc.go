// Package nginx answers the world: it renders nginx's configuration for apps,
// tests and reloads it, and names the nginx that scotch runs itself in
// standalone mode.
//
// What it writes, below [nginx] config_path:
//
//	conf.d/00-scotch.conf          for http: hash sizes, variables, formats of logs
//	scotch-server.conf             what every server has: pages, challenges of ACME, 404
//	scotch-uwsgi.conf              the variables of a request, for uwsgi_pass
//	scotch-proxy.conf              its headers, for proxy_pass
//	sites-enabled/scotch-_.conf    the default server: hosts that no app claims, and apps with *
//	sites-enabled/scotch-HOST.conf the server of one domain, shared by its apps
//	scotch-apps/HOST/APP.conf      one app under one domain
//	nginx.conf, mime.types         in standalone mode only
//
// An app's socket and files are reached through the link current of its
// instances, which nginx resolves at each request: a switch needs no reload.
// So does the file that marks an app as stopped.
//
// "nginx -t" passes duplicate names, variables and line feeds in values, so
// every value is matched against a pattern here before it is written, whoever
// checked it before.
//
// The package writes no file and starts no process itself. It never touches a
// file of nginx's that is not its own.
package nginx
