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
	readerTime   = 2 * time.Minute
	// maxAnswer bounds what a reader says: a lock file's list, with its hashes.
	maxAnswer = 64 << 20
	// maxName bounds each part of an entry point.
	maxName = 1 << 10
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
		if w, err = wanted(q.Source); err == nil {
			a.Want = &w
		}
	case aboutDependencies:
		a.Declaration, err = declared(app, q.Source, q.Interpreter)
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
		a.Advice = advise(app, q.Source, q.EntryPoint, q.Packages)
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

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + " …"
}

// Main is the program as a reader: it answers the question on in. It returns its
// exit status.
func Main(in io.Reader, out, errs io.Writer) int {
	// By itself a program in Go takes no notice of it (os/signal), and would go on
	// until the hard limit.
	late := make(chan os.Signal, 1)
	signal.Notify(late, syscall.SIGXCPU)
	go func() {
		<-late
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}()
	var q question
	if err := json.NewDecoder(in).Decode(&q); err != nil {
		fmt.Fprintf(errs, "scotch %s reads a source for the server: %v\n", Arg, err)
		return 2
	}
	if err := json.NewEncoder(out).Encode(answerTo(q)); err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	return 0
}

// askReader has a source read. A source that can't be read within the limits is an error
// of whoever pushed it.
func (t *Toolchain) askReader(ctx context.Context, app *config.App, q question) (answer, error) {
	q.App = factsOf(app)
	var a answer
	if t.opts.Reader == nil {
		a = answerTo(q)
	} else {
		asked, err := json.Marshal(q)
		if err != nil {
			return answer{}, err
		}
		limits := t.opts.ReaderLimits
		var out, errs bytes.Buffer
		said := &limited{w: &out, left: maxAnswer}
		err = t.run.Run(ctx, deployer.Command{
			Args: t.opts.Reader, Dir: "/",
			// GOMEMLIMIT (https://pkg.go.dev/runtime): garbage goes before the limit does.
			Env:   []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "GOTRACEBACK=none", fmt.Sprintf("GOMEMLIMIT=%d", limits.Memory*3/4)},
			Stdin: bytes.NewReader(asked), Stdout: said, Stderr: &limited{w: &errs, left: 4 << 10},
			Timeout: readerTime, Each: limits,
		})
		switch {
		case ctx.Err() != nil:
			return answer{}, context.Cause(ctx)
		case err != nil:
			return answer{}, tooIntricate(q, limits, err, errs.String())
		case said.left == 0:
			return answer{}, fmt.Errorf("what the source says of %s is more than %d MB", q.About, maxAnswer>>20)
		}
		if err := json.Unmarshal(out.Bytes(), &a); err != nil {
			return answer{}, fmt.Errorf("looking in the source for %s: %w", q.About, err)
		}
	}
	switch {
	case a.None != nil:
		return answer{}, a.None
	case a.Complaint != "":
		return answer{}, errors.New(a.Complaint)
	}
	return a, nil
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
