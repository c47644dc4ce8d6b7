// Package access says who a key belongs to and what its holder may do.
//
// [May] is the one place that decides; what it does not know, it denies. A
// [Keyring] holds the keys, in OpenSSH's authorized_keys format (sshd(8),
// AUTHORIZED_KEYS FILE FORMAT) with two options of scotch's own:
//
//	role="push",apps="blog,shop",from="192.0.2.0/24" ssh-ed25519 AAAA… alice
//
// The comment is the name. A key without role has the role push; one without
// apps has that role on all apps. The file is looked at anew each time somebody
// is asked for, so that a key taken out is out at once.
//
// The package never listens and never speaks to a client, and it never weakens
// a line: a line with an option that it does not know is refused, not read
// without that option.
package access
