package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"scotch/config"
)

// Call is one command: what a person typed after the program's name.
type Call struct {
	Args []string `json:"args"`
	// Stdin tells that the command reads its input, which follows.
	Stdin bool `json:"stdin,omitempty"`
	// Files are the site files that the client was told to read (-c), absolute.
	// They found the server and are nothing else to it.
	Files []string `json:"files,omitempty"`
	// Terminal is what the call was typed at, nil for none. Do fills it in.
	Terminal *caller `json:"terminal,omitempty"`
	// Screen tells that the output goes to a terminal, whatever the input is.
	Screen bool `json:"screen,omitempty"`
	// Version of the client's program; the two may differ after an upgrade.
	Version string `json:"version,omitempty"`
}

// Handler runs a call and returns its exit status. ctx ends with the client.
// term is nil where the call was not typed at a terminal.
type Handler func(ctx context.Context, c Call, stdin io.Reader, stdout, stderr io.Writer, term *Terminal) int

const (
	callPath = "/v1/call"
	maxCall  = 1 << 20 // bytes of the line that describes a call
	pingEach = 20 * time.Second
	lastRead = 10 * time.Second // of what a client sends when its command has ended
)

// Listen opens the control socket with mode 0600 from its first moment on. A
// socket that nobody answers at is what a killed server left, and replaced.
// The caller closes the listener, which removes the socket.
func Listen(path string) (net.Listener, error) {
	if err := config.CheckSocketPath(path); err != nil {
		return nil, err
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("a server is running already: it answers at %q", path)
	}
	// Made under another name, closed to all others, and only then moved to
	// where clients look.
	early := path + ".new"
	if err := os.Remove(early); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: early, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(early, 0o600), os.Rename(early, path)); err != nil {
		l.Close()
		return nil, err
	}
	return &listener{UnixListener: l, path: path}, nil
}

type listener struct {
	*net.UnixListener
	path string
	once sync.Once
	err  error
}

// Close may be called more than once, also at the same time: when any call
// returns the socket is gone.
func (l *listener) Close() error {
	l.once.Do(func() {
		if l.err = l.UnixListener.Close(); l.err == nil {
			os.Remove(l.path)
		}
	})
	return l.err
}

// Server answers calls. Make one with NewServer.
type Server struct {
	http *http.Server
	// cancel ends the contexts of calls.
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // calls; added to while !closed only
}

func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Add(1)
	}
	return !s.closed
}

// NewServer returns a server that has handle run the calls.
func NewServer(handle Handler) *Server {
	calls, cancel := context.WithCancel(context.Background())
	s := &Server{cancel: cancel}
	s.http = &http.Server{
		Handler:           s.handler(handle),
		BaseContext:       func(net.Listener) context.Context { return calls },
		ReadHeaderTimeout: 10 * time.Second,
	}
	return s
}

// Serve answers calls until ctx is done, when it closes l and returns nil. Calls
// under way go on: Shutdown ends them, and must be called.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown cancels the contexts of the calls under way and waits for their end.
// When ctx is done it closes the connections, so that nobody writes any longer to a
// client that does not read.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	s.work.Wait()
}

func (s *Server) handler(handle Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+callPath, func(w http.ResponseWriter, r *http.Request) {
		if !s.begin() {
			http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
			return
		}
		defer s.work.Done()
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		body := bufio.NewReader(r.Body)
		line, err := readLine(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var c Call
		if err := json.Unmarshal(line, &c); err != nil {
			http.Error(w, "the call is not understood: "+err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		// What is left of the body must not be taken for a next request.
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusOK)
		out := &framer{w: w, flush: rc.Flush}
		if out.frame(framePing, nil) != nil {
			return
		}
		go ping(ctx, out, cancel)
		var term *Terminal
		sizes := make(chan unix.Winsize, 1)
		if c.Terminal != nil {
			sizes <- unix.Winsize{Row: c.Terminal.Rows, Col: c.Terminal.Columns}
			term = &Terminal{Name: c.Terminal.Name, Sizes: sizes, Raw: func(on bool) {
				mode := []byte{0}
				if on {
					mode[0] = 1
				}
				out.frame(frameRaw, mode)
			}}
		}
		in, drained := input(ctx, cancel, c, body, sizes)
		status := handle(ctx, c, in, stream{out, frameStdout}, stream{out, frameStderr}, term)
		in.Close()
		if out.frame(frameExit, []byte{byte(status)}) != nil {
			return
		}
		// The client goes once it has the status. Before, it may still send, and
		// would lose the answer if nobody read that.
		if rc.SetReadDeadline(time.Now().Add(lastRead)) == nil {
			<-drained
		}
	})
	return mux
}

// ping notices a client that is gone while the command is silent.
func ping(ctx context.Context, out *framer, cancel func()) {
	tick := time.NewTicker(pingEach)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if out.frame(framePing, nil) != nil {
				cancel()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// input is the command's standard input. The body is read in any case, to its end:
// that is how net/http notices that the client is gone. drained is closed then.
func input(ctx context.Context, cancel func(), c Call, body io.Reader, sizes chan unix.Winsize) (in *io.PipeReader, drained <-chan struct{}) {
	r, w := io.Pipe()
	over := make(chan struct{})
	go func() {
		defer close(over)
		var to io.Writer = io.Discard
		if c.Stdin {
			to = w
		} else {
			w.Close()
		}
		var err error
		if c.Stdin && c.Terminal != nil {
			if err = readInput(body, to, sizes); errors.Is(err, io.EOF) {
				err = nil
			}
		} else {
			_, err = io.Copy(to, body)
		}
		if errors.Is(err, io.ErrClosedPipe) { // the command reads no more
			_, err = io.Copy(io.Discard, body)
		}
		w.CloseWithError(err)
		if err != nil {
			cancel()
		}
	}()
	context.AfterFunc(ctx, func() { r.CloseWithError(context.Cause(ctx)) })
	return r, over
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxCall {
			return nil, fmt.Errorf("a call of more than %d bytes", maxCall)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return line, err
	}
}
