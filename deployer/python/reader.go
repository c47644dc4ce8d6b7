package python

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// What is pushed is read by a process of its own: a file that takes a parser more
// memory or time than there is ends that process, and not the server with the
// deploys in it. The limits on what is read (maxFile, checkNesting, effort) are told
// in better words; these hold where they do not.

// Arg is the argument with which the program is started to be such a reader.
const Arg = "read-source"

const (
	readerMemory = 1 << 30          // bytes that it may write to
	readerCPU    = 20 * time.Second // of processor time
	readerTime   = 2 * time.Minute  // for one question
	readerEnd    = 2 * time.Second  // to end by itself
	// maxAnswer bounds what a reader says: a lock file's list, with its hashes.
	maxAnswer = 16 << 20
	// maxName bounds each part of an entry point, a dependency and a note.
	maxName   = 1 << 10
	maxWanted = 200
	maxNeeds  = 5000
	maxNotes  = 50
	// maxReason bounds an error's text.
	maxReason = 8 << 10
)

// question is what a reader is asked.
type question struct {
	About       string // one of those below
	Source      string
	App         facts
	Interpreter deployer.Interpreter
	EntryPoint  deployer.EntryPoint
	Packages    []string // what is installed
}

const (
	aboutInterpreter  = "the interpreter that it asks for"
	aboutDependencies = "what it depends on"
	aboutEntryPoint   = "its entry point"
	aboutAdvice       = "what is worth knowing"
)

// facts are what a reader has to know of an app's configuration.
type facts struct {
	Name, Root, Build string
	EntryPoint, From  string // From is who names the entry point, for people
	Persist           []string
	Workers, Threads  int
	Timeout           time.Duration
}

func factsOf(app *config.App) facts {
	f := facts{Name: app.Name, Root: app.Root, Build: app.Build, EntryPoint: app.EntryPoint, From: "[app] entry_point", Persist: app.Persist, Workers: app.Workers, Threads: app.Threads, Timeout: app.Timeout}
	if app.EntryPoint != "" && app.Values != nil {
		f.From += " of " + app.Origin("app", "entry_point").String()
	}
	return f
}

// app is what the functions that read take.
func (f facts) app() *config.App {
	return &config.App{Name: f.Name, Root: f.Root, Build: f.Build, EntryPoint: f.EntryPoint, Persist: f.Persist, Workers: f.Workers, Threads: f.Threads, Timeout: f.Timeout}
}

// answer is what a reader says. Of its parts the one that was asked for is set, or
// what is wrong.
type answer struct {
	Want        *want                       `json:",omitempty"`
	Declaration *declaration                `json:",omitempty"`
	EntryPoint  *deployer.EntryPoint        `json:",omitempty"`
	Advice      []string                    `json:",omitempty"`
	Complaint   string                      `json:",omitempty"`
	None        *deployer.NoEntryPointError `json:",omitempty"`
}

// answerTo reads a source.
func answerTo(q question) (a answer) {
	app := q.App.app()
	var err error
	switch q.About {
	case aboutInterpreter:
		var w want
		w, err = wanted(q.Source)
		if err == nil && len(w.text) > maxWanted {
			err = fmt.Errorf("%s has %d bytes, at most %d say which Python is wanted", w.from, len(w.text), maxWanted)
		}
		if err == nil {
			a.Want = &w
		}
	case aboutDependencies:
		a.Declaration, err = declared(app, q.Source, q.Interpreter)
		if err == nil {
			err = a.Declaration.bound()
		}
	case aboutEntryPoint:
		var e deployer.EntryPoint
		e, err = entryPoint(app, q.App.From, q.Source)
		if n := max(len(e.Module), len(e.Callable), len(e.Why), len(e.From)); err == nil && n > maxName {
			err = fmt.Errorf("the entry point that the source names has %d bytes, at most %d can be meant", n, maxName)
		}
		if err == nil {
			a.EntryPoint = &e
		}
	case aboutAdvice:
		a.Advice = shortened(advise(app, q.Source, q.EntryPoint, q.Packages))
	default:
		err = fmt.Errorf("nobody can tell %q", q.About)
	}
	if err != nil {
		a = answer{Complaint: cut(err.Error(), maxReason)}
		if none, ok := errors.AsType[*deployer.NoEntryPointError](err); ok {
			a.None = none
			none.Reason, none.Hint = cut(none.Reason, maxReason), cut(none.Hint, maxReason)
		}
	}
	return a
}

// bound keeps what is said of a source from being most of it.
func (d *declaration) bound() error {
	if len(d.needs) > maxNeeds {
		return fmt.Errorf("%s names %d dependencies, at most %d are installed", d.from, len(d.needs), maxNeeds)
	}
	for _, n := range d.needs {
		if len(n) > maxName {
			return fmt.Errorf("%s: a dependency of %d bytes is none: %q", d.from, len(n), n[:60])
		}
	}
	d.notes, d.mutable = shortened(d.notes), cut(d.mutable, maxName)
	return nil
}

// shortened are notes that people read.
func shortened(notes []string) []string {
	if len(notes) > maxNotes {
		notes = append(notes[:maxNotes:maxNotes], "and more")
	}
	for i, n := range notes {
		notes[i] = cut(n, maxName)
	}
	return notes
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + " …"
}

// Main is the program as a reader: it answers the questions on in, a line each, until
// its end. It returns its exit status.
func Main(in io.Reader, out, errs io.Writer) int {
	// By itself a program in Go takes no notice of it (os/signal), and would go on
	// until the hard limit.
	late := make(chan os.Signal, 1)
	signal.Notify(late, syscall.SIGXCPU)
	go func() {
		<-late
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}()
	questions, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q question
		switch err := questions.Decode(&q); {
		case errors.Is(err, io.EOF):
			return 0
		case err != nil:
			fmt.Fprintf(errs, "scotch %s reads a source for the server: %v\n", Arg, err)
			return 2
		}
		if err := answers.Encode(answerTo(q)); err != nil {
			fmt.Fprintln(errs, err)
			return 1
		}
	}
}

// Prepare implements deployer.Preparer: it starts the reader of one operation, so that
// nobody waits for its start.
func (t *Toolchain) Prepare(ctx context.Context, app string) (done func()) {
	if t.opts.Reader == nil {
		return func() {}
	}
	r := t.startReader(ctx)
	t.mu.Lock()
	t.readers[app] = r
	t.mu.Unlock()
	return func() {
		t.mu.Lock()
		if t.readers[app] == r {
			delete(t.readers, app)
		}
		t.mu.Unlock()
		r.close()
	}
}

// askReader has a source read. A source that can't be read within the limits is an error
// of whoever pushed it.
func (t *Toolchain) askReader(ctx context.Context, app *config.App, q question) (answer, error) {
	q.App = factsOf(app)
	if t.opts.Reader == nil {
		return answerTo(q).orError()
	}
	t.mu.Lock()
	r := t.readers[app.Name]
	delete(t.readers, app.Name) // nobody else asks it meanwhile
	t.mu.Unlock()
	if r == nil || r.hasEnded() {
		r = t.startReader(ctx)
		defer r.close()
	} else {
		defer func() {
			t.mu.Lock()
			t.readers[app.Name] = r
			t.mu.Unlock()
		}()
	}
	a, err := r.ask(ctx, q)
	if err != nil {
		return answer{}, err
	}
	return a.orError()
}

func (a answer) orError() (answer, error) {
	switch {
	case a.None != nil:
		return answer{}, a.None
	case a.Complaint != "":
		return answer{}, errors.New(a.Complaint)
	}
	return a, nil
}

// reader is a process that reads sources.
type reader struct {
	limits  deployer.ProcessLimits
	asked   *io.PipeWriter
	answers chan []byte // a line for each question
	cancel  context.CancelFunc
	ended   chan struct{} // closed when it has, with err and said set before
	err     error
	said    bytes.Buffer // on its standard error

	buf  bytes.Buffer // of an answer that is not whole
	more bool         // the answer was too long
}

// startReader starts one. The caller closes it.
func (t *Toolchain) startReader(ctx context.Context) *reader {
	ctx, cancel := context.WithCancel(ctx)
	in, asked := io.Pipe()
	r := &reader{limits: t.opts.ReaderLimits, asked: asked, answers: make(chan []byte, 1), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = t.run.Run(ctx, deployer.Command{
			Args: t.opts.Reader, Dir: "/",
			// GOMEMLIMIT (https://pkg.go.dev/runtime): garbage goes before the limit does.
			Env:   []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "GOTRACEBACK=none", fmt.Sprintf("GOMEMLIMIT=%d", r.limits.Memory*3/4)},
			Stdin: in, Stdout: r, Stderr: &limited{w: &r.said, left: 4 << 10}, Each: r.limits,
		})
		in.CloseWithError(io.ErrClosedPipe) // who asks now is not read
	}()
	return r
}

// close ends it, and returns when it has.
func (r *reader) close() {
	r.asked.Close()
	late := time.NewTimer(readerEnd)
	defer late.Stop()
	select {
	case <-r.ended:
	case <-late.C:
	}
	r.cancel()
	<-r.ended
}

func (r *reader) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// Write gets what it answers.
func (r *reader) Write(p []byte) (int, error) {
	if r.buf.Len()+len(p) > maxAnswer {
		r.more = true
		r.cancel()
		return 0, io.ErrShortWrite
	}
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			r.buf.Write(rest)
			break
		}
		r.buf.Write(rest[:i])
		rest = rest[i+1:]
		select {
		case r.answers <- bytes.Clone(r.buf.Bytes()):
		default: // nobody has asked
		}
		r.buf.Reset()
	}
	return len(p), nil
}

func (r *reader) ask(ctx context.Context, q question) (a answer, err error) {
	asked, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	late := time.NewTimer(readerTime)
	defer late.Stop()
	r.asked.Write(append(asked, '\n')) // where it has ended that is told below
	select {
	case line := <-r.answers:
		if err := json.Unmarshal(line, &a); err != nil {
			return a, fmt.Errorf("looking in the source for %s: %w", q.About, err)
		}
		return a, nil
	case <-ctx.Done():
		return a, context.Cause(ctx)
	case <-late.C:
		r.cancel()
		return a, tooIntricate(q, r.limits, &deployer.TimeoutError{}, "")
	case <-r.ended:
	}
	switch {
	case ctx.Err() != nil:
		return a, context.Cause(ctx)
	case r.more:
		return a, fmt.Errorf("what the source says of %s is more than %d MB", q.About, maxAnswer>>20)
	case r.err == nil:
		r.err = errors.New("it has ended")
	}
	return a, tooIntricate(q, r.limits, r.err, r.said.String())
}

// tooIntricate says what a reader's end means.
func tooIntricate(q question, limits deployer.ProcessLimits, err error, said string) error {
	exit, ok := errors.AsType[*deployer.ExitError](err)
	_, late := errors.AsType[*deployer.TimeoutError](err)
	const next = "\na file that declares something is too large or too intricate: make it smaller"
	switch {
	case late, ok && (exit.Signal == "SIGXCPU" || exit.Signal == "SIGKILL"):
		return fmt.Errorf("looking in the source for %s takes more than the %s of processor time that it may%s", q.About, limits.CPU, next)
	case ok && exit.Status == 2 && (strings.Contains(said, "out of memory") || strings.Contains(said, "stack overflow") || strings.Contains(said, "cannot allocate")):
		return fmt.Errorf("looking in the source for %s takes more than the %s of memory that it may%s", q.About, deployer.Size(limits.Memory), next)
	}
	return fmt.Errorf("looking in the source for %s: %w: %s", q.About, err, deployer.FirstLine(said))
}
