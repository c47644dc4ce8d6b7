package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// Read hands each of the last n lines to show, the oldest first, and with follow
// goes on with those that come until ctx is done, across rotation. A line has no
// line end; one that a full disk cut off is no JSON. An error of show ends it.
func (l *Log) Read(ctx context.Context, n int, follow bool, show func(line []byte) error) error {
	f, err := os.Open(l.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	var at int64
	var lines [][]byte
	if f != nil {
		if lines, at, err = lastLines(f, n); err != nil {
			return err
		}
	}
	for i := 1; len(lines) < n && i <= max(1, l.Keep); i++ {
		older, err := os.Open(l.rotated(i))
		if err != nil {
			break
		}
		more, _, err := lastLines(older, n-len(lines))
		older.Close()
		if err != nil {
			return err
		}
		lines = append(more, lines...)
	}
	for _, line := range lines {
		if err := show(line); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if f != nil {
			if at, err = newLines(f, at, show); err != nil {
				return err
			}
		}
		now, err := os.Stat(l.Path)
		if err == nil && (f == nil || !same(f, now)) {
			next, err := os.Open(l.Path)
			if err == nil {
				if f != nil {
					// What came between the look and the rotation.
					if _, err := newLines(f, at, show); err != nil {
						next.Close()
						return err
					}
					f.Close()
				}
				f, at = next, 0
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func same(f *os.File, fi os.FileInfo) bool {
	now, err := f.Stat()
	return err == nil && os.SameFile(now, fi)
}

// newLines shows the whole lines behind at and returns where they end.
func newLines(f *os.File, at int64, show func([]byte) error) (int64, error) {
	in := bufio.NewReader(io.NewSectionReader(f, at, 1<<62-at))
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return at, nil // the rest of a line comes later
		}
		if err != nil {
			return at, err
		}
		at += int64(len(line))
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := show(line); err != nil {
				return at, err
			}
		}
	}
}

// lastLines returns the last n whole lines of a file, and where they end.
func lastLines(f *os.File, n int) (lines [][]byte, end int64, err error) {
	if end, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, 0, err
	}
	var data []byte
	for at := end; at > 0 && bytes.Count(data, []byte{'\n'}) <= n+1; {
		chunk := min(at, 64<<10)
		at -= chunk
		buf := make([]byte, chunk, int(chunk)+len(data))
		if _, err := f.ReadAt(buf, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		data = append(buf, data...)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	end -= int64(len(data) - whole)
	for line := range bytes.Lines(data[:whole]) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):], end, nil
}
