package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// maxDepth is configparser.MAX_INTERPOLATION_DEPTH.
	maxDepth = 10
	// Ten levels of many references each are enough to fill any memory.
	maxSteps    = 10000
	maxExpanded = 1 << 20
)

// fault is a value that can't be interpolated, and the key whose value is to blame.
type fault struct {
	kind    faultKind
	at      ref
	problem string
	hint    string
}

type faultKind int

const (
	badSyntax faultKind = iota
	missingKey
	tooDeep
	tooMuch
)

func (f *fault) Error() string { return f.problem }

// expansion interpolates one value.
type expansion struct {
	v     *Values
	out   strings.Builder
	steps int
	path  []ref // the references that led here
}

// interpolate replaces ${key}, ${section:key} and $$ as
// configparser.ExtendedInterpolation does.
func (v *Values) interpolate(at ref, raw string) (string, error) {
	if !strings.Contains(raw, "$") {
		return raw, nil
	}
	x := &expansion{v: v}
	if f := x.some(at, raw); f != nil {
		return "", f
	}
	return x.out.String(), nil
}

func (x *expansion) some(at ref, rest string) *fault {
	x.path = append(x.path, at)
	defer func() { x.path = x.path[:len(x.path)-1] }()
	if len(x.path) > maxDepth {
		return x.deep()
	}
	for rest != "" {
		plain, found := rest, ""
		if i := strings.IndexByte(rest, '$'); i >= 0 {
			plain, found = rest[:i], rest[i:]
		}
		x.out.WriteString(plain)
		x.steps++
		if x.steps > maxSteps || x.out.Len() > maxExpanded {
			return &fault{tooMuch, x.path[0], fmt.Sprintf("the value gets longer than %d bytes or refers to others more than %d times", maxExpanded, maxSteps), ""}
		}
		switch {
		case found == "":
			return nil
		case strings.HasPrefix(found, "$$"):
			x.out.WriteByte('$')
			rest = found[2:]
			continue
		case !strings.HasPrefix(found, "${"):
			return &fault{badSyntax, at, "'$' must be followed by '$' or '{'" + excerpt(at, found), "write $$ for a dollar sign"}
		}
		end := strings.IndexByte(found, '}')
		if end < 3 {
			return &fault{badSyntax, at, "there is no KEY} behind '${'" + excerpt(at, found), "write $${ for the characters themselves"}
		}
		name := found[2:end]
		rest = found[end+1:]
		target, raw, ok := x.find(at, name)
		if strings.Count(name, ":") > 1 {
			return &fault{badSyntax, at, fmt.Sprintf("${%s} has more than one ':'", name), "write ${section:key}"}
		}
		if !ok {
			return &fault{missingKey, at, fmt.Sprintf("refers to ${%s}, which is not set%s", name, x.v.meant(at.section, name)), "write $${ for the characters themselves"}
		}
		if !strings.Contains(raw, "$") {
			x.out.WriteString(raw)
			continue
		}
		if f := x.some(target, raw); f != nil {
			return f
		}
	}
	return nil
}

// find returns the key that a reference in at's section names, and its value as written.
func (x *expansion) find(at ref, name string) (ref, string, bool) {
	section, key, other := strings.Cut(name, ":")
	if !other {
		section, key = at.section, name
	}
	target := ref{section, keyName(section, key)}
	raw, ok := x.v.raw(target)
	if !ok && !other {
		raw, ok = x.v.given[name]
	}
	return target, raw, ok
}

func (x *expansion) deep() *fault {
	last := x.path[len(x.path)-1]
	for i := len(x.path) - 2; i >= 0; i-- {
		if x.path[i] != last {
			continue
		}
		var names []string
		for _, r := range x.path[i:] {
			names = append(names, r.String())
		}
		return &fault{tooDeep, last, "refers to itself: " + strings.Join(names, " → "), ""}
	}
	return &fault{tooDeep, x.path[0], fmt.Sprintf("refers to others more than %d deep", maxDepth), ""}
}

func (r ref) String() string { return r.section + ":" + r.key }

// excerpt shows where a value is wrong, unless it is a secret.
func excerpt(at ref, s string) string {
	if isSecret(at.section) {
		return ""
	}
	if r := []rune(s); len(r) > 20 {
		s = string(r[:20]) + "…"
	}
	return fmt.Sprintf(", found %q", s)
}

// meant suggests another place where the key that a reference names is set.
func (v *Values) meant(section, name string) string {
	if _, key, other := strings.Cut(name, ":"); other {
		name = key
	}
	for _, s := range v.Sections() {
		if s != section && !isSecret(s) {
			if _, ok := v.raw(ref{s, keyName(s, name)}); ok && !v.fromDefault(ref{s, keyName(s, name)}) {
				return fmt.Sprintf(" (did you mean ${%s:%s}?)", s, name)
			}
		}
	}
	if _, ok := v.own(ref{defaultSection, keyName(defaultSection, name)}); ok && keepsCase(section) {
		return fmt.Sprintf(" (did you mean ${%s:%s}?)", defaultSection, name)
	}
	// A file that was pushed may refer to thousands of names with thousands of others
	// to compare each with.
	if len(v.origins) > maxCandidates {
		return ""
	}
	names := slices.Collect(maps.Keys(v.given))
	if !isSecret(section) {
		names = append(names, v.Keys(section)...)
	}
	slices.Sort(names)
	if near := didYouMean(name, names, func(s string) string { return "${" + s + "}" }); near != "" {
		return " (" + near + ")"
	}
	return ""
}

// maxCandidates is how many values there may be for a name that is not known to be
// compared with theirs.
const maxCandidates = 150

// escape writes text so that it interpolates to itself.
func escape(s string) string { return strings.ReplaceAll(s, "$", "$$") }
