package deployer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"
)

// Lock keeps an app's deploys out until somebody unlocks it.
type Lock struct {
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	When   time.Time `json:"when"`
}

// maxLockReason is how long a lock's reason may be, in characters: each list and
// each refused push shows it.
const maxLockReason = 200

// checkLockReason refuses a reason that is too long.
func checkLockReason(reason string) error {
	if n := utf8.RuneCountInString(reason); n > maxLockReason {
		return &RefusedError{
			Reason: fmt.Sprintf("the reason has %d characters, a lock's may have %d", n, maxLockReason),
			Hint:   "say it in a line; the rest belongs where it can be read",
		}
	}
	return nil
}

const lockName = "lock.json"

// lock reads the app's lock, nil where there is none. One that cannot be read
// locks: somebody wanted it.
func (l layout) lock() *Lock {
	data, err := os.ReadFile(filepath.Join(l.dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	k := new(Lock)
	if err == nil {
		err = json.Unmarshal(data, k)
	}
	if err != nil {
		k.Reason = fmt.Sprintf("its lock cannot be read (%v)", err)
	}
	return k
}

// checkLock refuses a deploy of a locked app.
func (d *Deployer) checkLock(app string) error {
	k := d.layout(app).lock()
	if k == nil {
		return nil
	}
	return &RefusedError{
		Reason: "the app is locked " + k.String(),
		Hint:   fmt.Sprintf("once that is settled: %s unlock %s", d.SSH, app),
	}
}

// LockApp refuses an app's deploys from now on, until UnlockApp. A deploy that
// is under way goes on. The last lock's reason counts; was is the one that it took
// the place of, nil for none.
func (d *Deployer) LockApp(ctx context.Context, app, reason, by string) (was *Lock, err error) {
	if err := checkLockReason(reason); err != nil {
		return nil, err
	}
	_, leave, err := d.visit(ctx, app)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := d.known(app); err != nil {
		return nil, err
	}
	if err := d.begin(); err != nil {
		return nil, err
	}
	defer d.work.Done()
	was = d.layout(app).lock()
	return was, d.writeLock(app, reason, by)
}

// String says who locked, when and why.
func (k *Lock) String() string {
	return Neutral(fmt.Sprintf("by %s since %s: %s", k.By, k.When.Format("2006-01-02 15:04"), k.Reason))
}

func (d *Deployer) writeLock(app, reason, by string) error {
	l := d.layout(app)
	if err := d.files.MkdirAll("make-app", l.releases(), d.site.DirMode); err != nil {
		return err
	}
	data, err := json.Marshal(Lock{Reason: reason, By: by, When: time.Now()})
	if err != nil {
		return err
	}
	return d.files.Write("lock-app", filepath.Join(l.dir, lockName), append(data, '\n'), 0o644)
}

// hold locks the app until undo makes its lock what it was.
func (d *Deployer) hold(app, reason, by string) (undo func() error, err error) {
	path := filepath.Join(d.layout(app).dir, lockName)
	was, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return func() error {
		if was == nil {
			return d.files.Remove("unlock-app", path)
		}
		return d.files.Write("lock-app", path, was, 0o644)
	}, d.writeLock(app, reason, by)
}

// UnlockApp lets an app be deployed again. It tells whether it was locked.
func (d *Deployer) UnlockApp(ctx context.Context, app string) (bool, error) {
	if err := d.known(app); err != nil {
		return false, err
	}
	if err := d.spared(app); err != nil {
		return false, err
	}
	l := d.layout(app)
	was := l.lock() != nil
	return was, d.files.Remove("unlock-app", filepath.Join(l.dir, lockName))
}
