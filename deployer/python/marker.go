package python

import (
	"fmt"
	"runtime"
	"strings"

	"scotch/deployer"
)

// markerEnv are the variables of environment markers
// (https://packaging.python.org/en/latest/specifications/dependency-specifiers/#environment-markers)
// of CPython on Linux, the only place where apps run.
type markerEnv map[string]string

func markersOf(in deployer.Interpreter) markerEnv {
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}[runtime.GOARCH]
	if machine == "" {
		machine = runtime.GOARCH
	}
	minor := in.Version
	if v, err := parseVersion(in.Version); err == nil && len(v.release) > 1 {
		minor = version{release: v.release[:2]}.String()
	}
	return markerEnv{
		"python_version": minor, "python_full_version": in.Version, "implementation_version": in.Version,
		"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine,
		"platform_python_implementation": "CPython", "implementation_name": "cpython",
		"platform_release": "", "platform_version": "", "extra": "",
	}
}

var markerToken = pattern(`^\s*(\(|\)|"[^"]*"|'[^']*'|~=|===|==|!=|<=|>=|<|>|[A-Za-z_][A-Za-z0-9_.]*)`)

// markerReader evaluates a marker while it reads it.
type markerReader struct {
	rest string
	env  markerEnv
	err  error
}

// allows tells whether a marker holds, for one of the extras or for none.
func (env markerEnv) allows(marker string, extras ...string) (bool, error) {
	if strings.TrimSpace(marker) == "" {
		return true, nil
	}
	for _, extra := range append([]string{""}, extras...) {
		with := markerEnv{}
		for k, v := range env {
			with[k] = v
		}
		with["extra"] = normal(extra)
		r := markerReader{rest: marker, env: with}
		yes := r.or(0)
		if r.err == nil && strings.TrimSpace(r.rest) != "" {
			r.fail()
		}
		if r.err != nil {
			return false, fmt.Errorf("%q is no marker that can be read", marker)
		}
		if yes {
			return true, nil
		}
	}
	return false, nil
}

func (r *markerReader) fail() { r.err = fmt.Errorf("unreadable at %q", r.rest) }

func (r *markerReader) peek() string {
	if m := markerToken().FindStringSubmatch(r.rest); m != nil {
		return m[1]
	}
	return ""
}

func (r *markerReader) next() string {
	m := markerToken().FindStringSubmatch(r.rest)
	if m == nil {
		r.fail()
		return ""
	}
	r.rest = r.rest[len(m[0]):]
	return m[1]
}

func (r *markerReader) or(depth int) bool {
	yes := r.and(depth)
	for r.err == nil && r.peek() == "or" {
		r.next()
		yes = r.and(depth) || yes
	}
	return yes
}

func (r *markerReader) and(depth int) bool {
	yes := r.comparison(depth)
	for r.err == nil && r.peek() == "and" {
		r.next()
		yes = r.comparison(depth) && yes
	}
	return yes
}

func (r *markerReader) comparison(depth int) bool {
	if r.peek() == "(" && depth < 100 {
		r.next()
		yes := r.or(depth + 1)
		if r.err == nil && r.next() != ")" {
			r.fail()
		}
		return yes
	}
	left, version1 := r.value()
	op := r.next()
	if op == "not" && r.next() == "in" {
		op = "not in"
	}
	right, version2 := r.value()
	if r.err != nil {
		return false
	}
	return r.compare(left, op, right, version1 || version2)
}

// value returns an operand, and whether it is a variable that holds a version.
func (r *markerReader) value() (string, bool) {
	t := r.next()
	if len(t) > 1 && (t[0] == '"' || t[0] == '\'') {
		return t[1 : len(t)-1], false
	}
	v, ok := r.env[t]
	if !ok {
		r.fail()
	}
	return v, strings.HasSuffix(t, "_version") && t != "platform_version"
}

func (r *markerReader) compare(left, op, right string, versions bool) bool {
	switch op {
	case "in":
		return strings.Contains(right, left)
	case "not in":
		return !strings.Contains(right, left)
	}
	if versions {
		// The version may be on either side: "3.8" <= python_version.
		v, err := parseVersion(left)
		spec, err2 := parseSpecifier(op + right)
		if err == nil && err2 == nil {
			return spec.allows(v)
		}
	}
	switch op {
	case "==", "===":
		return left == right
	case "!=":
		return left != right
	case "<=":
		return left <= right
	case ">=":
		return left >= right
	case "<":
		return left < right
	case ">":
		return left > right
	}
	r.fail()
	return false
}
