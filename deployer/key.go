package deployer

import (
	"errors"
	"fmt"
	"slices"

	"scotch/config"
)

// DeployKey returns the public half of an app's deploy key, made where there is
// none, as a line of a .pub file.
func (d *Deployer) DeployKey(app string) (string, error) {
	_, leave, err := d.visit(d.ctx, app)
	if err != nil {
		return "", err
	}
	defer leave()
	// A file with mistakes in it is an app's all the same.
	if _, err := d.app(app); errors.As(err, new(*config.NoAppError)) {
		return "", err
	}
	keys, ok := d.Source.(DeployKeys)
	if !ok {
		return "", errors.New("the source of this server's apps knows no deploy keys")
	}
	return keys.DeployKey(app)
}

// keyPlaces is what a destroy puts away of an app's keys.
func (d *Deployer) keyPlaces(app string) []string {
	if keys, ok := d.Source.(DeployKeys); ok {
		return []string{keys.DeployKeyDir(app)}
	}
	return nil
}

// withKey runs what fetches dependencies, with the app's deploy key lent to it:
// do gets a configuration whose environment leads git to the key. The running
// app never has it. The environment is not [build_env]'s: that is part of what
// a virtualenv is known by.
func (op *operation) withKey(a *config.App, do func(*config.App) error) error {
	keys, ok := op.d.Source.(DeployKeys)
	if !ok {
		return do(a)
	}
	loan, err := keys.Lend(op.app, a.User)
	if err != nil {
		return err
	}
	if loan == nil {
		return do(a)
	}
	builder := *a
	// First, so that an app's own GIT_SSH_COMMAND wins.
	builder.Env = slices.Concat([]config.Var{{Name: "GIT_SSH_COMMAND", Value: loan.SSHCommand}}, a.Env)
	op.lent = loan.Dir
	defer func() { op.lent = "" }()
	var asked bool
	var endErr error
	func() {
		defer func() { // also where do panics
			asked = loan.Asked()
			var pinned []string
			pinned, endErr = loan.End()
			for _, l := range pinned {
				op.report.Note("%s", l)
			}
		}()
		err = do(&builder)
	}()
	if err == nil {
		return endErr
	}
	if !asked {
		return err
	}
	public, keyErr := keys.DeployKey(op.app)
	if keyErr != nil {
		return errors.Join(err, keyErr)
	}
	return fmt.Errorf("%w\nif a private repository was refused above, let the app's key read it:\n%s\nscotch key %s shows it again", err, public, op.app)
}
