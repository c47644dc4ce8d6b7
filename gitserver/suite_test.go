package gitserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"scotch/deployer"
	"scotch/hooks"
)

// suiteMark is in the environment of hooks below receiveForSuite.
const suiteMark = "TEST_GIT_SUITE"

// receiveForSuite is git-receive-pack for git's own tests (testdata/git-suite): it
// runs stock git as the server does, with the real hooks, policy and post-receive
// handler, on the repository that it is given. In the deployer's place stands one
// whose deploys take no time.
func receiveForSuite(args []string) int {
	dir, err := suiteRepository(args[len(args)-1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "fatal: %v\n", err)
		return 128
	}
	home, err := os.MkdirTemp("", "git-suite-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(home)
	self, err := os.Executable()
	o := GitOptions{Dir: home, Program: "/usr/bin/git", Path: "/usr/bin:/bin", Mark: func() []string { return []string{suiteMark + "=1"} }}
	if err = errors.Join(err, o.Prepare(self)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ours, theirs, err := socketPair()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	h := &hooks.Handler{
		Repository: suiteRefs(dir), Deployer: suiteRefs(dir), Limits: hooks.MaxRefs(100_000), // a test pushes so many
		Branch: func(string) (string, bool, error) { return cmp.Or(os.Getenv("SUITE_BRANCH"), "live"), true, nil },
	}
	var handler, copying sync.WaitGroup
	handler.Go(func() {
		defer ours.Close()
		h.Handle(context.Background(), ours, hooks.Push{App: "suite", By: "suite", Dir: dir})
	})
	var options []string
	for _, a := range args[1 : len(args)-1] {
		if a != "--reject-thin-pack-for-testing" {
			options = append(options, a)
		}
	}
	run := &gitRun{
		service: receivePack, options: options, dir: dir, hook: theirs, copying: &copying,
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	}
	if v := os.Getenv("GIT_PROTOCOL"); protocolRE().MatchString(v) {
		run.protocol = v
	}
	status, err := o.run(context.Background(), run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	handler.Wait()
	return status
}

// suiteRepository finds a repository as git's enter_repo (path.c) does.
func suiteRepository(path string) (string, error) {
	for _, suffix := range []string{"/.git", "", ".git/.git", ".git"} {
		dir, err := filepath.Abs(path + suffix)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(filepath.Join(dir, "HEAD")); err == nil {
			return dir, nil
		}
		if text, err := os.ReadFile(dir); err == nil && strings.HasPrefix(string(text), "gitdir: ") {
			return strings.TrimSpace(strings.TrimPrefix(string(text), "gitdir: ")), nil
		}
	}
	return "", fmt.Errorf("'%s' does not appear to be a git repository", path)
}

// suiteRefs is a repository by its path, for hooks: what deployer/git answers of
// an app's, without its conditions on where and how it was made.
type suiteRefs string

func (r suiteRefs) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "/usr/bin/git", append([]string{"--git-dir=" + string(r)}, args...)...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func (r suiteRefs) Ref(ctx context.Context, _, ref string) (string, error) {
	id, _ := r.git(ctx, "rev-parse", "--verify", "--quiet", ref)
	return id, nil
}

func (r suiteRefs) Head(ctx context.Context, _ string) (string, error) {
	return r.git(ctx, "symbolic-ref", "HEAD")
}

func (r suiteRefs) Kind(ctx context.Context, _, id string) (string, error) {
	return r.git(ctx, "cat-file", "-t", id)
}

func (r suiteRefs) Complete(ctx context.Context, _, id string) (bool, error) {
	_, err := r.git(ctx, "rev-list", "--quiet", id, "--not", "--all")
	return err == nil, nil
}

func (r suiteRefs) Descends(ctx context.Context, _, id, old string) (bool, error) {
	_, err := r.git(ctx, "merge-base", "--is-ancestor", old, id)
	return err == nil, nil
}

func (r suiteRefs) Deployable(context.Context, string, string) error { return nil }

// Deploy moves the branch as deployer/git's transaction does.
func (r suiteRefs) Deploy(ctx context.Context, q deployer.Request, _ io.Writer) (deployer.Result, error) {
	if _, err := r.git(ctx, "-c", "core.hooksPath=/dev/null", "update-ref", q.Ref, q.Commit, q.Old); err != nil {
		return deployer.Result{}, fmt.Errorf("moving the ref: %w", err)
	}
	return deployer.Result{Release: 1}, nil
}
