package deployer

import (
	"io"
	"os"
	"strings"
	"syscall"

	"scotch/config"
)

// processType is a line of a Procfile.
type processType struct{ name, line string }

// procfileLine is how Heroku reads one
// (https://devcenter.heroku.com/articles/procfile#procfile-format).
var procfileLine = pattern(`(?m)^([A-Za-z0-9_-]+)[ \t]*:[ \t]*(.*?)[ \t\r]*$`)

// procfile reads the Procfile of a source, nothing where it has none.
func procfile(src string) []processType {
	root, err := os.OpenRoot(src)
	if err != nil {
		return nil
	}
	defer root.Close()
	f, err := root.OpenFile("Procfile", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSourceConfig))
	if err != nil {
		return nil
	}
	var all []processType
	for _, m := range procfileLine().FindAllStringSubmatch(string(text), -1) {
		all = append(all, processType{m[1], m[2]})
	}
	return all
}

// readProcfile takes the release command from the Procfile where no
// configuration says what it is, and names the lines that scotch does not run.
func (op *operation) readProcfile(a *config.App, src string) {
	var left []string
	for _, t := range procfile(src) {
		switch {
		case t.name == "web":
		case t.name == "release" && !a.ReleaseSet && t.line != "":
			a.Release, op.releaseFrom = t.line, "Procfile"
		case t.name == "release" && a.ReleaseSet:
			left = append(left, "release ([app] release is set)")
		default:
			left = append(left, t.name)
		}
	}
	if len(left) > 0 {
		op.report.Note("note: lines of the Procfile that scotch does not run: %s", strings.Join(left, ", "))
	}
}
