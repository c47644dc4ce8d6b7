package deployer

import "scotch/config"

// Where a runner confines what an app runs (Command.Writes), builds may write
// their own instance, the app's caches and its data, and what is live its data and
// the directory of its sockets. Their user's rights are less: what is sealed
// belongs to root.

// buildWrites is for installers, [app] build and release.
func (op *operation) buildWrites(a *config.App, rec *Record) []string {
	all := append([]string{op.d.layout(op.app).dir, op.dir, rec.Source, a.DataPath}, op.outside...)
	if rec.Venv != "" {
		all = append(all, rec.Venv)
	}
	if op.lent != "" {
		all = append(all, op.lent)
	}
	return all
}

// appWrites is for the app and for one-off commands.
func appWrites(i *Instance) []string { return []string{i.Run, i.Data} }
