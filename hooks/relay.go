package hooks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// FDVariable names the environment variable that tells a hook which of its
// inherited descriptors is the socket to the server.
const FDVariable = "SCOTCH_HOOK_FD"

// lost is the answer where the server's end of the socket closed too early.
const lost = "the server ended before it answered; \"releases\" tells what is live"

// Main is a hook: git runs it by the name pre-receive, proc-receive or
// post-receive. It returns the exit status of the process. Its streams are what
// git gave it; getenv reads the environment.
func Main(name string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	// The pusher may leave at any time; writing to git then must not end this
	// process before it has read the server's answer to the end.
	signal.Ignore(syscall.SIGPIPE)
	conn, err := inherited(getenv)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	defer conn.Close()

	r := newRelay(conn, stderr, strconv.Itoa(os.Getpid()))
	defer r.drain()
	switch name {
	case PreReceive, PostReceive:
		err = r.receive(name, stdin, getenv)
	case ProcReceive:
		err = r.procReceive(bufio.NewReader(stdin), stdout)
	default:
		err = fmt.Errorf("there is no hook %q", name)
	}
	if err != nil {
		r.lines.add(fmt.Sprintf("%s: %v", name, err))
		return 1
	}
	return r.status
}

// inherited opens the socket that the server passed on through git.
func inherited(getenv func(string) string) (net.Conn, error) {
	v := getenv(FDVariable)
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s is %q: this hook is run by a push to a scotch server only", FDVariable, v)
	}
	f := os.NewFile(uintptr(fd), "scotch")
	defer f.Close() // FileConn has its own copy
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d, inherited from the server: %w", fd, err)
	}
	return conn, nil
}

// relay is one hook process.
type relay struct {
	conn   io.Writer
	in     *bufio.Reader
	out    *spool // standard error
	lines  lines
	id     string
	status int // exit status that the server asked for
}

func newRelay(conn io.ReadWriter, stderr io.Writer, id string) *relay {
	r := &relay{conn: conn, in: bufio.NewReader(conn), out: newSpool(stderr), id: id}
	// The thread of git that reads a hook's standard error dies with the
	// pusher's connection, and leaves the pipe open (copy_to_sideband in
	// receive-pack.c): a write to it then blocks for ever. So nothing here ever
	// waits for one but drain.
	r.lines.put = func(line string, must bool) bool { return r.out.put([]byte(line+"\n"), must) }
	return r
}

// stalled is how long a pusher may read nothing of what is left to say.
const stalled = time.Minute

// drain waits until the lines for the pusher are written, the server has closed
// the socket, or nobody has read any of it for a while.
func (r *relay) drain() {
	r.lines.end()
	r.out.finish()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		r.in.ReadByte() // the server sends nothing unasked
	}()
	patience := stalled
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		select {
		case <-r.out.done:
			return
		case <-t.C:
			return
		case <-closed:
			// A server that died leaves a pusher who reads; one who left does not.
			closed, patience = nil, time.Second
		case <-r.out.step:
		}
		t.Reset(patience)
	}
}

// receive is pre-receive and post-receive: "OLD NEW REF" lines on standard
// input, push options in the environment (githooks(5)).
func (r *relay) receive(name string, stdin io.Reader, getenv func(string) string) error {
	q := &request{hook: name, id: r.id, quarantine: getenv("GIT_QUARANTINE_PATH"), options: pushOptions(getenv)}
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		u, err := parseUpdate(lines.Text())
		if err != nil {
			return err
		}
		q.updates = append(q.updates, u)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading git's updates: %w", err)
	}
	return r.ask(q, func(answer) {})
}

// pushOptions reads GIT_PUSH_OPTION_COUNT and GIT_PUSH_OPTION_0…
func pushOptions(getenv func(string) string) []string {
	n, _ := strconv.Atoi(getenv("GIT_PUSH_OPTION_COUNT"))
	var options []string
	for i := range n {
		options = append(options, getenv(fmt.Sprintf("GIT_PUSH_OPTION_%d", i)))
	}
	return options
}

// ask sends the request and reads the answer to its end. Lines for the pusher
// go to standard error, verdicts on refs to verdict.
func (r *relay) ask(q *request, verdict func(answer)) error {
	if _, err := r.conn.Write(q.encode()); err != nil {
		return errors.New(lost)
	}
	for {
		p, err := readPacket(r.in)
		if err != nil {
			return errors.New(lost)
		}
		a, err := parseAnswer(p)
		if err != nil {
			return err
		}
		if a.id != r.id {
			continue
		}
		switch a.word {
		case "out":
			r.lines.add(a.rest)
		case "end":
			if r.status, err = strconv.Atoi(a.rest); err != nil {
				return fmt.Errorf("the server sent the status %q", a.rest)
			}
			return nil
		default:
			verdict(a)
		}
	}
}

// procReceive speaks git's protocol of the proc-receive hook (githooks(5)) on
// its standard streams.
func (r *relay) procReceive(stdin *bufio.Reader, stdout io.Writer) error {
	q, err := readCommands(stdin, stdout)
	if err != nil {
		return err
	}
	q.hook, q.id = ProcReceive, r.id

	verdicts := make(map[string]answer)
	asked := r.ask(q, func(a answer) {
		ref, reason, _ := strings.Cut(a.rest, " ")
		verdicts[ref] = answer{word: a.word, rest: reason}
	})
	var report []byte
	for _, u := range q.updates { // git wants the order that it asked in
		v, ok := verdicts[u.Ref]
		switch {
		case ok && v.word == "ok":
			report = appendPacket(report, "ok "+u.Ref)
		case ok && v.word == "fall-through" && asked == nil:
			report = appendPacket(report, "ok "+u.Ref)
			report = appendPacket(report, "option fall-through")
		case ok && v.word == "ng":
			report = appendPacket(report, "ng "+u.Ref+" "+v.rest)
		default:
			report = appendPacket(report, "ng "+u.Ref+" "+lost)
		}
	}
	if _, err := stdout.Write(appendFlush(report)); err != nil {
		return fmt.Errorf("answering git: %w", err)
	}
	// The refs that were refused say why; git takes an exit status besides as a
	// failure of all of them.
	r.status = 0
	return nil
}

// readCommands negotiates with git and reads what it wants to have done.
func readCommands(stdin *bufio.Reader, stdout io.Writer) (*request, error) {
	hello, err := readPacket(stdin)
	if err != nil {
		return nil, fmt.Errorf("reading git's version: %w", noEOF(err))
	}
	version, features, _ := strings.Cut(strings.TrimSuffix(string(hello), "\n"), "\x00")
	if version != "version=1" {
		return nil, fmt.Errorf("git speaks %q of the proc-receive protocol, this hook version=1", version)
	}
	if p, err := readPacket(stdin); err != nil || p != nil {
		return nil, fmt.Errorf("reading git's version: %w", errPacket)
	}
	q := new(request)
	wanted := "version=1"
	withOptions := false
	for f := range strings.FieldsSeq(features) {
		switch f {
		case "atomic":
			q.atomic = true
		case "push-options":
			withOptions = true
			wanted += "\x00push-options"
		}
	}
	if _, err := stdout.Write(appendFlush(appendPacket(nil, wanted))); err != nil {
		return nil, fmt.Errorf("answering git: %w", err)
	}
	lines, err := readLines(stdin)
	if err != nil {
		return nil, fmt.Errorf("reading git's commands: %w", err)
	}
	for _, l := range lines {
		u, err := parseUpdate(l)
		if err != nil {
			return nil, err
		}
		q.updates = append(q.updates, u)
	}
	if withOptions {
		if q.options, err = readLines(stdin); err != nil {
			return nil, fmt.Errorf("reading git's push options: %w", err)
		}
	}
	return q, nil
}

// readLines reads pkt-lines up to a flush-pkt.
func readLines(r *bufio.Reader) ([]string, error) {
	var lines []string
	for size := 0; size <= maxRequest; {
		p, err := readPacket(r)
		if err != nil {
			return nil, noEOF(err)
		}
		if p == nil {
			return lines, nil
		}
		size += len(p)
		lines = append(lines, strings.TrimSuffix(string(p), "\n"))
	}
	return nil, fmt.Errorf("more than %d bytes", maxRequest)
}
