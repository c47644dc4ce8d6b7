package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// results is all that one run found out.
type results struct {
	Facts facts   `json:"machine"`
	Size  float64 `json:"size"`
	Took  string  `json:"took"`
	Rows  []row   `json:"rows"`
}

// row is a line of the table: a thing that was measured, and what it is held against.
type row struct {
	Measure string  `json:"measure"`
	What    string  `json:"what"`
	Unit    string  `json:"unit,omitempty"` // "s", "MB", ""
	Peer    string  `json:"against,omitempty"`
	Floor   *sample `json:"floor,omitempty"`
	Ours    *sample `json:"ours,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // ours through floor, of the medians
	// One of these, or none where a row is for information.
	AtMostTimes *float64 `json:"at_most_times_floor,omitempty"`
	AtMostMore  *float64 `json:"at_most_floor_and,omitempty"` // in Unit
	AtMost      *float64 `json:"at_most,omitempty"`           // in Unit
	OK          *bool    `json:"ok,omitempty"`
	Note        string   `json:"note,omitempty"`
}

func times(x float64) *float64  { return &x }
func atMost(x float64) *float64 { return &x }

// allowed is the largest value that is on target, in Unit.
func (r row) allowed() (float64, bool) {
	switch {
	case r.AtMost != nil:
		return *r.AtMost, true
	case r.Floor == nil:
		return 0, false
	case r.AtMostTimes != nil:
		return r.Floor.Median * *r.AtMostTimes, true
	case r.AtMostMore != nil:
		return r.Floor.Median + *r.AtMostMore, true
	}
	return 0, false
}

// judged works out what follows from the samples.
func (r row) judged() row {
	r.Floor, r.Ours = r.Floor.done(), r.Ours.done()
	if r.Ours == nil {
		return r
	}
	if r.Floor != nil && r.Floor.Median > 0 {
		r.Ratio = r.Ours.Median / r.Floor.Median
	}
	if most, ok := r.allowed(); ok {
		met := r.Ours.Median <= most
		r.OK = &met
	}
	return r
}

func (r row) target() string {
	switch {
	case r.AtMost != nil:
		return "≤ " + strings.TrimSpace(fmt.Sprintf("%g %s", *r.AtMost, r.Unit))
	case r.AtMostTimes != nil:
		return fmt.Sprintf("≤ %g ×", *r.AtMostTimes)
	case r.AtMostMore != nil:
		return fmt.Sprintf("≤ floor + %g %s", *r.AtMostMore, r.Unit)
	}
	return ""
}

// print writes the table. Behind a median, in brackets, are its quartiles.
func (r *results) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s\nmedians [first and third quartile]; size %g; %s in all\n\n", r.Facts, r.Size, r.Took)
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "what\tfloor or peer\tours\tratio\ttarget\tok\t")
	last := ""
	for _, row := range r.Rows {
		if row.Measure != last {
			last = row.Measure
			fmt.Fprintf(t, "%s\t\t\t\t\t\t\n", strings.ToUpper(last))
		}
		ratio, ok := "", ""
		if row.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", row.Ratio)
		}
		if row.OK != nil {
			ok = map[bool]string{true: "yes", false: "NO"}[*row.OK]
		}
		peer := row.Floor.text(row.Unit)
		if row.Peer != "" {
			peer += " " + row.Peer
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t\n", row.What, peer, row.Ours.text(row.Unit), ratio, row.target(), ok)
		if row.Note != "" {
			fmt.Fprintf(t, "    (%s)\t\t\t\t\t\t\n", row.Note)
		}
	}
	t.Flush()
}

func (s *sample) text(unit string) string {
	if s == nil {
		return ""
	}
	n := func(v float64) string {
		switch {
		case unit == "s" && v < 10:
			return fmt.Sprintf("%.3f", v)
		case v == float64(int64(v)):
			return fmt.Sprintf("%d", int64(v))
		}
		return fmt.Sprintf("%.1f", v)
	}
	text := strings.TrimSpace(n(s.Median) + " " + unit)
	if s.Rounds > 1 {
		text += fmt.Sprintf(" [%s %s]", n(s.Low), n(s.High))
	}
	return text
}

// write puts results.json and results.svg into a directory.
func (r *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "results.svg"), r.plot(), 0o644)
}
