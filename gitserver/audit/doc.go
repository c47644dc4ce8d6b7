// Package audit keeps the record of who did what on a server: one JSON line for
// each connection that was refused, each push, command and switch, in one file
// that only the server's user can read.
//
// A line is one write(2) at the end of the file, so lines are whole and in order.
// They are not synced one by one: the last seconds may be lost with the power, not
// with the server. Nothing here fails or holds up what is recorded: a disk that
// is full or a file that cannot be written is told to Log.Report.
//
// Of what comes in floods, from whoever is refused or from one key, the first lines
// of each minute are written and the rest is counted: the file is rotated by size,
// and nobody may push out of it what was done before.
//
// It records names, never values: not those of variables, nor what a command was
// given on its input.
package audit
