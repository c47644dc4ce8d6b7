// Package host makes a Debian or Ubuntu machine fit for a scotch server, and
// finds what goes wrong with it later.
//
// [Machine.Setup] looks at the machine and returns a [Plan]: the steps that are
// missing, none where nothing is. [Plan.Do] takes them, one after the other, and
// writes down after each what it made (see [State]), so that a setup that was
// cut off goes on, and [Machine.Uninstall] takes back that and nothing else.
// Configuration, repositories and data are never removed.
//
// [Machine.Check] looks and changes nothing. Each [Finding] that is wrong says
// how it is mended.
//
// The package runs no program by itself: it names commands for a [Runner]. It
// never touches an app's files.
package host
