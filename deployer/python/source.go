package python

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// maxFile is the size of what is read at most: declarations and modules.
const maxFile = 16 << 20

// source is a directory whose content is not trusted.
type source struct{ *os.Root }

func openSource(dir string) (source, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return source{}, fmt.Errorf("read the source: %w", err)
	}
	return source{r}, nil
}

// read returns a regular file. Whatever else has the name, and a link that
// leaves the tree, is an error; nothing is fs.ErrNotExist.
func (s source) read(name string) ([]byte, error) {
	return s.start(name, maxFile)
}

// start is read of the first bytes of a file.
func (s source) start(name string, most int64) ([]byte, error) {
	// O_NONBLOCK: a build may have left a named pipe here.
	f, err := s.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q in the source is no regular file", name)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%q in the source is larger than %d MB", name, maxFile>>20)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// text is read for who asks whether something is there.
func (s source) text(name string) (string, bool) {
	b, err := s.read(name)
	return string(b), err == nil
}

func (s source) isFile(name string) bool {
	info, err := s.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

func (s source) isDir(name string) bool {
	info, err := s.Stat(name)
	return err == nil && info.IsDir()
}

// list returns what is in a directory, sorted, nothing where there is none.
func (s source) list(name string) []fs.DirEntry {
	entries, err := fs.ReadDir(s.FS(), name)
	if err != nil {
		return nil
	}
	return entries
}
