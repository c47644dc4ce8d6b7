package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"
)

// The parsers of values. Their errors complete "[section] key: ".

func parseNumber(least, most int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("must be a whole number from %d to %d, not %q", least, most, s)
		}
		return n, nil
	}
}

// parseBool knows the words of configparser.getboolean.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "true", "on":
		return true, nil
	case "0", "no", "false", "off":
		return false, nil
	}
	return false, fmt.Errorf("must be on or off, not %q", s)
}

var sizePattern = pattern(`^([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?$`)

// parseSize reads a number of bytes: 500, 100k, 1.5g; k is 1024.
func parseSize(s string) (int64, error) {
	m := sizePattern().FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return 0, fmt.Errorf("must be a size such as 500k, 100m or 2g, not %q", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if m[2] != "" {
		n *= math.Pow(1024, float64(1+strings.Index("kmgt", m[2])))
	}
	if err != nil || n >= 1<<62 {
		return 0, fmt.Errorf("the size %q is too large", s)
	}
	return int64(n), nil
}

var (
	secondsPattern = pattern(`^[0-9]+(?:\.[0-9]+)?$`)
	daysPattern    = pattern(`^([0-9]+)d$`)
)

// longest keeps durations far from overflow, also when they are added up.
const longest = 10 * 365 * 24 * time.Hour

// parseDuration reads 60 (seconds), 60s, 10m, 1h30m, 500ms, 2d.
func parseDuration(least time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		t := strings.ReplaceAll(strings.ToLower(s), " ", "")
		if secondsPattern().MatchString(t) {
			t += "s"
		}
		if m := daysPattern().FindStringSubmatch(t); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil && n < 10000 {
				t = fmt.Sprintf("%dh", 24*n)
			}
		}
		d, err := time.ParseDuration(t)
		if err != nil || d < 0 || d > longest {
			return 0, fmt.Errorf("must be a duration such as 60 (seconds), 90s, 10m or 2h, not %q", s)
		}
		if d < least {
			return 0, fmt.Errorf("must be at least %s, not %q", least, s)
		}
		return d, nil
	}
}

// ParseDuration reads 60 (seconds), 60s, 10m, 1h30m, 2d. Its error completes the
// name of what it is for.
func ParseDuration(s string) (time.Duration, error) { return parseDuration(0)(s) }

func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0o"), 8, 16)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("must be an octal mode such as 0755, not %q", s)
	}
	// Go keeps the set-id and sticky bits apart from the permissions.
	m := fs.FileMode(n & 0o777)
	if n&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if n&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if n&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m, nil
}

func parseUmask(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0o"), 8, 16)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("must be an octal umask such as 0022, not %q", s)
	}
	return int(n), nil
}

// parsePercent reads what systemd's CPUQuota takes: 50%, 150%.
func parsePercent(s string) (int, error) {
	digits, ok := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n > 100000 {
		return 0, fmt.Errorf("must be a percentage of one processor such as 50%% or 200%%, not %q", s)
	}
	return n, nil
}

// StatusSet is a set of HTTP statuses. The zero value is empty.
type StatusSet struct {
	ranges [][2]int
}

// ParseStatusSet reads statuses and ranges of them, separated by white space or
// commas: "200-399 401 403 404".
func ParseStatusSet(s string) (StatusSet, error) {
	var (
		set  StatusSet
		errs []error
	)
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return isSpace(r) || r == ',' }) {
		from, to, isRange := strings.Cut(word, "-")
		if !isRange {
			to = from
		}
		low, err1 := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || low < 100 || high > 599 || low > high {
			errs = append(errs, fmt.Errorf("%q is no HTTP status and no range of them such as 200-399", word))
			continue
		}
		set.ranges = append(set.ranges, [2]int{low, high})
	}
	if len(errs) > 0 {
		return StatusSet{}, errors.Join(errs...)
	}
	if len(set.ranges) == 0 {
		return StatusSet{}, errors.New("must name a status, such as 200-399")
	}
	return set, nil
}

// Contains tells whether a status is in the set.
func (s StatusSet) Contains(status int) bool {
	for _, r := range s.ranges {
		if r[0] <= status && status <= r[1] {
			return true
		}
	}
	return false
}

// String is what ParseStatusSet reads.
func (s StatusSet) String() string {
	words := make([]string, len(s.ranges))
	for i, r := range s.ranges {
		words[i] = strconv.Itoa(r[0])
		if r[1] != r[0] {
			words[i] += "-" + strconv.Itoa(r[1])
		}
	}
	return strings.Join(words, " ")
}
