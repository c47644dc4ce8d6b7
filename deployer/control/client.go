package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// ErrNoServer says that no server answers at the socket.
var ErrNoServer = errors.New("no server is running")

// ForbiddenError says that a server's socket is not the caller's to open. Nothing
// was done.
type ForbiddenError struct{ Socket string }

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("the server's socket %q is not yours to open\nrun this as the server's user, or as root", e.Socket)
}

// Do sends a call to the server at the socket and carries its input and output
// until it has ended. It returns the exit status. stdin is read only where the
// call says so. term is the terminal that both are of, nil for none; it is out of
// raw mode again when Do returns. An error that matches ErrNoServer means that nothing was done.
func Do(ctx context.Context, socket string, c Call, stdin io.Reader, stdout, stderr io.Writer, term *Terminal) (int, error) {
	var raw func(bool)
	if term != nil && c.Stdin {
		size := <-term.Sizes
		c.Terminal = &caller{Name: term.Name, Rows: size.Row, Columns: size.Col}
		raw = term.Raw
		defer raw(false)
	}
	line, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	var body io.Reader = bytes.NewReader(append(line, '\n'))
	if c.Stdin && stdin != nil {
		// net/http waits for a read of the body that is under way, also when ctx
		// is done; a terminal's may never return.
		r, w := io.Pipe()
		go func() {
			var err error
			if c.Terminal != nil {
				err = sendInput(w, stdin, term.Sizes, ctx.Done())
			} else {
				_, err = io.Copy(w, stdin)
			}
			w.CloseWithError(err)
		}()
		stop := context.AfterFunc(ctx, func() { r.CloseWithError(context.Cause(ctx)) })
		defer stop()
		defer r.Close()
		body = io.MultiReader(body, r)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // one call is all that a client makes
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://scotch"+callPath, body)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrPermission):
			return 0, &ForbiddenError{socket}
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			return 0, ErrNoServer
		}
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return 0, fmt.Errorf("the server refused the call: %s", strings.TrimSpace(string(why)))
	}
	return readFrames(resp.Body, stdout, stderr, raw)
}
