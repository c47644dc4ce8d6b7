package gitserver

import (
	"sync/atomic"

	gossh "golang.org/x/crypto/ssh"
)

// screened takes from a channel's requests what gliderlabs would accept,
// collect without bound, or block on.
type screened struct {
	gossh.NewChannel
	conn   *connection
	closed func() // called when the channel is, or is of no use to the client
	// terminal is the client's, nil where it asked for none. gliderlabs is told
	// nothing of it: it would change the output of each command that has one.
	terminal atomic.Pointer[terminal]
}

const maxCommand = 128 << 10 // bytes of a command line

func (s *screened) Accept() (gossh.Channel, <-chan *gossh.Request, error) {
	ch, in, err := s.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	out := make(chan *gossh.Request)
	s.conn.speakOn(ch, true)
	go func() {
		defer close(out)
		defer s.closed()
		defer s.conn.speakOn(ch, false)
		defer func() {
			if p := recover(); p != nil {
				logPanic(s.conn.log, p)
				s.conn.net.Close() // nobody reads its requests any more
			}
		}()
		protocol, begun := false, false
		for r := range in {
			pass, done := false, false
			t := s.terminal.Load()
			switch r.Type {
			case "exec":
				pass = len(r.Payload) <= maxCommand
				begun = begun || pass
			case "shell":
				pass, begun = true, true
			case "pty-req":
				// What it is for is not known yet, and clients wait for the answer.
				if t == nil && !begun {
					t = requestTerminal(r.Payload)
					done = t != nil
					s.terminal.Store(t)
				}
			case "window-change":
				done = t != nil && t.change(r.Payload)
			case "env":
				// The one variable that git needs, once.
				var kv struct{ Name, Value string }
				pass = !protocol && gossh.Unmarshal(r.Payload, &kv) == nil &&
					kv.Name == "GIT_PROTOCOL" && protocolRE().MatchString(kv.Value)
				protocol = protocol || pass
			case "eow@openssh.com":
				// The client can't write what we send any more, as in
				// `ssh HOST logs -f APP | head`, and would wait for our end
				// (OpenSSH's PROTOCOL, 2.1).
				s.closed()
			}
			if !pass {
				if r.WantReply {
					r.Reply(done, nil)
				}
				continue
			}
			out <- r
		}
	}()
	return ch, out, nil
}
