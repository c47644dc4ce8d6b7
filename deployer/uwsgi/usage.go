package uwsgi

import (
	"context"
	"path/filepath"

	"scotch/deployer"
)

// Usage is what an instance that was started by p has done and takes.
func (u *UWSGI) Usage(ctx context.Context, p *deployer.Plan) (deployer.Usage, error) {
	s, err := u.Stats(ctx, filepath.Dir(p.Socket), p.Process.User)
	if err != nil {
		return deployer.Usage{}, err
	}
	return deployer.Usage{Requests: s.Requests, Memory: s.RSS}, nil
}
