package main

import (
	"math"
	"slices"
	"time"
)

// sample is one thing measured several times.
type sample struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`  // the first quartile
	High   float64 `json:"high"` // the third
	Rounds int     `json:"rounds"`

	values []float64
}

func (s *sample) add(v float64) { s.values = append(s.values, v) }

// took adds a duration, in seconds.
func (s *sample) took(d time.Duration) { s.add(d.Seconds()) }

// done works out what is reported, nil where nothing was measured.
func (s *sample) done() *sample {
	if s == nil || len(s.values) == 0 {
		return nil
	}
	v := slices.Sorted(slices.Values(s.values))
	s.Median, s.Low, s.High, s.Rounds = quantile(v, 0.5), quantile(v, 0.25), quantile(v, 0.75), len(v)
	return s
}

// quantile of sorted values, interpolated between the two that are next to it.
func quantile(v []float64, q float64) float64 {
	at := q * float64(len(v)-1)
	i := int(math.Floor(at))
	if i+1 >= len(v) {
		return v[len(v)-1]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

// one is a sample of a single value.
func one(v float64) *sample {
	s := &sample{}
	s.add(v)
	return s
}

func quantileOf(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return quantile(slices.Sorted(slices.Values(values)), q)
}
