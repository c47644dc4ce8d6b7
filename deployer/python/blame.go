package python

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"scotch/deployer"
)

// unread is where an installer met what it can't read.
type unread struct {
	file           string
	line, position int    // line counts from 1, position is a byte of the file; one of them is known
	text           string // of what came as an argument
}

var (
	// uv names the byte at which a requirement begins, or its line; pip the line.
	unreadPosition = pattern("(?i)couldn't parse requirement in `([^`]+)` at position (\\d+)")
	unreadPlace    = pattern(`Unexpected .*, expected .*: (\S+):(\d+):\d+$`)
	unreadLine     = pattern(`Invalid requirement: .* \(from line (\d+) of ([^()]+)\)`)
	unreadArgument = pattern("^(?i:error: )?(?:Failed to parse: `(.+)`|Invalid requirement: '(.+)')$")
)

// unreadable reads a line in which an installer blames a requirements file.
func unreadable(line string) (unread, bool) {
	line = strings.TrimSpace(line)
	if m := unreadPosition().FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[2])
		return unread{file: m[1], position: n}, true
	}
	if m := unreadPlace().FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[2])
		return unread{file: m[1], line: n}, true
	}
	if m := unreadLine().FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1])
		return unread{file: m[2], line: n}, true
	}
	if m := unreadArgument().FindStringSubmatch(line); m != nil {
		return unread{text: m[1] + m[2]}, true
	}
	return unread{}, false
}

// hints name the line. A list that scotch made itself has none.
func (u unread) hints(d *declaration, src string) []string {
	if u.file == "" {
		if d.kind != projectsList {
			return nil
		}
		return []string{fmt.Sprintf("%q in the dependencies of %s is no requirement", u.text, d.from), "mend " + d.from}
	}
	for _, f := range d.files {
		if f.name != strings.TrimPrefix(strings.TrimPrefix(u.file, src+"/"), "./") {
			continue
		}
		if u.line == 0 {
			u.line = 1 + strings.Count(string(f.content[:min(u.position, len(f.content))]), "\n")
		}
		where := fmt.Sprintf("%s, line %d", f.name, u.line)
		for i, l := range strings.Split(string(f.content), "\n") {
			if i+1 == u.line {
				text := []rune(strings.TrimSpace(mask(l)))
				where += fmt.Sprintf(": %q", string(text[:min(len(text), 100)]))
			}
		}
		return []string{where + " is no requirement", "mend " + f.name}
	}
	return nil
}

var (
	sshUnreached = pattern(`\bssh: (?:connect to host (\S+) port (\d+): (.+)|Could not resolve hostname ([^\s:]+): (.+))`)
	gitUnreached = pattern(`fatal: unable to (?:access '([^']+)'|connect to ([^\s:]+)): ?(.*)`)
)

// unreached reads a line in which git says that it can't reach a repository: that
// is no index, whatever the reason is like. The hint is "" where it is told already.
func unreached(line string) (hint string, of bool) {
	line = strings.TrimSpace(line)
	if m := sshUnreached().FindStringSubmatch(line); m != nil {
		host, why := m[4], m[5]
		if m[1] != "" {
			host, why = m[1]+" port "+m[2], m[3]
		}
		return fmt.Sprintf("git can't reach %s (%s): look at the repository's address; scotch key APP shows the key that must be let in there", host, why), true
	}
	if m := gitUnreached().FindStringSubmatch(line); m != nil {
		why := ""
		if m[3] != "" {
			why = " (" + m[3] + ")"
		}
		return fmt.Sprintf("git can't reach %s%s: look at the repository's address, and whether this server may go there", m[1]+m[2], why), true
	}
	return "", strings.Contains(line, ": errno=") // a line for each address that git:// tried
}

var (
	killedPattern = pattern(`[Kk]illed signal terminated program|\(signal: 9\b|exit code: -9\b|died with <Signals\.SIGKILL|virtual memory exhausted|Cannot allocate memory|^MemoryError\b`)
	headerPattern = pattern(`fatal error: ['"<]?([\w./+-]+\.(?:h|hh|hpp|hxx))['">]?(?:: No such file| file not found)`)
	noisePattern  = pattern(`^Using (?:CPython|Python|PyPy) .*\benvironment at: `)
)

// outOfMemory is the mend for a build that the kernel has killed.
func outOfMemory(l deployer.Limits) string {
	if l.Memory == 0 {
		return "most likely the machine ran out of memory: give it more, or swap"
	}
	return "most likely it ran " + l.OutOfMemory() + ": raise that, or give the machine more"
}

var (
	uvBuilds  = pattern(`^ *(Building|Built) (\S.*)$`)
	pipTakes  = pattern(`^(?:Collecting|Processing|Obtaining) (\S+)`)
	pipBuilds = pattern(`^ *((?:Getting requirements to build|Preparing (?:wheel |editable )?metadata|Building (?:wheel|editable) for|Running setup\.py)\b.*): (started|finished)\b`)
	pipNames  = pattern(`\bfor (\S+)`)
)

// maxBuilding is how many of them are remembered.
const maxBuilding = 100

// builds are the packages that are being built.
type builds struct {
	taken string // what pip is at
	under []string
}

func (b *builds) read(line string) {
	line = strings.TrimRight(line, "\r\n ")
	if m := uvBuilds().FindStringSubmatch(line); m != nil && !strings.Contains(line, ": ") {
		b.set(m[2], m[1] == "Building")
	} else if m := pipTakes().FindStringSubmatch(line); m != nil {
		b.taken = m[1]
	} else if m := pipBuilds().FindStringSubmatch(line); m != nil {
		what := b.taken
		if n := pipNames().FindStringSubmatch(m[1]); n != nil {
			what = n[1]
		}
		b.set(what, m[2] == "started")
	}
}

func (b *builds) set(what string, begins bool) {
	b.under = slices.DeleteFunc(b.under, func(s string) bool { return s == what })
	if begins && len(b.under) < maxBuilding {
		b.under = append(b.under, what)
	}
}

// late are the hints for an installer that was ended at its deadline.
func (b *builds) late(d *declaration, s step) []string {
	const longer = "a longer time is set by timeout in [deploy]"
	switch {
	case len(b.under) > 0:
		return []string{fmt.Sprintf("it was building %s: look why that takes so long; %s", deployer.Neutral(b.under[len(b.under)-1]), longer)}
	case s.local:
		return nil
	case d.mutable != "":
		return []string{"the index may be slow or down, or a build hangs (" + d.mutable + "); " + longer}
	}
	return []string{"the index may be slow or down; " + longer}
}

// blame are the next steps after the failure of a step.
func (f *filter) blame(err error, d *declaration, s step, r deployer.InstallRequest, env []string) []string {
	var exit *deployer.ExitError
	hints := f.hints()
	for i, h := range hints {
		hints[i] = strings.ReplaceAll(h, "scotch key APP", "scotch key "+r.App.Name)
	}
	late := errors.As(err, new(*deployer.TimeoutError))
	if f.index || late && !s.local && len(f.builds.under) == 0 {
		hints = append(hints, "asked was "+strings.Join(d.asked(env, r), ", "))
	}
	if f.unread != nil && errors.As(err, &exit) {
		hints = append(hints, f.unread.hints(d, r.Source)...)
	}
	switch limits := deployer.BuildLimits(r.App); {
	case errors.As(err, &exit) && exit.Cause != "" && limits.Memory > 0: // it is said already
		hints = append(hints, "raise that, or give the machine more")
	case errors.As(err, &exit) && exit.Cause != "":
		hints = append(hints, "give the machine more, or swap")
	case f.killed, errors.As(err, &exit) && exit.Signal == "SIGKILL":
		hints = append(hints, outOfMemory(limits))
	}
	if late {
		hints = append(hints, f.builds.late(d, s)...)
	}
	return hints
}
