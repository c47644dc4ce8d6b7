package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"scotch/deployer"
)

// Step is one thing that is missing on the machine, or to be taken back.
type Step struct {
	// Title says what will be done: "install nginx, git".
	Title string
	// Details are said below it, a line each.
	Details []string
	// do returns what came of it, "" where the title says it. out gets what
	// programs write.
	do func(ctx context.Context, out io.Writer) (string, error)
}

// Plan is what is to be done, in this order.
type Plan struct {
	Steps []Step
	// Notes are for the person: what is left alone, and what setup can't do.
	Notes []string

	again string // the command that goes on after a failure
}

// Empty tells that nothing is to be done.
func (p *Plan) Empty() bool { return len(p.Steps) == 0 }

// Print writes the plan for a person.
func (p *Plan) Print(w io.Writer) {
	for i, s := range p.Steps {
		fmt.Fprintf(w, "%3d. %s\n", i+1, deployer.Neutral(s.Title))
		for _, d := range s.Details {
			fmt.Fprintf(w, "       %s\n", deployer.Neutral(d))
		}
	}
}

// PrintNotes writes what a person should know besides.
func (p *Plan) PrintNotes(w io.Writer) {
	for _, n := range p.Notes {
		lines := strings.Split(n, "\n")
		for i, l := range lines {
			lines[i] = deployer.Neutral(l)
		}
		fmt.Fprintf(w, "note: %s\n", strings.Join(lines, "\n      "))
	}
}

func (p *Plan) note(format string, a ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, a...))
}

func (p *Plan) add(title string, details []string, do func(ctx context.Context, out io.Writer) (string, error)) {
	p.Steps = append(p.Steps, Step{title, details, do})
}

// Do takes the steps. The first that fails ends it; its error says what was
// done by then and how to go on.
func (p *Plan) Do(ctx context.Context, w io.Writer) error {
	for i, s := range p.Steps {
		fmt.Fprintf(w, "[%d/%d] %s\n", i+1, len(p.Steps), deployer.Neutral(s.Title))
		out := &indented{w: w}
		done, err := s.do(ctx, out)
		out.end()
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("step %d of %d (%s): %w\n%s", i+1, len(p.Steps), s.Title, err, p.soFar(i))
		}
		for line := range strings.Lines(done) {
			fmt.Fprintf(w, "      %s\n", deployer.Neutral(strings.TrimRight(line, "\n")))
		}
	}
	return nil
}

func (p *Plan) soFar(failed int) string {
	if failed == 0 {
		return fmt.Sprintf("nothing was done before it; when it is mended: %s", p.again)
	}
	return fmt.Sprintf("the %d before it are done and stay; when it is mended, this goes on from here: %s", failed, p.again)
}

// indented puts what programs write behind a bar.
type indented struct {
	w    io.Writer
	line []byte
}

func (i *indented) Write(b []byte) (int, error) {
	i.line = append(i.line, b...)
	for {
		line, rest, ok := strings.Cut(string(i.line), "\n")
		if !ok {
			return len(b), nil
		}
		i.line = []byte(rest)
		i.print(line)
	}
}

func (i *indented) print(line string) {
	// A progress bar overwrites its line: the last one counts.
	line = strings.TrimRight(line, "\r")
	line = line[strings.LastIndexByte(line, '\r')+1:]
	if line != "" {
		fmt.Fprintf(i.w, "      | %s\n", deployer.Neutral(line))
	}
}

func (i *indented) end() {
	if len(i.line) > 0 {
		i.print(string(i.line))
		i.line = nil
	}
}

// State is what setup made on this machine, and so may take back.
type State struct {
	Packages    []string `json:"packages,omitempty"`
	Users       []string `json:"users,omitempty"`
	Directories []string `json:"directories,omitempty"` // in the order they were made
	Files       []string `json:"files,omitempty"`
	// Unlinked are links that were removed, with what they led to.
	Unlinked map[string]string `json:"unlinked,omitempty"`
	Enabled  bool              `json:"enabled,omitempty"` // the unit
}

func readState() (*State, error) {
	data, err := os.ReadFile(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what setup did before: %w", err)
	}
	s := &State{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("reading what setup did before, %q: %w\nmend or remove that file", stateFile, err)
	}
	return s, nil
}

// record changes the state on disk. The setup that is under way is the only one
// that does so.
func (m *Machine) record(change func(*State)) error {
	s, err := readState()
	if err != nil {
		return err
	}
	change(s)
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := m.files().MkdirAll("setup-state", filepath.Dir(stateFile), 0o755); err != nil {
		return err
	}
	return m.files().Write("setup-state", stateFile, append(data, '\n'), 0o600)
}

func with(list []string, more ...string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
