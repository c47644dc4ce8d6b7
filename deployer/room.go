package deployer

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Room is an error where a file system that a deploy needs has less free than
// [server] min_free.
func (d *Deployer) Room() error {
	for _, dir := range []string{d.site.Paths.Repositories, d.site.Paths.Instances} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // made by the first deploy
			}
			return fmt.Errorf("looking at the room below %q: %w", dir, err)
		}
		free := int64(st.Bavail) * st.Bsize
		if free < d.site.Server.MinFree {
			return fmt.Errorf("the disk of this server is almost full: %s are free below %q, %s are to stay free\nan admin frees some, or lowers [server] min_free", size(free), dir, size(d.site.Server.MinFree))
		}
	}
	return nil
}
