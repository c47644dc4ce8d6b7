package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// Log is the file. Its methods may be called at once by many. The zero Log has no
// file and records nothing.
type Log struct {
	// Path of the file; the rotated ones are Path.1, the newest, Path.2, …
	Path string
	// Size at which the file is rotated, bytes; 0: never.
	Size int64
	// Keep is how many rotated files stay, at least one.
	Keep int
	// Report is told once when recording begins to fail, and with nil when it
	// works again. nil: nobody is told.
	Report func(error)

	mu     sync.Mutex
	f      *os.File
	id     os.FileInfo
	size   int64
	torn   bool // the file does not end in a line end
	broken bool

	floods map[string]*flood // by what is counted together
}

// Record appends an entry, with the time of now. It always returns soon.
func (l *Log) Record(e Entry) {
	if l == nil || l.Path == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now().UTC().Truncate(time.Millisecond)
	}
	if !l.admit(&e) {
		return
	}
	e.bound()
	err := l.append(e)
	switch {
	case err != nil && !l.broken:
		l.report(fmt.Errorf("the audit log %q cannot be written; what is done now is not recorded: %w", l.Path, err))
	case err == nil && l.broken:
		l.report(nil)
	}
	l.broken = err != nil
}

func (l *Log) report(err error) {
	if l.Report != nil {
		l.Report(err)
	}
}

// Close closes the file; the next Record opens it again.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.close()
}

func (l *Log) close() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f, l.id = nil, nil
	return err
}

func (l *Log) append(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if err := l.open(); err != nil {
		return err
	}
	if l.Size > 0 && l.size > 0 && l.size+int64(len(line)) > l.Size {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.f.Write(line)
	l.size += int64(n)
	if n > 0 {
		l.torn = n < len(line)
	}
	if err != nil {
		l.close()
	}
	return err
}

// open opens the file unless it is open already, also anew where somebody else
// has renamed it or taken it away.
func (l *Log) open() error {
	if l.f != nil {
		if now, err := os.Lstat(l.Path); err == nil && os.SameFile(now, l.id) {
			return nil
		}
		l.close()
	}
	// A pipe would hold up the caller, a link could lead anywhere.
	f, err := os.OpenFile(l.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil && fi.Mode().Perm() != 0o600 {
		err = f.Chmod(0o600)
	}
	l.torn = false
	if err == nil && fi.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, fi.Size()-1); err == nil || errors.Is(err, io.EOF) {
			l.torn = last[0] != '\n'
		}
	}
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.id, l.size = f, fi, fi.Size()
	return nil
}

// rotate renames the file and begins a new one.
func (l *Log) rotate() error {
	if err := l.close(); err != nil {
		return err
	}
	for i := max(1, l.Keep); i >= 1; i-- {
		from := l.rotated(i - 1)
		if err := os.Rename(from, l.rotated(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return l.open()
}

// rotated is the path of the nth file, 0 for the one that is written.
func (l *Log) rotated(n int) string {
	if n == 0 {
		return l.Path
	}
	return fmt.Sprintf("%s.%d", l.Path, n)
}
