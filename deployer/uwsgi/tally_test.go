package uwsgi

import (
	"runtime"
	"strings"
	"testing"
)

// The socket of counts lies where the app can put another one: five million workers
// were taken into the server's memory, and each was looked for in /proc.
func TestCountsOfAHostileApp(t *testing.T) {
	s, err := readStats(strings.NewReader(`{"pid": 0, "workers": [{"id": 1, "pid": 4194305, "requests": 2, "exceptions": 1, "cores": [{"in_request": 1}, {"in_request": 0}]}, {"pid": 0, "requests": 3}]}`))
	if want := (Stats{Workers: 1, Busy: 1, Requests: 5, Exceptions: 1}); err != nil || s != want {
		t.Errorf("%+v, %v, want %+v", s, err, want)
	}
	if _, err := readStats(strings.NewReader(`{"workers": null}`)); err != nil {
		t.Error(err)
	}
	for _, list := range []string{`1`, `{"pid": 1}`, `[1]`, `[{}`} {
		if _, err := readStats(strings.NewReader(`{"workers": ` + list + `}`)); err == nil {
			t.Errorf("%s was taken", list)
		}
	}
	hostile := `{"workers": [` + strings.Repeat("{},", 300_000) + `{}]}`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readStats(strings.NewReader(hostile)); err == nil {
		t.Error("300,000 workers were taken")
	}
	runtime.ReadMemStats(&after)
	if used := int64(after.TotalAlloc) - int64(before.TotalAlloc); used > 30<<20 {
		t.Errorf("%d MB were used", used>>20)
	}
}
