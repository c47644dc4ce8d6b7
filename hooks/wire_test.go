package hooks

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"scotch/deployer"
)

const (
	idA = "1111111111111111111111111111111111111111"
	idB = "2222222222222222222222222222222222222222"
)

func TestRequestRoundTrip(t *testing.T) {
	want := &request{
		hook: ProcReceive, id: "42", atomic: true, quarantine: "/tmp/a b", options: []string{"", "a b", "ERR x", "\xff\n"},
		updates: []Update{{zero, idA, "refs/heads/main"}, {idA, idB, "refs/heads/x\xff"}},
	}
	r := bufio.NewReader(bytes.NewReader(append(want.encode(), want.encode()...)))
	for range 2 {
		got, err := readRequest(r)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if _, err := readRequest(r); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestRequestRefused(t *testing.T) {
	head := string(appendPacket(nil, "scotch-hooks version=1 hook=pre-receive id=1"))
	for _, in := range []string{
		"xxxx", "0001", "0003", "ffff", "0005", "0000", head, head + "00",
		string(appendPacket(nil, "scotch-hooks version=2 hook=pre-receive id=1")) + "0000",
		head + string(appendPacket(nil, "update "+idA+" "+idB)) + "0000",
		head + string(appendPacket(nil, "update "+idA+" "+idB+" refs/heads/a b")) + "0000",
		head + string(appendPacket(nil, "update x y refs/heads/a")) + "0000",
		head + string(appendPacket(nil, "nonsense")) + "0000",
		head + strings.Repeat(string(appendPacket(nil, "option "+strings.Repeat("x", 60000))), 300) + "0000",
	} {
		if q, err := readRequest(bufio.NewReader(strings.NewReader(in))); err == nil || err == io.EOF {
			t.Errorf("%.60q: %+v, %v", in, q, err)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add((&request{hook: PreReceive, id: "1", updates: []Update{{zero, idA, "refs/heads/main"}}}).encode())
	f.Add((&request{hook: ProcReceive, id: "2", atomic: true, quarantine: "q", options: []string{"a"}}).encode())
	f.Add([]byte("0005x0000"))
	f.Fuzz(func(t *testing.T, in []byte) {
		q, err := readRequest(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		// What was understood is sent again and understood alike.
		again, err := readRequest(bufio.NewReader(bytes.NewReader(q.encode())))
		if err != nil || !reflect.DeepEqual(q, again) {
			t.Errorf("%+v became %+v, %v", q, again, err)
		}
	})
}

func FuzzReadCommands(f *testing.F) {
	f.Add([]byte("0027version=1\x00push-options atomic000000000000"))
	f.Add(appendFlush(appendPacket(appendFlush(appendPacket(nil, "version=1\n")), idA+" "+idB+" refs/heads/main")))
	f.Fuzz(func(t *testing.T, in []byte) {
		q, err := readCommands(bufio.NewReader(bytes.NewReader(in)), io.Discard)
		if err == nil && q == nil {
			t.Error("neither commands nor an error")
		}
	})
}

// git's side of the proc-receive protocol, for one update.
func gitSays() *bufio.Reader {
	b := appendFlush(appendPacket(nil, "version=1\n"))
	b = appendFlush(appendPacket(b, zero+" "+idA+" refs/heads/main"))
	return bufio.NewReader(bytes.NewReader(b))
}

// serverSays is a socket with the server's answer in it.
func serverSays(in []byte) io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(in), io.Discard}
}

// Once the pusher is gone, git reads the hook's standard error no more and keeps
// it open. The verdict must get through, and the hook must end with the server.
func TestRelayNobodyReads(t *testing.T) {
	server, hook := net.Pipe()
	_, stderr := io.Pipe()
	r := newRelay(hook, stderr, "8")
	ended := make(chan string)
	go func() {
		var stdout bytes.Buffer
		if err := r.procReceive(gitSays(), &stdout); err != nil {
			t.Error(err)
		}
		r.drain()
		ended <- stdout.String()
	}()
	if _, err := readRequest(bufio.NewReader(server)); err != nil {
		t.Fatal(err)
	}
	long := appendPacket(nil, "8 out "+strings.Repeat("x", 60000))
	for range 200 { // more than is kept
		if _, err := server.Write(long); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{"8 ok refs/heads/main", "8 end 0"} {
		if _, err := server.Write(appendPacket(nil, l)); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	if got := <-ended; !strings.Contains(got, "ok refs/heads/main") {
		t.Errorf("answered %q", got)
	}
}

// A hook that was killed leaves what it did not read to the next one.
func TestRelaySkipsStaleLines(t *testing.T) {
	var in []byte
	for _, l := range []string{"7 out old", "7 ok refs/heads/main", "7 end 0", "8 out new", "8 ng refs/heads/main because of it", "8 end 0"} {
		in = appendPacket(in, l)
	}
	var stdout, stderr bytes.Buffer
	r := newRelay(serverSays(in), &stderr, "8")
	if err := r.procReceive(gitSays(), &stdout); err != nil {
		t.Fatal(err)
	}
	r.out.finish()
	<-r.out.done
	if got := stderr.String(); got != "new\n" {
		t.Errorf("said %q", got)
	}
	if !strings.Contains(stdout.String(), "ng refs/heads/main because of it") {
		t.Errorf("answered %q", &stdout)
	}
}

func TestRelayServerGone(t *testing.T) {
	for name, in := range map[string][]byte{
		"at once": nil,
		"half":    appendPacket(nil, "8 out x"),
		// A fall-through that nobody ended is not to be moved.
		"undone": appendPacket(nil, "8 fall-through refs/heads/main"),
	} {
		var stdout bytes.Buffer
		r := newRelay(serverSays(in), io.Discard, "8")
		if err := r.procReceive(gitSays(), &stdout); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(stdout.String(), "ng refs/heads/main the server ended before it answered") {
			t.Errorf("%s: answered %q", name, &stdout)
		}
	}
	// What the server has said before it ended counts: the app is live.
	var stdout bytes.Buffer
	r := newRelay(serverSays(appendPacket(nil, "8 ok refs/heads/main")), io.Discard, "8")
	if err := r.procReceive(gitSays(), &stdout); err != nil || !strings.Contains(stdout.String(), "ok refs/heads/main") {
		t.Errorf("answered %q, %v", &stdout, err)
	}
}

func TestMainOutsideOfAPush(t *testing.T) {
	var stderr bytes.Buffer
	if status := Main(PreReceive, strings.NewReader(""), io.Discard, &stderr, func(string) string { return "" }); status != 1 {
		t.Errorf("exit status %d", status)
	}
	if !strings.Contains(stderr.String(), "run by a push to a scotch server only") {
		t.Errorf("said %q", &stderr)
	}
}

// talker writes more than any buffer takes.
type talker struct{ returned chan struct{} }

func (d *talker) Deploy(_ context.Context, _ deployer.Request, out io.Writer) (deployer.Result, error) {
	defer close(d.returned)
	for range 100000 {
		io.WriteString(out, strings.Repeat("x", 100)+"\n")
	}
	return deployer.Result{}, nil
}

type simple struct{}

func (simple) Ref(context.Context, string, string) (string, error)            { return "", nil }
func (simple) Head(context.Context, string) (string, error)                   { return "refs/heads/main", nil }
func (simple) Kind(context.Context, string, string) (string, error)           { return "commit", nil }
func (simple) Complete(context.Context, string, string) (bool, error)         { return true, nil }
func (simple) Descends(context.Context, string, string, string) (bool, error) { return true, nil }
func (simple) Deployable(context.Context, string, string) error               { return nil }

// A pusher who stops reading (Ctrl-Z) does not hold up the deploy, and gets the
// verdict when reading goes on.
func TestSlowReader(t *testing.T) {
	server, client := net.Pipe()
	d := &talker{returned: make(chan struct{})}
	h := &Handler{Repository: simple{}, Deployer: d, Branch: func(string) (string, bool, error) { return "main", false, nil }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Handle(context.Background(), server, Push{App: "blog", By: "ada"})
	}()
	q := &request{hook: ProcReceive, id: "1", updates: []Update{{zero, idA, "refs/heads/main"}}}
	if _, err := client.Write(q.encode()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.returned:
	case <-time.After(20 * time.Second):
		t.Fatal("the deploy waits for the pusher")
	}
	in := bufio.NewReader(client)
	var words []string
	lines := 0
	for len(words) == 0 || words[len(words)-1] != "end" {
		p, err := readPacket(in)
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseAnswer(p)
		if err != nil {
			t.Fatal(err)
		}
		if a.word == "out" {
			lines++
			continue
		}
		words = append(words, a.word)
	}
	if strings.Join(words, " ") != "ok end" || lines > 20000 {
		t.Errorf("answered %q after %d lines", words, lines)
	}
	client.Close()
	<-done
}
