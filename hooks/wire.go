package hooks

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The protocol between the two halves, version 1. It is made of git's pkt-lines
// (gitprotocol-common(5)), because ref names and push options are bytes, not
// text. One socket serves the hooks of one push, one after another: each sends
// one request and reads its answer to the end before the next one starts.
//
//	hook:    scotch-hooks version=1 hook=NAME id=ID
//	         atomic                    (proc-receive, where the pusher asked for it)
//	         quarantine DIR            (pre-receive: where the new objects are)
//	         option TEXT               (one for each push option)
//	         update OLD NEW REF        (one for each ref)
//	         flush-pkt
//	server:  ID out LINE               (for standard error; any number, at any time)
//	         ID ok REF
//	         ID fall-through REF       (git is to move this ref itself)
//	         ID ng REF REASON
//	         ID end STATUS             (exit status of the hook; the last line)
//
// ID is the hook's own choice. A hook skips lines with another one: they are
// what an earlier hook of the push, that was killed, did not read.
const (
	wireVersion = 1
	wireHeader  = "scotch-hooks"

	// maxPacket is the longest payload of a pkt-line, in bytes: LARGE_PACKET_MAX
	// of git's pkt-line.h without the length.
	maxPacket = 65520 - 4
	// maxRequest bounds what one request may hold in memory, in bytes.
	maxRequest = 16 << 20
)

// Names of the hooks, as git calls them (githooks(5)).
const (
	PreReceive  = "pre-receive"
	ProcReceive = "proc-receive"
	PostReceive = "post-receive"
)

// Update is one ref of a push. Old and New are object names of 40 digits, zeros
// where the ref does not exist before or after.
type Update struct {
	Old, New, Ref string
}

// zero is git's object name for "none".
const zero = "0000000000000000000000000000000000000000"

// request is what one hook process sends.
type request struct {
	hook, id   string
	atomic     bool
	quarantine string
	options    []string
	updates    []Update
}

var errPacket = errors.New("malformed pkt-line")

// readPacket reads one pkt-line. A flush-pkt is nil, an empty packet is not.
// io.EOF means that the stream ended between two of them.
func readPacket(r *bufio.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	switch {
	case err != nil:
		return nil, errPacket
	case n == 0:
		return nil, nil
	case n < 4 || n > maxPacket+4:
		return nil, errPacket
	}
	p := make([]byte, n-4)
	if _, err := io.ReadFull(r, p); err != nil {
		return nil, noEOF(err)
	}
	return p, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendPacket appends payload as a pkt-line, cut where it is longer than one holds.
func appendPacket(b []byte, payload string) []byte {
	payload = payload[:min(len(payload), maxPacket)]
	return append(fmt.Appendf(b, "%04x", len(payload)+4), payload...)
}

func appendFlush(b []byte) []byte { return append(b, "0000"...) }

// encode is the request as it goes over the socket.
func (q *request) encode() []byte {
	b := appendPacket(nil, fmt.Sprintf("%s version=%d hook=%s id=%s", wireHeader, wireVersion, q.hook, q.id))
	if q.atomic {
		b = appendPacket(b, "atomic")
	}
	if q.quarantine != "" {
		b = appendPacket(b, "quarantine "+q.quarantine)
	}
	for _, o := range q.options {
		b = appendPacket(b, "option "+o)
	}
	for _, u := range q.updates {
		b = appendPacket(b, "update "+u.Old+" "+u.New+" "+u.Ref)
	}
	return appendFlush(b)
}

// readRequest reads the next hook's request; io.EOF says that there is none.
func readRequest(r *bufio.Reader) (*request, error) {
	p, err := readPacket(r)
	if err != nil {
		return nil, err
	}
	q := new(request)
	version := 0
	if n, err := fmt.Sscanf(string(p), wireHeader+" version=%d hook=%s id=%s", &version, &q.hook, &q.id); err != nil || n != 3 {
		return nil, fmt.Errorf("a hook began with %q", p)
	}
	if version != wireVersion {
		return nil, fmt.Errorf("a hook speaks version %d of the protocol, this server version %d", version, wireVersion)
	}
	for size := len(p); ; size += len(p) {
		if size > maxRequest {
			return nil, fmt.Errorf("a hook sent more than %d bytes", maxRequest)
		}
		if p, err = readPacket(r); err != nil {
			return nil, noEOF(err)
		}
		if p == nil {
			return q, nil
		}
		word, rest, _ := bytes.Cut(p, []byte(" "))
		switch string(word) {
		case "atomic":
			q.atomic = true
		case "quarantine":
			q.quarantine = string(rest)
		case "option":
			q.options = append(q.options, string(rest))
		case "update":
			u, err := parseUpdate(string(rest))
			if err != nil {
				return nil, err
			}
			q.updates = append(q.updates, u)
		default:
			return nil, fmt.Errorf("a hook sent %q", p)
		}
	}
}

// parseUpdate reads "OLD NEW REF", as git gives it to all its receiving hooks.
func parseUpdate(line string) (Update, error) {
	f := strings.SplitN(line, " ", 3)
	if len(f) != 3 || !objectName(f[0]) || !objectName(f[1]) || f[2] == "" || strings.ContainsAny(f[2], " \n\x00") {
		return Update{}, fmt.Errorf("malformed ref update %q", line)
	}
	return Update{Old: f[0], New: f[1], Ref: f[2]}, nil
}

func objectName(s string) bool {
	return len(s) == len(zero) && strings.Trim(s, "0123456789abcdef") == ""
}

// answer is one line of the server's answer.
type answer struct {
	id, word, rest string
}

func parseAnswer(p []byte) (answer, error) {
	id, tail, _ := strings.Cut(string(p), " ")
	word, rest, ok := strings.Cut(tail, " ")
	if !ok {
		return answer{}, fmt.Errorf("the server sent %q", p)
	}
	return answer{id, word, rest}, nil
}
