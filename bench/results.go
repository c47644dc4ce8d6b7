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
	// Ratio is ours through floor: the median over rounds, where both were taken in
	// each one, so that what else the machine did in a round does not count.
	Ratio *sample `json:"ratio,omitempty"`
	// More is ours less the floor, in the same way, where the target is that.
	More *sample `json:"more,omitempty"`
	// One of these, or none where a row is for information.
	AtMostTimes *float64 `json:"at_most_times_floor,omitempty"`
	AtMostMore  *float64 `json:"at_most_floor_and,omitempty"` // in Unit
	AtMost      *float64 `json:"at_most,omitempty"`           // in Unit
	OK          *bool    `json:"ok,omitempty"`
	Note        string   `json:"note,omitempty"`
}

func times(x float64) *float64  { return &x }
func atMost(x float64) *float64 { return &x }

// share is how much of what the target allows was used, of a value; ok is false
// where there is no target.
func (r row) share(of func(*sample) float64) (x float64, ok bool) {
	switch {
	case r.OK == nil:
		return 0, false
	case r.AtMost != nil && *r.AtMost == 0:
		return 2 * min(of(r.Ours), 1), true // nothing is allowed
	case r.AtMost != nil:
		return of(r.Ours) / *r.AtMost, true
	case r.AtMostTimes != nil:
		return of(r.Ratio) / *r.AtMostTimes, true
	}
	return (r.Floor.Median + of(r.More)) / (r.Floor.Median + *r.AtMostMore), true
}

// judged works out what follows from the samples.
func (r row) judged() row {
	r.Floor, r.Ours = r.Floor.done(), r.Ours.done()
	if r.Ours == nil {
		return r
	}
	if r.AtMostMore != nil {
		r.More = r.against(func(ours, floor float64) float64 { return ours - floor })
	}
	if r.Floor != nil && r.Floor.Median > 0 {
		r.Ratio = r.against(func(ours, floor float64) float64 { return ours / floor })
	}
	var met bool
	switch {
	case r.AtMost != nil:
		met = r.Ours.Median <= *r.AtMost
	case r.AtMostTimes != nil && r.Ratio != nil:
		met = r.Ratio.Median <= *r.AtMostTimes
	case r.More != nil:
		met = r.More.Median <= *r.AtMostMore
	default:
		return r
	}
	r.OK = &met
	return r
}

// against compares ours with the floor round by round, or their medians where
// they were not taken in the same rounds; nil where there is no floor.
func (r row) against(by func(ours, floor float64) float64) *sample {
	if r.Floor == nil {
		return nil
	}
	if len(r.Ours.values) != len(r.Floor.values) {
		return one(by(r.Ours.Median, r.Floor.Median)).done()
	}
	s := &sample{}
	for i, v := range r.Ours.values {
		s.add(by(v, r.Floor.values[i]))
	}
	return s.done()
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
		switch {
		case row.More != nil: // what the verdict is about
			ratio = row.More.text(row.Unit) + " more"
		case row.Ratio != nil:
			ratio = row.Ratio.text("×")
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
		case unit == "×":
			return fmt.Sprintf("%.2f", v)
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
