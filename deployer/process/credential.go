package process

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Credential is who a process runs as, with the groups of name; group replaces
// the primary one where set. It is nil where nothing has to change. An error says
// which user or group is missing and how to make it.
func Credential(name, group string) (*syscall.Credential, error) {
	if name == "" && group == "" {
		return nil, nil
	}
	uid, gid := os.Getuid(), os.Getgid()
	var groups []uint32
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("%w\ncreate it with \"adduser --system --group --no-create-home %s\", or set [app] user", err, name)
		}
		primary := u.Gid
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return nil, fmt.Errorf("user %q has the number %q: %w", name, u.Uid, err)
		}
		if gid, err = strconv.Atoi(primary); err != nil {
			return nil, fmt.Errorf("user %q has the group %q: %w", name, primary, err)
		}
		ids, err := u.GroupIds()
		if err != nil {
			return nil, fmt.Errorf("groups of user %q: %w", name, err)
		}
		for _, id := range ids {
			// The primary group is in the list too, and must go where group
			// replaces it: it may be one that connects to other apps' sockets.
			if n, err := strconv.ParseUint(id, 10, 32); err == nil && id != primary {
				groups = append(groups, uint32(n))
			}
		}
	}
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, fmt.Errorf("%w\ncreate it with \"addgroup --system %s\", or set [app] group", err, group)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, fmt.Errorf("group %q has the number %q: %w", group, g.Gid, err)
		}
	}
	if os.Geteuid() != 0 {
		if uid == os.Getuid() && gid == os.Getgid() {
			return nil, nil
		}
		return nil, fmt.Errorf("only root can switch to user number %d, group number %d\nrun scotch as root, or unset [app] user and [app] group", uid, gid)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groups}, nil
}
