// Package control carries commands from the scotch program to the server that
// runs on the same machine: HTTP over a unix socket of mode 0600, so that
// whoever may open the socket is the server's own user or root. A command's
// input and output are streamed; it ends with its client.
//
// The package knows nothing of what commands mean.
package control
