package gitserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"scotch/hooks"
)

// procReceive hands lines between git and the server: "env K=V", "opt OPTION",
// "ref NAME NEW" and "end" go there, and come back: "say TEXT", and one
// "ok", "store" or "ng REASON" per ref.
func procReceive() error {
	in := bufio.NewReader(os.Stdin)
	hello, err := packets(in)
	if err != nil {
		return err
	}
	packet("version=1\x00push-options")
	fmt.Print("0000")
	f := os.NewFile(3, "server")
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	f.Close()
	for _, kv := range os.Environ() {
		fmt.Fprintf(conn, "env %q\n", kv)
	}
	commands, err := packets(in)
	if err != nil {
		return err
	}
	if strings.Contains(hello[0], "push-options") {
		options, err := packets(in)
		if err != nil {
			return err
		}
		for _, o := range options {
			fmt.Fprintf(conn, "opt %s\n", o)
		}
	}
	var refs []string
	for _, c := range commands {
		f := strings.Fields(c)
		refs = append(refs, f[2])
		fmt.Fprintf(conn, "ref %s %s\n", f[2], f[1])
	}
	fmt.Fprintln(conn, "end")
	for answers := bufio.NewScanner(conn); len(refs) > 0; {
		if !answers.Scan() {
			return errors.New("the server left")
		}
		verb, text, _ := strings.Cut(answers.Text(), " ")
		switch verb {
		case "say":
			fmt.Fprintln(os.Stderr, text)
			continue
		case "ok":
			packet("ok " + refs[0])
		case "store":
			packet("ok " + refs[0])
			packet("option fall-through")
		case "ng":
			packet("ng " + refs[0] + " " + text)
		}
		refs = refs[1:]
	}
	fmt.Print("0000")
	return nil
}

func packet(s string) { fmt.Printf("%04x%s", len(s)+4, s) }

// packets reads pkt-lines up to a flush.
func packets(r io.Reader) ([]string, error) {
	var out []string
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(r, head); err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(string(head), 16, 16)
		if err != nil || n < 4 {
			return out, err
		}
		body := make([]byte, n-4)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, err
		}
		out = append(out, strings.TrimSuffix(string(body), "\n"))
	}
}

// received is what a push handler was told.
type received struct {
	hooks.Push
	env, options, refs []string
}

// pusher is a PushHandler that answers as told.
type pusher struct {
	// answer says what to write for a ref; nil: everything is stored.
	answer func(ctx context.Context, p *received, ref string) string

	mu     sync.Mutex
	pushes []*received
}

func (h *pusher) Handle(ctx context.Context, conn net.Conn, p hooks.Push) {
	got := &received{Push: p}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		verb, text, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "env":
			kv, _ := strconv.Unquote(text)
			got.env = append(got.env, kv)
		case "opt":
			got.options = append(got.options, text)
		case "ref":
			got.refs = append(got.refs, text)
		case "end":
			h.mu.Lock()
			h.pushes = append(h.pushes, got)
			h.mu.Unlock()
			for _, ref := range got.refs {
				answer := "store"
				if h.answer != nil {
					answer = h.answer(ctx, got, ref)
				}
				fmt.Fprintln(conn, answer)
			}
		}
	}
}

func (h *pusher) all() []*received {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*received(nil), h.pushes...)
}
