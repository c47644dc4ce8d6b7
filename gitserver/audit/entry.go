package audit

import (
	"fmt"
	"strings"
	"time"
)

// Kind is what an entry is about.
type Kind string

// The kinds of entries.
const (
	Refused Kind = "refused" // a connection, a session or a fetch that was not let in
	Push    Kind = "push"
	Command Kind = "command"
	Switch  Kind = "switch" // an operation that made another instance live, or failed to
)

// The results.
const (
	OK     = "ok"
	Failed = "failed"
	Denied = "denied"
)

// Entry is one line. What is not known is left out.
type Entry struct {
	Time time.Time `json:"time"` // when it ended, UTC
	Kind Kind      `json:"kind"`

	By   string `json:"by,omitempty"`   // name of the key, or of the local user
	Key  string `json:"key,omitempty"`  // its fingerprint, "SHA256:…"
	From string `json:"from,omitempty"` // address, "local" for the control socket

	Verb string `json:"verb,omitempty"` // "env", "keys add"; of a switch "deploy", "rollback"
	App  string `json:"app,omitempty"`
	// Args are the words of a command that are no secrets: other apps, names of
	// variables without their values, flags.
	Args []string `json:"args,omitempty"`
	Refs []Ref    `json:"refs,omitempty"` // of a push
	More int      `json:"more,omitempty"` // refs that are left out; entries of its kind that this line stands for, besides its own
	// Idle tells that nothing was changed: floods of that are counted.
	Idle bool `json:"-"`

	// What a switch led from and to.
	OldRelease int    `json:"old_release,omitempty"`
	Old        string `json:"old,omitempty"` // commit
	Release    int    `json:"release,omitempty"`
	New        string `json:"new,omitempty"`

	Result  string  `json:"result"` // "ok", "failed", "denied"
	Status  int     `json:"status"` // exit status, where there is one
	Reason  string  `json:"reason,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Ref is what became of one ref of a push.
type Ref struct {
	Ref    string `json:"ref"`
	Old    string `json:"old"` // 40 zeros: it did not exist
	New    string `json:"new"` // 40 zeros: deleted
	Result string `json:"result"`
	Reason string `json:"reason,omitempty"`
}

// bound keeps texts that come from outside from filling the disk.
func (e *Entry) bound() {
	e.Verb, e.App, e.Reason = cut(e.Verb), cut(e.App), cut(e.Reason)
	size := 0
	args := e.Args
	e.Args = nil
	for i, a := range args {
		if a = cut(a); i == maxArgs || size+len(a) > maxWords {
			e.Args = append(e.Args, fmt.Sprintf("… %d more", len(args)-i))
			break
		}
		size += len(a)
		e.Args = append(e.Args, a)
	}
	size = 0
	refs := e.Refs
	e.Refs = nil
	for i, r := range refs {
		if r.Reason, r.Ref = cut(r.Reason), cut(r.Ref); i == maxRefs || size+len(r.Reason)+len(r.Ref) > maxWords {
			e.More += len(refs) - i
			break
		}
		size += len(r.Reason) + len(r.Ref)
		e.Refs = append(e.Refs, r)
	}
}

const (
	maxRefs  = 100
	maxArgs  = 50
	maxText  = 500  // bytes of one
	maxWords = 2000 // bytes of all Args, and of the words of all Refs
)

func cut(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// String is an entry as a person reads it, one line. It may hold control
// characters of whoever was recorded.
func (e Entry) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-7s", e.Time.Local().Format("2006-01-02 15:04:05"), e.Kind)
	for _, s := range append([]string{or(e.By, "-"), e.Verb, e.App}, e.Args...) {
		if s != "" {
			b.WriteString("  " + s)
		}
	}
	for _, r := range e.Refs {
		fmt.Fprintf(&b, "  %s %.7s..%.7s %s", r.Ref, r.Old, r.New, r.Result)
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "  and %d more", e.More)
	}
	if e.OldRelease > 0 && e.Release > 0 && e.OldRelease != e.Release {
		fmt.Fprintf(&b, "  v%d -> v%d", e.OldRelease, e.Release)
	} else if e.Release > 0 {
		fmt.Fprintf(&b, "  v%d", e.Release)
	}
	fmt.Fprintf(&b, "  %s", e.Result)
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	fmt.Fprintf(&b, "  %.2fs", e.Seconds)
	if e.From != "" {
		fmt.Fprintf(&b, "  from %s", e.From)
	}
	return b.String()
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
