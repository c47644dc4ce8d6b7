package gitserver

import (
	"context"
	"errors"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"scotch/gitserver/access"
)

// keyPoll is how often a session under way asks for its key: what it may do
// ends within this time of the key's removal or expiry. It costs a stat(2).
const keyPoll = 500 * time.Millisecond

// quickEnd is how long a session may take to end by itself once its key is
// out, a client that reads nothing, for instance.
const quickEnd = 3 * time.Second

// errRevoked is the cause of a session's end when its key is not what it was
// when the session began.
var errRevoked = errors.New("your key may not do this here any more: it was removed, has expired, or its rights were taken back")

// whileAllowed ends the session's context when the key is out, or holds for
// less than it did for who. The session must call the function that it
// returns when it is over.
func (c *connection) whileAllowed(ctx context.Context, conn *gossh.ServerConn, who access.Identity) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				logPanic(c.log, p)
				cancel(errRevoked) // nobody asks for its key any more
			}
		}()
		tick := time.NewTicker(keyPoll)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			if now, _, ok := c.identity(conn); ok && now.Covers(who) {
				continue
			}
			c.log.WithField("by", who.Name).Warn("session ended: its key is out")
			cancel(errRevoked)
			select {
			case <-over:
			case <-time.After(quickEnd):
				c.net.Close()
			}
			return
		}
	}()
	return ctx, func() {
		close(over)
		<-ended
		cancel(nil)
	}
}
