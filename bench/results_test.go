package main

import (
	"bytes"
	"strings"
	"testing"
)

// A row's verdict could not be told from what stood in it: it was about what is
// more than the floor, round by round, and the ratio was shown.
func TestVerdictIsAboutWhatIsShown(t *testing.T) {
	floor, ours := &sample{}, &sample{}
	for _, pair := range [][2]float64{{0.5, 0.9}, {1, 1.1}, {0.6, 0.9}} {
		floor.add(pair[0])
		ours.add(pair[1])
	}
	r := row{What: "back", Unit: "s", Floor: floor, Ours: ours, AtMostMore: atMost(0.29)}.judged()
	var out bytes.Buffer
	(&results{Rows: []row{r}}).print(&out)
	if !strings.Contains(out.String(), "0.300 s [0.200 0.350] more") || !strings.Contains(out.String(), "NO") {
		t.Error(out.String())
	}
	if share, ok := r.share(func(s *sample) float64 { return s.Median }); !ok || share <= 1 {
		t.Errorf("%v of what is allowed, in the plot", share)
	}
}

func TestArgumentsThatWouldMeasureEverything(t *testing.T) {
	for _, args := range [][]string{{"-size", "0"}, {"-size", "-1"}, {"-size", "NaN"}, {"rollback"}} {
		if err := run(t.Context(), append([]string{"-scotch", "/nonexistent"}, args...), &bytes.Buffer{}); err == nil || strings.Contains(err.Error(), "/nonexistent") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
