package deployer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"scotch/config"
)

// layout names the files of one app below <instances>. An app's directory:
//
//	000042/            an instance: src venv run static deploy.log release.json
//	.src/000042/       source trees, .venvs/KEY/ virtualenvs: instances link to them
//	releases/v13.json  kept when the instance is gone
//	current -> 000042  what is live
//	stopped            exists while a person has stopped the app: the instance that was live
type layout struct {
	dir string // <instances>/NAME
}

func (d *Deployer) layout(app string) layout {
	return layout{filepath.Join(d.site.Paths.Instances, app)}
}

func (l layout) current() string { return filepath.Join(l.dir, "current") }
func (l layout) stopped() string { return filepath.Join(l.dir, "stopped") }

// isStopped tells whether a person has stopped the app. A mark for another instance
// than is live is of before the switch, which takes it away: a server was killed
// between the two.
func (l layout) isStopped() bool {
	data, err := os.ReadFile(l.stopped())
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	id := strings.TrimSpace(string(data))
	return !validID(id) || id == l.liveID()
}

func (l layout) releases() string          { return filepath.Join(l.dir, "releases") }
func (l layout) release(n int) string      { return filepath.Join(l.releases(), fmt.Sprintf("v%d.json", n)) }
func (l layout) sources() string           { return filepath.Join(l.dir, ".src") }
func (l layout) instance(id string) string { return filepath.Join(l.dir, id) }

const (
	recordName        = "release.json"
	processRecordName = "process.json"
)

// socket is the path that the web server connects to: through the link
// current, which is looked up at each connect.
func (l layout) run() string { return filepath.Join(l.current(), "run") }

// liveSocket is where the web server finds an instance while current names it:
// its socket, by way of that link.
func (d *Deployer) liveSocket(rec *Record) string {
	run := d.layout(rec.App).run()
	if rec.Plan != nil {
		if name, err := filepath.Rel(filepath.Join(rec.Dir, "run"), rec.Plan.Socket); err == nil && filepath.IsLocal(name) {
			return filepath.Join(run, name)
		}
	}
	return d.AppServer.Socket(run)
}

// Record is what is known of an instance and of the release that it serves:
// release.json in the instance's directory, and releases/vN.json without the
// plan, for as long as the app lives.
type Record struct {
	Format   int    `json:"format"`
	App      string `json:"app"`
	Release  int    `json:"release"`
	Instance string `json:"instance"`
	Dir      string `json:"dir"`

	Commit  string `json:"commit"`
	Subject string `json:"subject"`
	Ref     string `json:"ref"` // the branch that moved with the switch
	// RefWas is where the branch was before the first release of an app, zeros for
	// nowhere: a switch that is undone puts it back there. "": not known.
	RefWas string `json:"ref_was,omitempty"`
	By     string `json:"by"`
	// Why is what made the instance: "deploy", "restart", "start", "rollback",
	// "rebuild" or "change".
	Why     string        `json:"why"`
	Started time.Time     `json:"started"`
	Live    time.Time     `json:"live"`           // since when this instance serves
	First   time.Time     `json:"first,omitzero"` // when the release went live for the first time
	Took    time.Duration `json:"took"`           // nanoseconds

	Source string `json:"source"` // the tree's own directory
	Root   string `json:"root,omitempty"`
	Venv   string `json:"venv"` // the virtualenv's own directory
	// Outside are paths of this instance that the configuration puts outside
	// the app's directory; they go with it.
	Outside      []string    `json:"outside,omitempty"`
	Interpreter  Interpreter `json:"interpreter"`
	EntryPoint   EntryPoint  `json:"entry_point"`
	Dependencies string      `json:"dependencies,omitempty"` // the file that declares them
	Packages     []string    `json:"packages"`
	// Collected is what Django's collectstatic made of the source's files.
	Collected *Collected `json:"collected,omitempty"`

	// Plan starts the instance again at boot, whatever the files of the
	// configuration say by then.
	Plan *Plan `json:"plan,omitempty"`
	// Environment is what the app was to get, secrets and all.
	Environment []string `json:"environment,omitempty"`
	// WebFiles are the web server's files of the app.
	WebFiles []File `json:"web_files,omitempty"`
	URL      string `json:"url"`
	// Domains and URLPrefix are the place on the web that it answers at.
	Domains   []string `json:"domains"`
	URLPrefix string   `json:"url_prefix"`
	// Grace bounds how long requests under way may take when the instance is
	// retired, nanoseconds.
	Grace time.Duration `json:"grace"`
	// Released tells that its release command has run: what that changed in a
	// database stays, also when the release is taken back.
	Released bool `json:"released,omitempty"`
	// Watch is how long it is watched after its switch, nanoseconds, with the
	// instance Previous kept warm.
	Watch    time.Duration `json:"watch,omitempty"`
	Previous string        `json:"previous,omitempty"`
	// Settings say how its processes run, for a rollback to it.
	Settings []config.Setting `json:"settings,omitempty"`
	// Undone says that the release was taken back, by whom and why.
	Undone *Undone `json:"undone,omitempty"`
	// Warning is what the watch saw of a release that it did not take back.
	Warning string `json:"warning,omitempty"`
}

// Undone is the end of a release that somebody, or the watch, took back.
type Undone struct {
	When time.Time `json:"when"`
	By   string    `json:"by"`
	Why  string    `json:"why"`
}

// recordFormat is raised when an older server could not read a record.
const recordFormat = 1

func (r *Record) save(f *Files, op, path string) error {
	r.Format = recordFormat
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return f.Write(op, path, append(data, '\n'), 0o600)
}

func readRecord(path string) (*Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	if r.Format > recordFormat {
		return nil, fmt.Errorf("%q was written by a newer scotch (format %d, this one knows %d)\nupgrade scotch, or deploy again", path, r.Format, recordFormat)
	}
	return r, nil
}

// live reads the record of what current names; fs.ErrNotExist where the app
// was never deployed.
func (l layout) live() (*Record, error) {
	return readRecord(filepath.Join(l.current(), recordName))
}

// liveID is the id of the instance that current names, "" for none.
func (l layout) liveID() string {
	target, err := os.Readlink(l.current())
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// history reads releases/vN.json, the newest first. Files that are damaged
// are left out and reported in the error.
func (l layout) history() ([]*Record, error) {
	var records []*Record
	var bad []error
	for r, err := range l.newest() {
		if err != nil {
			bad = append(bad, err)
			continue
		}
		records = append(records, r)
	}
	return records, errors.Join(bad...)
}

// newest reads releases/vN.json one by one, the newest first, so that who needs
// the last few does not pay for all that there ever were.
func (l layout) newest() iter.Seq2[*Record, error] { return l.from(math.MaxInt) }

// from is newest from release n on: n and what is older.
func (l layout) from(n int) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		numbers, err := l.releaseNumbers()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, number := range numbers {
			if number <= n && !yield(readRecord(l.release(number))) {
				return
			}
		}
	}
}

// releaseNumbers are those of releases/vN.json, the highest first. Names of files
// are enough, so their cost stays that of one directory.
func (l layout) releaseNumbers() ([]int, error) {
	entries, err := os.ReadDir(l.releases())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		if n := releaseNumber(e.Name()); n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, func(a, b int) int { return b - a })
	return numbers, nil
}

// present is a release whose instance is there.
type present struct {
	release  *Record // releases/vN.json
	instance *Record // with all that is needed to start it
}

// present reads the releases whose instance is there, the newest first: no more
// than retention has left. Of a release's instances the last one counts, which
// its record names.
func (l layout) present() ([]present, error) {
	ids, err := l.instanceIDs()
	if err != nil {
		return nil, err
	}
	var all []present
	for _, id := range ids {
		whole, err := readRecord(filepath.Join(l.instance(id), recordName))
		if err != nil {
			continue // a failed deploy's log
		}
		if r, err := readRecord(l.release(whole.Release)); err == nil && r.Instance == id {
			all = append(all, present{r, whole})
		}
	}
	slices.SortFunc(all, func(a, b present) int { return b.release.Release - a.release.Release })
	return all, nil
}

func releaseNumber(file string) int {
	s, ok := strings.CutPrefix(file, "v")
	if s, ok2 := strings.CutSuffix(s, ".json"); ok && ok2 {
		if n, err := strconv.Atoi(s); err == nil && n > 0 {
			return n
		}
	}
	return 0
}

// nextRelease is the number that the next release gets.
func (l layout) nextRelease() (int, error) {
	numbers, err := l.releaseNumbers()
	if err != nil {
		return 0, err
	}
	last := 0
	if len(numbers) > 0 {
		last = numbers[0]
	}
	// A crash between the switch and the writing of vN.json leaves the number
	// in the live record alone.
	if live, err := l.live(); err == nil {
		last = max(last, live.Release)
	}
	return last + 1, nil
}

// instanceIDs lists the directories of instances, the oldest first.
func (l layout) instanceIDs() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		// A link where [app] instance_path lies elsewhere.
		if (e.IsDir() || e.Type()&fs.ModeSymlink != 0) && validID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	slices.SortFunc(ids, compareIDs)
	return ids, nil
}

func validID(s string) bool {
	if len(s) < idDigits {
		return false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// compareIDs sorts ids by age, longer ones last.
func compareIDs(a, b string) int {
	return cmp.Or(len(a)-len(b), strings.Compare(a, b))
}

// idDigits makes ids sort as text; an app that comes to a million instances
// gets longer ones.
const idDigits = 6

// nextID is one more than the highest id ever used: that instance's directory
// is never removed before a higher one exists, so an id never comes back,
// whatever the clock does.
func (l layout) nextID() (string, error) {
	ids, err := l.instanceIDs()
	if err != nil {
		return "", err
	}
	last := 0
	for _, id := range ids {
		n, err := strconv.Atoi(id)
		if err != nil {
			return "", fmt.Errorf("%q is no id of an instance", filepath.Join(l.dir, id))
		}
		last = max(last, n)
	}
	return fmt.Sprintf("%0*d", idDigits, last+1), nil
}

// instanceFor builds what plugins see of an instance from its record and the
// app's configuration.
func instanceFor(a *config.App, r *Record) *Instance {
	return &Instance{
		App: a, ID: r.Instance, Dir: r.Dir,
		Source: filepath.Join(r.Dir, "src", filepath.FromSlash(r.Root)),
		Venv:   filepath.Join(r.Dir, "venv"),
		Run:    filepath.Join(r.Dir, "run"),
		Data:   a.DataPath, Release: r.Release, Commit: r.Commit,
		Interpreter: r.Interpreter, EntryPoint: r.EntryPoint,
	}
}

// SetTwice says of a variable that [env] may set and scotch sets too which of
// them an app finds, "" for all others.
func SetTwice(name string) string {
	switch {
	case name == "PATH":
		return "the virtualenv's programs come first, then what [env] says"
	case outranked(name):
		return "scotch's own value counts, not that of [env]"
	case name == "HOME", name == "LANG":
		return "the value of [env] counts, in place of scotch's own"
	}
	return ""
}

// outranked are the variables that [env] cannot set.
func outranked(name string) bool {
	return strings.HasPrefix(name, "SCOTCH_") || name == "VIRTUAL_ENV"
}

// tellOutranked names the variables of [env] that are not, or not alone, what an
// app finds.
func (op *operation) tellOutranked(a *config.App) {
	for _, v := range a.Env {
		if outranked(v.Name) || v.Name == "PATH" {
			op.report.Note("note: [env] %s: %s", v.Name, SetTwice(v.Name))
		}
	}
}

// environment is all that a process of the app finds in its environment: what
// [env] says, and what scotch promises. Nothing of scotch's own.
func (i *Instance) environment(extra []config.Var) []string {
	set := map[string]string{
		"SCOTCH_APP": i.App.Name, "SCOTCH_COMMIT": i.Commit, "SCOTCH_DATA_DIR": i.Data,
		"SCOTCH_RELEASE": strconv.Itoa(i.Release),
		"VIRTUAL_ENV":    i.Venv,
		"PATH":           filepath.Join(i.Venv, "bin") + ":/usr/local/bin:/usr/bin:/bin",
		"HOME":           i.Data, "LANG": "C.UTF-8",
	}
	for _, vars := range [][]config.Var{i.App.Env, extra} {
		for _, v := range vars {
			// An app may set its own PATH, HOME and LANG; the venv stays first.
			switch {
			case outranked(v.Name):
			case v.Name == "PATH":
				set["PATH"] = filepath.Join(i.Venv, "bin") + ":" + v.Value
			default:
				set[v.Name] = v.Value
			}
		}
	}
	env := make([]string, 0, len(set))
	for k, v := range set {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env
}
