package python

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// version is a version of Python: the numbers, and whether it is one before
// its release ("3.14.0rc1").
type version struct {
	release []int
	pre     bool
}

var versionPattern = pattern(`^(\d{1,4}(?:\.\d{1,4}){0,3})((?:a|b|rc|\.dev)\d*|\+|-dev)?$`)

func parseVersion(s string) (version, error) {
	m := versionPattern().FindStringSubmatch(s)
	if m == nil {
		return version{}, fmt.Errorf("%q is no version", s)
	}
	v := version{pre: m[2] != ""}
	for n := range strings.SplitSeq(m[1], ".") {
		i, err := strconv.Atoi(n)
		if err != nil {
			return version{}, err
		}
		v.release = append(v.release, i)
	}
	return v, nil
}

// part is a number of a version, 0 where it has not that many.
func (v version) part(i int) int {
	if i < len(v.release) {
		return v.release[i]
	}
	return 0
}

func (v version) compare(w version) int {
	for i := range max(len(v.release), len(w.release)) {
		if c := cmp.Compare(v.part(i), w.part(i)); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre:
		return -1
	}
	return 1
}

// within tells that v begins with the numbers of prefix: 3.12.1 with 3.12.
func (v version) within(prefix version) bool {
	return len(v.release) >= len(prefix.release) && slices.Equal(v.release[:len(prefix.release)], prefix.release)
}

// specifier is a set of versions as PEP 440 writes it: ">=3.9,<4".
type specifier []clause

type clause struct {
	op  string
	v   version
	any bool // .*
}

var clausePattern = pattern(`^(~=|===|==|!=|<=|>=|<|>)\s*([0-9.]+?(?:a|b|rc)?[0-9]*)(\.\*)?$`)

func parseSpecifier(s string) (specifier, error) {
	var spec specifier
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		m := clausePattern().FindStringSubmatch(part)
		if m == nil {
			return nil, fmt.Errorf("%q is no version specifier", s)
		}
		v, err := parseVersion(m[2])
		if err != nil {
			return nil, fmt.Errorf("%q is no version specifier", s)
		}
		if m[1] == "~=" && len(v.release) < 2 {
			return nil, fmt.Errorf("%q is no version specifier", s)
		}
		spec = append(spec, clause{m[1], v, m[3] != ""})
	}
	return spec, nil
}

func (s specifier) allows(v version) bool {
	for _, c := range s {
		if !c.allows(v) {
			return false
		}
	}
	return true
}

func (c clause) allows(v version) bool {
	d := v.compare(c.v)
	switch c.op {
	case "~=":
		return d >= 0 && v.within(version{release: c.v.release[:len(c.v.release)-1]})
	case "==", "===":
		return d == 0 || c.any && v.within(c.v)
	case "!=":
		return d != 0 && !(c.any && v.within(c.v))
	case "<=":
		return d <= 0
	case ">=":
		return d >= 0
	case "<":
		return d < 0
	}
	return d > 0
}
