package deployer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"scotch/config"
)

// Report is what a person reads of a deploy, line by line, in the push response
// and in the deploy's log. All that goes through it is neutralised.
type Report struct {
	mu  sync.Mutex
	out io.Writer
}

// maxReported bounds a line of a report, in bytes.
const maxReported = 64 << 10

// NewReport writes to out.
func NewReport(out io.Writer) *Report { return &Report{out: out} }

func (r *Report) line(s string) {
	if len(s) > maxReported { // words of a source or an app may be in it
		s = strings.ToValidUTF8(s[:maxReported], "") + " …"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// A reader that is gone must not stop the work: the log has its own error path.
	io.WriteString(r.out, Neutral(strings.TrimRight(s, " \t"))+"\n")
}

// Headline is a line of its own weight: "-----> blog: deploying …".
func (r *Report) Headline(format string, a ...any) {
	r.line("-----> " + fmt.Sprintf(format, a...))
}

// Stage names the stage that begins.
func (r *Report) Stage(name string) { r.line("       " + name) }

// Note is a line below a stage.
func (r *Report) Note(format string, a ...any) {
	for _, l := range strings.Split(fmt.Sprintf(format, a...), "\n") {
		r.line("         " + l)
	}
}

// Step is one finished step: its name, what came of it, and how long it took;
// a duration below 0 leaves the time out.
func (r *Report) Step(name, what string, took time.Duration) {
	if took < 0 {
		r.line(fmt.Sprintf("         %-11s %s", name, what))
		return
	}
	r.line(fmt.Sprintf("         %-11s %-49s %s", name, what, seconds(took)))
}

// Evidence shows what a failed step left to read, indented, under a title.
func (r *Report) Evidence(title string, lines []string) {
	r.line("         " + title + ":")
	for _, l := range lines {
		r.line("         | " + l)
	}
}

// Fail is the last word of an operation that failed: why, and what to do next.
func (r *Report) Fail(app string, err error) {
	r.line(" !     " + app + ": " + FirstLine(err.Error()))
	whole := err.Error()
	// The text of a StageError is one line, for git; its cause says it all.
	if stage, ok := errors.AsType[*StageError](err); ok {
		whole = stage.Err.Error()
		if refused, ok := errors.AsType[*RefusedError](stage.Err); ok && refused.Hint != "" {
			whole += "\n" + refused.Hint
		}
	}
	_, rest, _ := strings.Cut(strings.TrimSpace(whole), "\n")
	for l := range strings.Lines(rest) {
		r.line("       " + strings.TrimSpace(l))
	}
}

// again is the next step of a person whose deploy failed: an app whose file
// names a source is not pushed to.
func again(a *config.App) string {
	if a.Source != "" {
		return "deploy again: scotch deploy " + a.Name
	}
	return "push again"
}

// again is the next step of an operation whose app did not start.
func (op *operation) again(a *config.App) string {
	switch op.what {
	case "deploy":
		return again(a)
	case "change":
		return "set another value"
	}
	return "try again"
}

// Output returns a writer for what an installer or a command of the app
// writes: each line indented, as it comes. Close writes an unfinished last line.
func (r *Report) Output() *lineWriter {
	return &lineWriter{r: r, prefix: "         | ", most: maxOutput}
}

// silent tells that nothing came.
func (w *lineWriter) silent() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shown == 0
}

// lineWriter hands on whole lines. A carriage return ends a line, so that a
// progress bar becomes lines and not a stream without end.
type lineWriter struct {
	r      *Report
	prefix string
	mu     sync.Mutex
	buf    []byte
	// most bounds what is shown, in bytes; beyond it the last lines are kept
	// for Close. 0: all is shown.
	most, shown int
	last        []string // a ring; left%lastLines is its first once it is full
	left        int      // lines that were not shown and not kept
}

const (
	maxOutput = 4 << 20 // bytes of one step's output that are shown as they come
	lastLines = 40      // and the lines that are shown at its end
)

// maxLine bounds what one line may hold in memory, in bytes.
const maxLine = 8 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	rest := w.buf
	for {
		i := bytes.IndexAny(rest, "\r\n")
		if i < 0 && len(rest) > maxLine {
			i = maxLine
		}
		if i < 0 {
			break
		}
		w.emit(rest[:i])
		if rest[i] == '\n' || rest[i] == '\r' {
			i++
		}
		rest = rest[i:]
	}
	w.buf = w.buf[:copy(w.buf, rest)]
	return len(p), nil
}

func (w *lineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf) > 0 {
		w.emit(w.buf)
		w.buf = nil
	}
	if w.left > 0 {
		w.r.line(fmt.Sprintf("%s… %d lines are left out here", w.prefix, w.left))
	}
	for i := range w.last {
		w.r.line(w.prefix + w.last[(w.left+i)%len(w.last)])
	}
	w.last, w.left = nil, 0
	return nil
}

func (w *lineWriter) emit(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	// What is written counts, so that a great many short lines are bounded too.
	if w.shown += len(w.prefix) + len(line) + 1; w.most == 0 || w.shown <= w.most {
		w.r.line(w.prefix + string(line))
		return
	}
	if len(w.last) < lastLines {
		w.last = append(w.last, string(line))
		return
	}
	w.last[w.left%lastLines] = string(line)
	w.left++
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }

// size writes a number of bytes for people: "1.2 MB".
func size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
}

// Size is size, for those outside.
func Size(n int64) string { return size(n) }

// short is a commit's object name as people write it.
func short(id string) string { return id[:min(7, len(id))] }

// plural writes "1 file", "2 files".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}
