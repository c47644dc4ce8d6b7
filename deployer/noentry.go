package deployer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"scotch/config"
)

// noEntryPoint adds to a Toolchain's error which directories hold an app, where
// the top of the source does not.
func (op *operation) noEntryPoint(a *config.App, src string, err error) error {
	none, ok := errors.AsType[*NoEntryPointError](err)
	if !ok || a.Root != "" {
		return err
	}
	var lines []string
	for _, dir := range none.Below {
		plain := true
		for part := range strings.SplitSeq(dir, "/") {
			plain = plain && plainName().MatchString(part)
		}
		if plain {
			lines = append(lines, fmt.Sprintf("%s config %s set root=%s", op.d.SSH, op.app, path.Clean(dir)))
		}
	}
	if len(lines) == 0 {
		op.tellBelow(a, src)
		return err
	}
	what := "below the top of the source there is an app; to deploy that one, and then " + op.again(a) + ":"
	if len(lines) > 1 {
		what = "below the top of the source there are apps; to deploy one of them, and then " + op.again(a) + ":"
	}
	return fmt.Errorf("%s\n%s\n  %s\nelse %s", none.Reason, what, strings.Join(lines, "\n  "), none.Hint)
}
