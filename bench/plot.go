package main

import (
	"bytes"
	"fmt"
	"html"
)

// plot draws, for each row with a target, how much of what the target allows was
// used: a bar to the line at 1.0 is just on target, one beyond it misses it. The
// scale is linear and begins at 0; the thin line is from the first to the third
// quartile.
func (r *results) plot() []byte {
	const left, width, step, top = 430, 360, 24, 64
	type bar struct {
		text, value  string
		x, low, high float64
		met          bool
	}
	var bars []bar
	most := 1.25
	for _, row := range r.Rows {
		x, ok := row.share(func(s *sample) float64 { return s.Median })
		if !ok {
			continue
		}
		b := bar{text: row.Measure + ": " + row.What, x: x, met: *row.OK, value: row.Ours.text(row.Unit) + ", target " + row.target()}
		switch {
		case row.AtMostTimes != nil:
			b.value = row.Ratio.text("×") + ", target " + row.target()
		case row.More != nil:
			b.value = row.More.text(row.Unit) + " more, target " + row.target()
		}
		b.low, _ = row.share(func(s *sample) float64 { return s.Low })
		b.high, _ = row.share(func(s *sample) float64 { return s.High })
		bars, most = append(bars, b), max(most, min(b.x, 2))
	}
	scale := func(x float64) float64 { return left + min(x, most)/most*width }
	var s bytes.Buffer
	height := top + step*len(bars) + 40
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="1060" height="%d" font-family="sans-serif" font-size="12">`+"\n", height)
	fmt.Fprintf(&s, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	fmt.Fprintf(&s, `<text x="16" y="24" font-size="15">scotch: measured, as a share of what each target allows (shorter is better)</text>`+"\n")
	fmt.Fprintf(&s, `<text x="16" y="44" fill="#555">%s</text>`+"\n", html.EscapeString(r.Facts.String()))
	for i, b := range bars {
		y := top + step*i
		color := "#3b7a57"
		if !b.met {
			color = "#b03a2e"
		}
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+13, html.EscapeString(b.text))
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="14" fill="%s"/>`+"\n", left, y+2, max(1, scale(b.x)-left), color)
		if b.high > b.low {
			fmt.Fprintf(&s, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#000"/>`+"\n", scale(b.low), scale(b.high), y+9, y+9)
		}
		fmt.Fprintf(&s, `<text x="%.1f" y="%d" fill="#333">%s</text>`+"\n", max(scale(b.x), scale(1))+6, y+13, html.EscapeString(b.value))
	}
	bottom := top + step*len(bars)
	fmt.Fprintf(&s, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#000" stroke-dasharray="4 3"/>`+"\n", scale(1), scale(1), top-4, bottom+4)
	fmt.Fprintf(&s, `<text x="%.1f" y="%d" text-anchor="middle">target</text>`+"\n", scale(1), bottom+18)
	fmt.Fprintf(&s, `<text x="%d" y="%d">0</text>`+"\n", left, bottom+18)
	s.WriteString("</svg>\n")
	return s.Bytes()
}
