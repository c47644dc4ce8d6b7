package uwsgi

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"scotch/deployer"
)

// maxBody is how much of an answer's body Probe reads before it hangs up.
const maxBody = 1 << 20

// Probe sends one request through the socket and returns the status of the
// answer. The body is read to its end, or its first MiB: an app that is left
// in the middle of an answer logs an error. An answer whose body does not end
// before ctx does still counts by its status.
func (u *UWSGI) Probe(ctx context.Context, socket string, r deployer.ProbeRequest) (int, error) {
	packet, err := request(r)
	if err != nil {
		return 0, err
	}
	conn, err := deployer.DialApp(ctx, socket, r.User)
	if err != nil {
		return 0, fmt.Errorf("connecting to the app: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	if _, err := conn.Write(packet); err != nil {
		return 0, failed(ctx, "sending the request", err)
	}
	// Its buffer bounds the line: an app may send one without an end.
	answer := bufio.NewReader(conn)
	first, err := answer.ReadSlice('\n')
	line := string(first)
	if line == "" && err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return 0, deployer.ErrEmptyReply
		}
		return 0, failed(ctx, "waiting for the answer", err)
	}
	status, ok := statusOf(line)
	if !ok {
		return 0, fmt.Errorf("the app's answer is no HTTP: it begins with %q", firstRunes(line, 40))
	}
	io.CopyN(io.Discard, answer, maxBody)
	return status, nil
}

func failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return &lateError{what}
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// lateError is a request that was given up.
type lateError struct{ what string }

func (e *lateError) Error() string        { return e.what + ": it takes too long" }
func (e *lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// statusOf reads "HTTP/1.1 200 OK".
func statusOf(line string) (int, bool) {
	proto, rest, ok := strings.Cut(line, " ")
	if !ok || !strings.HasPrefix(proto, "HTTP/") || len(rest) < 3 {
		return 0, false
	}
	status, err := strconv.Atoi(rest[:3])
	return status, err == nil && status >= 100
}

// request makes a packet of the uwsgi protocol: modifier1 0 (WSGI), the size
// of the variables, little-endian, modifier2 0, and the variables, each name
// and value with its size before it
// (https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html). The variables
// are those that the web server sends (RFC 3875).
func request(r deployer.ProbeRequest) ([]byte, error) {
	raw, query, _ := strings.Cut(r.Path, "?")
	path, err := url.PathUnescape(raw)
	if err != nil || !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, unicode.IsControl) {
		return nil, fmt.Errorf("%q is no path of a URL", r.Path)
	}
	below, ok := strings.CutPrefix(path, r.Prefix)
	if !ok {
		return nil, fmt.Errorf("the path %q is not below the app's prefix %q", r.Path, r.Prefix)
	}
	scheme, port := r.Scheme, "80"
	if scheme == "" {
		scheme = "http"
	}
	if scheme == "https" {
		port = "443"
	}
	name := r.Host
	if h, p, err := net.SplitHostPort(r.Host); err == nil {
		name, port = h, p
	}
	vars := [][2]string{
		{"REQUEST_METHOD", "GET"},
		{"REQUEST_URI", r.Path},
		{"SCRIPT_NAME", r.Prefix},
		{"PATH_INFO", below},
		{"QUERY_STRING", query},
		{"CONTENT_TYPE", ""},
		{"CONTENT_LENGTH", ""},
		{"SERVER_PROTOCOL", "HTTP/1.1"},
		{"SERVER_NAME", name},
		{"SERVER_PORT", port},
		{"REMOTE_ADDR", "127.0.0.1"},
		{"REMOTE_PORT", "0"},
		{"REQUEST_SCHEME", scheme},
		{"UWSGI_SCHEME", scheme},
		{"SCOTCH_APP", r.App},
		{"HTTP_HOST", r.Host},
		{"HTTP_USER_AGENT", "scotch"},
		{"HTTP_ACCEPT", "*/*"},
		{"HTTP_X_REAL_IP", "127.0.0.1"},
		{"HTTP_X_FORWARDED_FOR", "127.0.0.1"},
		{"HTTP_X_FORWARDED_PROTO", scheme},
		{"HTTP_X_FORWARDED_HOST", r.Host},
	}
	if scheme == "https" {
		vars = append(vars, [2]string{"HTTPS", "on"})
	}
	packet := make([]byte, 4, 1024)
	for _, v := range vars {
		for _, s := range v {
			if len(s) > 1<<15 {
				return nil, fmt.Errorf("the request is too long: %s has %d bytes", v[0], len(s))
			}
			packet = binary.LittleEndian.AppendUint16(packet, uint16(len(s)))
			packet = append(packet, s...)
		}
	}
	size := len(packet) - 4
	if size > 1<<15 {
		return nil, fmt.Errorf("the request is too long: %d bytes", size)
	}
	binary.LittleEndian.PutUint16(packet[1:3], uint16(size))
	return packet, nil
}
