package python_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"scotch/config"
	"scotch/deployer"
)

// saying is an installer that says something and fails.
type saying struct {
	deployer.Runner
	output string
	err    error
}

func (s saying) Run(ctx context.Context, c deployer.Command) error {
	switch {
	case slices.Contains(c.Args, "install"):
		io.WriteString(c.Stdout, s.output)
		return s.err
	case slices.Contains(c.Args, "venv"):
		return nil
	}
	return s.Runner.Run(ctx, c)
}

// What fails is blamed on what is wrong, and not on the index because the words are alike.
func TestBlame(t *testing.T) {
	exit, killed, late := &deployer.ExitError{Name: "x", Status: 1}, &deployer.ExitError{Name: "x", Status: -1, Signal: "SIGKILL"}, &deployer.TimeoutError{Name: "x", After: time.Second}
	six := []string{"requirements.txt", "# é\nsix\nflask=3.0\n-r req/base.txt\n", "req/base.txt", "six\nimport os\n"}
	for _, c := range []struct {
		name, output string
		err          error
		files        []string
		memory       string
		want         string // all that follows the first line
	}{
		{name: "uv, a position", files: six, err: exit, output: "error: Couldn't parse requirement in `requirements.txt` at position 9\n  cause: no such comparison operator \"=\"\n", want: "requirements.txt, line 3: \"flask=3.0\" is no requirement\nmend requirements.txt"},
		{name: "uv, included", files: six, err: exit, output: "error: Error parsing included file in `requirements.txt` at position 19\n  cause: Couldn't parse requirement in `req/base.txt` at position 4\n", want: "req/base.txt, line 2: \"import os\" is no requirement\nmend req/base.txt"},
		{name: "uv, a line", files: []string{"requirements.txt", "six\n<<<<<<< HEAD"}, err: exit, output: "error: Unexpected '<', expected '-c', '-e', '-r' or the start of a requirement: requirements.txt:2:1\n", want: "requirements.txt, line 2: \"<<<<<<< HEAD\" is no requirement\nmend requirements.txt"},
		{name: "pip", files: six, err: exit, output: "ERROR: Invalid requirement: 'flask=3.0' (from line 3 of requirements.txt)\nHint: = is not a valid operator. Did you mean == ?\n", want: "requirements.txt, line 3: \"flask=3.0\" is no requirement\nmend requirements.txt"},
		{name: "a list", files: []string{"pyproject.toml", "[project]\nname = 'x'\ndependencies = ['flask=3']\n"}, err: exit, output: "error: Failed to parse: `flask=3`\n", want: "\"flask=3\" in the dependencies of pyproject.toml is no requirement\nmend pyproject.toml"},
		{name: "killed", err: killed, want: "most likely the machine ran out of memory: give it more, or swap"},
		{name: "killed at a limit", err: killed, memory: "64m", want: "most likely it ran out of memory ([limits] build_memory = 64m): raise that, or give the machine more"},
		{name: "known to be killed at a limit", err: &deployer.ExitError{Name: "x", Status: -1, Signal: "SIGKILL", Cause: "out of memory ([limits] build_memory = 64m)"}, memory: "64m", want: "raise that, or give the machine more"},
		{name: "a compiler is killed", err: exit, output: "gcc: fatal error: Killed signal terminated program cc1plus\n", want: "most likely the machine ran out of memory: give it more, or swap"},
		{name: "pip's build is killed", err: exit, output: "  × Getting requirements to build wheel did not run successfully.\n  │ exit code: -9\n", want: "most likely the machine ran out of memory: give it more, or swap"},
		{name: "uv's build is killed", err: exit, output: "  cause: Call to `setuptools.build_meta` failed (signal: 9 (SIGKILL))\n", want: "most likely the machine ran out of memory: give it more, or swap"},
		{name: "uv's build hangs", err: late, output: "   Building six @ file:///src\n   Building hh==1\n      Built six @ file:///src\n", want: "it was building hh==1: look why that takes so long; a longer time is set by timeout in [deploy]"},
		{name: "pip's build hangs", err: late, output: "Collecting six==1\n  Preparing metadata (setup.py): started\n  Preparing metadata (setup.py): finished with status 'done'\nCollecting hh==1\n  Preparing metadata (setup.py): started\n", want: "it was building hh==1: look why that takes so long; a longer time is set by timeout in [deploy]"},
		{name: "the index hangs", err: late, output: "Collecting six==1\n", want: "asked was https://pypi.org/simple\nthe index may be slow or down; a longer time is set by timeout in [deploy]"},
		{name: "ssh, a closed port", err: exit, output: "         ssh: connect to host git.example.org port 2200: Connection refused\n         fatal: Could not read from remote repository.\n", want: "git can't reach git.example.org port 2200 (Connection refused): look at the repository's address; scotch key blog shows the key that must be let in there"},
		{name: "ssh, no host", err: exit, output: "  ssh: Could not resolve hostname no.invalid: Name or service not known\n", want: "git can't reach no.invalid (Name or service not known): look at the repository's address; scotch key blog shows the key that must be let in there"},
		{name: "https, no host", err: exit, output: "  fatal: unable to access 'https://bob:pw@no.invalid/a/b.git/': Could not resolve host: no.invalid\n", want: "git can't reach https://****@no.invalid/a/b.git/ (Could not resolve host: no.invalid): look at the repository's address, and whether this server may go there"},
		{name: "git, a closed port", err: exit, output: "fatal: unable to connect to 127.0.0.1:\n127.0.0.1[0: 127.0.0.1]: errno=Connection refused\n", want: "git can't reach 127.0.0.1: look at the repository's address, and whether this server may go there"},
		{name: "an unknown header", err: exit, output: "x.c:1:10: fatal error: wonderful/x.h: No such file or directory\n", want: "the header wonderful/x.h is missing: apt-file search wonderful/x.h names the package that has it"},
		{name: "Graphviz", err: exit, output: "x.c:1:10: fatal error: graphviz/cgraph.h: No such file or directory\n", want: "the headers of Graphviz are missing: apt install libgraphviz-dev"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.files == nil {
				c.files = []string{"requirements.txt", "six==1\n"}
			}
			app := &config.App{Name: "blog", Interpreter: "python3", Limits: map[string]string{"build_memory": c.memory}}
			tc := toolchainWith(t, withoutUV, saying{newRunner(t), c.output, c.err}, t.TempDir())
			_, err := install(t, tc, app, tree(t, c.files...))
			_, rest, _ := strings.Cut(fmt.Sprint(err), "\n")
			if rest != c.want {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

// uv's own words for a line that is no requirement, in this version of it.
func TestBlameOfUV(t *testing.T) {
	t.Parallel()
	tc := toolchain(t, uvPath(t))
	for _, l := range []string{"flask=3.0", "flask 3.0", "import os", "fl\x00ask", "flask==", "<<<<<<< HEAD"} {
		r, err := install(t, tc, &config.App{Name: "blog", Interpreter: "python3"}, tree(t, "requirements.txt", "# é\n\n-r more.txt\n", "more.txt", "# é\n"+l+"\n"))
		if want := fmt.Sprintf("uv exited with 2 while installing requirements.txt\nmore.txt, line 2: %q is no requirement\nmend more.txt", l); fmt.Sprint(err) != want {
			t.Errorf("%q: %v\n%s", l, err, r.out)
		}
	}
}
