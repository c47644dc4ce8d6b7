package deployer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Each instance writes a log of its own, <logs>/NAME/ID.log, so that a failed
// start can be told from the noise of the version that serves. For a reader
// they are one log.

// Logs writes the last n lines of an app's log to out and, with follow, goes on
// with what comes until ctx is done: across restarts, releases and rotation.
func (d *Deployer) Logs(ctx context.Context, app string, n int, follow bool, out io.Writer) error {
	if err := d.known(app); err != nil {
		return err
	}
	dir := filepath.Join(d.site.Paths.Logs, app)
	files, err := logFiles(dir)
	if err != nil {
		return err
	}
	at, from := map[string]int64{}, map[string]int64{}
	for i, left := len(files)-1, n; i >= 0; i-- {
		path := files[i]
		var lines int
		at[path], from[path], lines, err = tailOf(path, left)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		left -= lines
	}
	for _, path := range files {
		if err := showLines(ctx, out, path, from[path], at[path]); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	return d.followLogs(ctx, dir, at, out)
}

// errFollowing ends whoever follows a log: they must not hold up the server.
var errFollowing = &RefusedError{Reason: errClosing.Error(), Hint: "follow again once it is back"}

const followPoll = 200 * time.Millisecond

// followLogs polls: the files are written by the apps themselves, on any file system.
func (d *Deployer) followLogs(ctx context.Context, dir string, at map[string]int64, out io.Writer) error {
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	report := NewReport(out)
	partial := map[string]*lineWriter{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.ctx.Done():
			return errFollowing
		case <-tick.C:
		}
		files, err := logFiles(dir)
		if err != nil {
			return err
		}
		for _, path := range files {
			fi, err := os.Stat(path)
			if err != nil || fi.Size() == at[path] {
				continue
			}
			// A rotation took the head away, as much as lies in path.1 now.
			if fi.Size() < at[path] {
				at[path] -= cutOff(path + ".1")
				if at[path] < 0 || at[path] > fi.Size() {
					at[path] = 0
				}
			}
			w := partial[path]
			if w == nil {
				w = &lineWriter{r: report}
				partial[path] = w
			}
			n, err := copyFrom(w, path, at[path])
			at[path] += n
			if err != nil {
				return err
			}
		}
	}
}

// cutOff is how many bytes the rotation took off a log that made old: those in
// it and, where it says so in its first line, those that were dropped.
func cutOff(old string) int64 {
	f, err := os.Open(old)
	if err != nil {
		return 0
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0
	}
	var dropped int64
	if _, err := fmt.Fscanf(io.NewSectionReader(f, 0, 128), droppedLine, &dropped); err != nil {
		return fi.Size()
	}
	return fi.Size() - int64(len(fmt.Sprintf(droppedLine, dropped))) + dropped
}

// droppedLine stands at the head of a rotated log that is not whole.
const droppedLine = "scotch: %d bytes before this line were dropped: the log grew faster than it is rotated\n"

func copyFrom(w io.Writer, path string, at int64) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, nil // removed meanwhile
	}
	defer f.Close()
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(w, f)
}

// logFiles lists the logs of an app's instances, the oldest first.
func logFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".log"); ok && validID(id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareIDs)
	for i, id := range ids {
		ids[i] = filepath.Join(dir, id+".log")
	}
	return ids, nil
}

// DeployLog writes the log of a deploy to out: of the operation under way or,
// without one, the last; of release n where n is above 0; of a deploy that failed,
// by Failed.Log, where that is given. With follow it stays
// until a deploy under way has ended.
func (d *Deployer) DeployLog(ctx context.Context, app string, n int, failed string, follow bool, out io.Writer) error {
	if err := d.known(app); err != nil {
		return err
	}
	l := d.layout(app)
	id := ""
	if failed != "" {
		if !validID(failed) || !isThere(l.instance(failed)) {
			return &RefusedError{Reason: fmt.Sprintf("app %q has no log %s", app, failed), Hint: fmt.Sprintf("%s releases %s names those there are", d.SSH, app)}
		}
		id = failed
	} else if n > 0 {
		rec, err := readRecord(l.release(n))
		if err != nil {
			return &RefusedError{Reason: fmt.Sprintf("app %q has no release v%d", app, n), Hint: fmt.Sprintf("%s releases %s lists them", d.SSH, app)}
		}
		id = rec.Instance
	} else {
		d.mu.Lock()
		op := d.state(app).op
		d.mu.Unlock()
		if op != nil && follow && op.log.join() == nil {
			defer op.log.leave()
			return op.log.follow(ctx, out)
		}
		ids, err := l.instanceIDs()
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return &RefusedError{Reason: fmt.Sprintf("app %q was never deployed", app)}
		}
		id = ids[len(ids)-1]
	}
	f, err := os.Open(filepath.Join(l.instance(id), "deploy.log"))
	if err != nil {
		return &RefusedError{Reason: fmt.Sprintf("the log of instance %s of %q is gone", id, app)}
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// logBlock is how much of a log is in memory at a time.
const logBlock = 64 << 10

// tailOf is where the last n lines of a file begin, how many there are, and the
// file's size. An app may have written a log of short lines without an end, and any
// number of people read it at once: it is looked through from its end by blocks.
func tailOf(path string, n int) (size, from int64, lines int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, 0, err
	}
	defer f.Close()
	if size, err = f.Seek(0, io.SeekEnd); err != nil || n <= 0 {
		return size, size, 0, err
	}
	buf := make([]byte, min(size, logBlock))
	for at := size; at > 0; {
		block := buf[:min(at, logBlock)]
		at -= int64(len(block))
		if _, err := f.ReadAt(block, at); err != nil && !errors.Is(err, io.EOF) {
			return size, size, 0, err
		}
		for i := len(block) - 1; i >= 0; i-- {
			if block[i] != '\n' || at+int64(i) == size-1 { // the end of the last line begins none
				continue
			}
			if lines++; lines == n {
				return size, at + int64(i) + 1, lines, nil
			}
		}
	}
	if size > 0 {
		lines++
	}
	return size, 0, lines, nil
}

// showLines writes a part of a log as it may be shown.
func showLines(ctx context.Context, out io.Writer, path string, from, to int64) error {
	if from >= to {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil // removed meanwhile
	}
	defer f.Close()
	in := bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), logBlock)
	for ctx.Err() == nil {
		line, err := in.ReadSlice('\n') // of a longer one a part at a time
		if len(line) > 0 {
			if _, err := io.WriteString(out, Neutral(strings.TrimSuffix(string(line), "\n"))+"\n"); err != nil {
				return err
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil
		}
	}
	return nil
}

// tail returns the last n lines of a file, those in its last MiB.
func tail(path string, n int) ([]string, error) {
	size, from, _, err := tailOf(path, n)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	from = max(from, size-1<<20)
	data, err := io.ReadAll(io.NewSectionReader(f, from, size-from))
	if err != nil {
		return nil, err
	}
	text := strings.TrimRight(string(data), "\n")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

const rotatePoll = 2 * time.Second

// rotateLogs watches the size of the apps' logs until the server stops.
func (d *Deployer) rotateLogs() {
	tick := time.NewTicker(rotatePoll)
	defer tick.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-tick.C:
		}
		files, _ := filepath.Glob(filepath.Join(d.site.Paths.Logs, "*", "*.log"))
		for _, path := range append(files, d.webLogs()...) {
			fi, err := os.Stat(path)
			if err != nil || fi.Size() < d.site.Server.LogSize {
				continue
			}
			if err := rotate(path, max(1, d.site.Server.LogKeep), 2*d.site.Server.LogSize); err != nil {
				d.log.Warnf("rotating %q: %v", path, err)
			}
		}
	}
}

// rotate moves the head of a log that a process has open into path.1. The
// process goes on appending to the same file: its head is cut off by
// fallocate(2) with FALLOC_FL_COLLAPSE_RANGE, which loses no line that is
// written meanwhile. Where the file system can't (only ext4 and XFS can), the
// file is copied and truncated, and a line written in between is lost.
//
// Of a log that grew faster than it is looked at only the last most bytes are
// kept, with a line that says so: an app in a fury must not fill the disk. On a disk
// that is full nothing is moved, and the older ones stay.
func rotate(path string, keep int, most int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	head := fi.Size() / st.Bsize * st.Bsize
	if head == 0 {
		return nil
	}
	copied := path + ".0"
	if err := os.Remove(copied); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // what a server left that was killed
	}
	old, err := os.OpenFile(copied, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fi.Mode().Perm())
	if err != nil {
		return err
	}
	defer old.Close()
	defer func() {
		if err != nil {
			os.Remove(copied) // nothing where it has its name
		}
	}()
	from := max(0, head-most)
	if from > 0 {
		if _, err := fmt.Fprintf(old, droppedLine, from); err != nil {
			return err
		}
	}
	if _, err := io.Copy(old, io.NewSectionReader(f, from, head-from)); err != nil {
		return err
	}
	for i := keep - 1; i >= 1; i-- {
		os.Rename(fmt.Sprintf("%s.%d", path, i), fmt.Sprintf("%s.%d", path, i+1))
	}
	// Before the head is cut off: who follows the log looks there for it.
	if err := os.Rename(copied, path+".1"); err != nil {
		return err
	}
	if head < fi.Size() {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, head)
	} else {
		err = unix.EINVAL // the call may not reach the end of the file
	}
	if err != nil {
		// Also where the last lines have no room: the next look would rotate what
		// is in path.1 by now, and the older ones away.
		_, err := io.Copy(old, io.NewSectionReader(f, head, 1<<62))
		return errors.Join(err, f.Truncate(0))
	}
	return nil
}
