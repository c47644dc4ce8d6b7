package gitserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
)

const (
	// maxCommands bounds the list of refs in a push, in bytes, and maxOptions its
	// push options: git holds both in memory, and the options reach hooks by
	// their environment, which execve(2) bounds.
	maxCommands = 16 << 20
	maxOptions  = 64 << 10
)

// pushed reads what a client of receive-pack sends (gitprotocol-pack(5), "Pushing
// Data To a Server") and passes it on unchanged, up to what this server does not
// take: the pack says in its head how many objects it has, and git makes room for
// all of them before it reads the first.
//
// Whether push options follow the list of refs is for git to know, by what the
// client is able to do, in any of its lines. Here a pack is told from them by its
// first bytes, which are no length: what git makes of the lines can't matter.
type pushed struct {
	r          io.Reader
	maxBytes   int64 // of all; more is only counted, as git itself ends it. 0: no limit
	maxObjects int64 // 0: no limit
	// onPack is called when the pack begins, from a client that hears git's signs of
	// life from then on. nil: nobody is told.
	onPack func()

	state   pushedState
	head    []byte // of a pkt-line or of the pack, as far as it is here
	payload int    // what is to come of a pkt-line
	list    int    // bytes of the list so far
	tail    []byte // of what its lines hold
	hears   bool   // the client takes what git says beside the protocol

	total   atomic.Int64 // bytes
	refusal atomic.Pointer[string]
}

type pushedState int

const (
	readsCommands pushedState = iota
	readsOptions              // or a pack
	readsPack
	readsRest // nothing is looked at any more
)

// refused is why reading was ended, with a hint on further lines; "" if it was not.
func (p *pushed) refused() string {
	if s := p.refusal.Load(); s != nil {
		return *s
	}
	if n := p.total.Load(); p.maxBytes > 0 && n > p.maxBytes {
		return fmt.Sprintf("the push is larger than the %s that this server takes\nkeep large files out of the repository, or have an admin raise [server] max_push", inBytes(p.maxBytes))
	}
	return ""
}

// inBytes words a limit as its key is written: k is 1024.
func inBytes(n int64) string {
	switch {
	case n%(1<<30) == 0:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 10<<20 || n%(1<<20) == 0:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 10<<10 || n%(1<<10) == 0:
		return fmt.Sprintf("%d kB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

func (p *pushed) Read(b []byte) (int, error) {
	if p.refusal.Load() != nil {
		return 0, io.EOF
	}
	n, err := p.r.Read(b)
	p.total.Add(int64(n))
	if taken, why := p.look(b[:n]); why != "" {
		p.refusal.Store(&why)
		return taken, io.EOF
	}
	return n, err
}

// look follows the protocol through b and returns how much of it may be passed
// on, and why not more.
func (p *pushed) look(b []byte) (taken int, why string) {
	for i := 0; i < len(b); {
		switch p.state {
		case readsRest:
			return len(b), ""
		case readsPack:
			n := min(12-len(p.head), len(b)-i)
			p.head = append(p.head, b[i:i+n]...)
			i += n
			if len(p.head) < 12 {
				break
			}
			p.state = readsRest
			if p.hears && p.onPack != nil {
				p.onPack()
			}
			// gitformat-pack(5): "PACK", the version, the number of objects.
			objects := int64(binary.BigEndian.Uint32(p.head[8:]))
			if p.maxObjects > 0 && objects > p.maxObjects {
				return i - n, fmt.Sprintf("the push brings %d objects, more than the %d that this server takes\npush a part of the history first, or have an admin raise [server] max_objects", objects, p.maxObjects)
			}
		default:
			n, why := p.line(b[i:])
			if i += n; why != "" {
				return i, why
			}
		}
	}
	return len(b), ""
}

// line takes some of a pkt-line (gitprotocol-common(5)) and returns how much.
func (p *pushed) line(b []byte) (n int, why string) {
	if p.payload > 0 {
		n = min(p.payload, len(b))
		p.payload -= n
		p.hears = p.hears || p.holds(b[:n], "side-band-64k")
		return n, ""
	}
	n = min(4-len(p.head), len(b))
	p.head = append(p.head, b[:n]...)
	if len(p.head) < 4 {
		return n, ""
	}
	if p.state == readsOptions && string(p.head) == "PACK" {
		p.state = readsPack
		return n, ""
	}
	size, err := strconv.ParseUint(string(p.head), 16, 16)
	p.head = p.head[:0]
	switch {
	case err != nil || size == 3:
		p.state = readsRest // git ends by that
	case size < 3:
		// A flush-pkt; git takes delim-pkt and response-end-pkt for the end of a list too.
		p.state, p.list = readsOptions, 0
	default:
		p.payload = int(size) - 4
		p.list += int(size)
	}
	switch {
	case p.state == readsCommands && p.list > maxCommands:
		return n, "the push names too many refs\npush fewer: git push REMOTE BRANCH"
	case p.state == readsOptions && p.list > maxOptions:
		return n, "the push options are too long\npush options are: clean, wait"
	}
	return n, ""
}

// holds tells whether a word is in what the lines hold so far, of which b is the
// newest part.
func (p *pushed) holds(b []byte, word string) bool {
	p.tail = append(p.tail, b...)
	found := bytes.Contains(p.tail, []byte(word))
	p.tail = append(p.tail[:0], p.tail[max(0, len(p.tail)-len(word)):]...)
	return found
}
