package nginx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"
)

const (
	// failedWindow is where counting begins: mostly all that matters lies in it.
	failedWindow = 64 << 10
	// failedMost is how much of the log is read at most: some ten thousand
	// requests, more than is needed to judge an app.
	failedMost = 4 << 20
	// failedSlack is how far lines may be out of order. nginx's processes write
	// one as a request ends, each by its own clock.
	failedSlack = 5 * time.Second
)

// failedLine is a line of [nginx] failed_log, as far as it is counted by. The
// whole format is in templates/http.conf.
type failedLine struct {
	Ended  float64 `json:"ended"` // seconds since the epoch, in milliseconds
	Took   float64 `json:"took"`  // seconds
	Socket string  `json:"socket"`
	ID     string  `json:"id"`
}

func milliseconds(seconds float64) int64 { return int64(math.Round(seconds * 1000)) }

// Failures counts the requests that nginx handed to a socket and that ended
// with a 5xx status, the app's own or nginx's for an app that did not answer.
// Those that began before since are left out, to the millisecond. socket is the
// path in the configuration, through the link current.
//
// It reads the end of the log, back to the moment and no further than
// failedMost: of more failures than fit only the last are counted.
func (n *NGINX) Failures(ctx context.Context, socket string, since time.Time) (int, error) {
	for size := int64(failedWindow); ; size *= 4 {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		lines, whole, err := logEnd(n.failedLog, size)
		if err != nil {
			return 0, fmt.Errorf("counting failed requests: %w", err)
		}
		if whole || size >= failedMost || endsBefore(lines, since.Add(-failedSlack)) {
			return countFailed(lines, "unix:"+socket, since), nil
		}
	}
}

// endsBefore tells whether the first request of the lines was over at a moment.
func endsBefore(lines []byte, moment time.Time) bool {
	for line := range bytes.Lines(lines) {
		var l failedLine
		if json.Unmarshal(line, &l) == nil {
			return milliseconds(l.Ended) < moment.UnixMilli()
		}
	}
	return false
}

// countFailed reads from the end, so that it costs what it counts.
func countFailed(lines []byte, socket string, since time.Time) int {
	count := 0
	// While the log is rotated its lines are in two files.
	seen := make(map[string]bool)
	for len(lines) > 0 {
		start := bytes.LastIndexByte(lines[:len(lines)-1], '\n') + 1
		line := lines[start:]
		lines = lines[:start]
		if !bytes.Contains(line, []byte(socket)) {
			continue // another app's, most of them: parsing costs more
		}
		var l failedLine
		if json.Unmarshal(line, &l) != nil || seen[l.ID] {
			continue // a line that was cut
		}
		if milliseconds(l.Ended) < since.Add(-failedSlack).UnixMilli() {
			break
		}
		// Where several were tried, by a comma or a colon, the last one answered
		// (ngx_http_upstream_module, $upstream_addr).
		if last := l.Socket[strings.LastIndexByte(l.Socket, ' ')+1:]; last != socket {
			continue
		}
		seen[l.ID] = true
		if milliseconds(l.Ended)-milliseconds(l.Took) >= since.UnixMilli() {
			count++
		}
	}
	return count
}

// logEnd is the last size bytes of a log, and of what rotation has moved to
// path.1 before it. whole tells that there is nothing before them that is kept.
func logEnd(path string, size int64) (data []byte, whole bool, err error) {
	if data, whole, err = fileEnd(path, size); err != nil || !whole {
		return data, false, err
	}
	before, whole, err := fileEnd(path+".1", size-int64(len(data)))
	return append(before, data...), whole, err
}

// fileEnd is the last size bytes of a file, and whether that is all of it.
// There is nothing in a file that does not exist.
func fileEnd(path string, size int64) (data []byte, whole bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, false, err
	}
	from := max(0, end-size)
	data = make([]byte, end-from)
	n, err := f.ReadAt(data, from)
	if errors.Is(err, io.EOF) {
		err = nil // a rotation has made it shorter meanwhile
	}
	return data[:n], from == 0, err
}
