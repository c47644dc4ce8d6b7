package hooks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"scotch/deployer"
	"scotch/hooks"
)

func TestPushDeploys(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, []string{"remote: -----> blog: deploying " + one[:7], "remote: -----> live at http://", "* [new branch]      main -> main"}, "main")
	s.wantRef("refs/heads/main", one)
	two := s.commit("two")
	s.push(0, []string{one[:7] + ".." + two[:7] + "  main -> main"}, "main")
	s.wantRef("refs/heads/main", two)
	s.push(0, []string{"Everything up-to-date"}, "main")
	s.deploys(2)
	r := s.deployer.requests[1]
	if r.App != "blog" || r.By.Name != "ada" || r.Old != one || r.Commit != two || r.Ref != "refs/heads/main" || r.Clean {
		t.Errorf("%+v", r)
	}
	if s.deployer.requests[0].Old != zero {
		t.Errorf("%+v", s.deployer.requests[0])
	}
	// Fetch and clone see what is live, and no releases.
	if out := s.run(s.work, "-c", "transfer.hideRefs=refs/releases", "ls-remote", "scotch", "HEAD"); !strings.HasPrefix(out, two) {
		t.Errorf("HEAD is %q", out)
	}
	s.run(s.git.Path("blog"), "fsck", "--strict")
}

func TestDeployFails(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, nil, "main")
	s.deployer.run = func(_ context.Context, _ deployer.Request, out io.Writer) error {
		fmt.Fprint(out, "ERROR: no matching\x1b[2J distribution\nunfinished line")
		return &deployer.StageError{Stage: "checkout", Err: &deployer.ExitError{Name: "pip", Status: 1}}
	}
	s.commit("two")
	s.push(1, []string{
		"! [remote rejected] main -> main (deploy failed in checkout: pip exited with 1)",
		`remote: ERROR: no matching\x1b[2J distribution`, "remote: unfinished line",
	}, "main")
	s.wantRef("refs/heads/main", one)

	s.deployer.run = func(context.Context, deployer.Request, io.Writer) error {
		return &deployer.RefusedError{Reason: `"blog" is locked by bob since Monday: release night`, Hint: "to unlock it: ssh scotch@host unlock blog\nor ask bob"}
	}
	s.push(1, []string{
		`! [remote rejected] main -> main ("blog" is locked by bob since Monday: release night)`,
		"remote:        to unlock it: ssh scotch@host unlock blog", "remote:        or ask bob",
	}, "main")

	s.deployer.run = func(context.Context, deployer.Request, io.Writer) error {
		return errors.New("disk full\nsecond line\x1b")
	}
	said := s.push(1, []string{"(deploy failed: disk full)"}, "main")
	if strings.Contains(said, "\x1b[2J") || strings.Contains(said, "\x1b\n") {
		t.Errorf("%q", said)
	}
	s.wantRef("refs/heads/main", one)
	s.deployer.run = nil
	s.push(0, nil, "main") // the same push works
}

func TestOthersAreStored(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, []string{
		"remote:        stored dev, not deployed: blog deploys from main",
		"remote:        to deploy it: ssh scotch@host deploy blog --ref dev", "[new branch]      main -> dev",
	}, "main:dev")
	s.wantRef("refs/heads/dev", one)
	s.deploys(0)
	s.run(s.work, "tag", "-a", "-m", "x", "v1.0")
	s.push(0, []string{"stored v1.0, not deployed", "[new tag]         v1.0 -> v1.0"}, "v1.0")
	s.wantRef("refs/tags/v1.0", s.run(s.work, "rev-parse", "v1.0"))
	s.push(0, []string{`--ref 'x;$(id)'`}, "main:x;$(id)")
	s.push(0, []string{`deleted "dev"`, "- [deleted]         dev"}, ":dev")
	s.wantRef("refs/heads/dev", "")
	// Many are not all named.
	args := []string{}
	for i := range 9 {
		args = append(args, fmt.Sprintf("main:b%d", i))
	}
	s.push(0, []string{"stored b4,", "and 4 more, not deployed"}, args...)
	s.deploys(0)
}

func TestSeveralRefs(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.deployer.run = func(context.Context, deployer.Request, io.Writer) error {
		return &deployer.StageError{Stage: "register", Err: errors.New("no answer")}
	}
	s.push(1, []string{"[remote rejected] main -> main (deploy failed in register: no answer)", "[new branch]      main -> dev"}, "main", "main:dev")
	s.wantRef("refs/heads/main", "")
	s.wantRef("refs/heads/dev", one)
	s.deployer.run = nil
	s.deploys(1)

	// git can't take a live switch back.
	s.push(1, []string{
		`! [remote rejected] main -> main ("main" goes live and can't be part of an atomic push)`,
		`! [remote rejected] main -> dev2 ("main" goes live and can't be part of an atomic push)`, "leave out --atomic",
	}, "--atomic", "main", "main:dev2")
	s.deploys(1)
	s.wantRef("refs/heads/dev2", "")
	s.push(0, nil, "--atomic", "main:dev2", "main:dev3")
	s.wantRef("refs/heads/dev3", one)
	s.push(1, []string{"(atomic push: another ref was refused)"}, "--atomic", "main:dev4", "main:refs/notes/x")
	s.wantRef("refs/heads/dev4", "")
	s.push(0, nil, "--atomic", "main")
	s.wantRef("refs/heads/main", one)
}

func TestForce(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	two := s.commit("two")
	s.push(0, nil, "main", "main:dev")
	s.run(s.work, "reset", "-q", "--hard", "HEAD^")
	other := s.commit("other")
	s.denied = []string{"force"}
	s.push(1, []string{`(fetch first: "main" would lose commits, and key "ada" may not force)`, "git pull --rebase"}, "--force", "main")
	s.push(1, []string{`(fetch first: "dev" would lose commits`}, "--force", "main:dev")
	s.wantRef("refs/heads/main", two)
	s.denied = nil
	s.push(1, []string{"[rejected]", "non-fast-forward"}, "main") // git's own
	s.push(0, []string{"+ " + two[:7] + "..." + other[:7] + " main -> main (forced update)"}, "--force", "main")
	s.wantRef("refs/heads/main", other)
	s.denied = []string{"push"}
	s.commit("more")
	s.push(1, []string{`(key "ada" may not push to "blog")`}, "main")
	s.deploys(2)
}

func TestRefused(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, nil, "main")
	s.push(1, []string{`! [remote rejected] main ("main" is the branch that "blog" is deployed from and can't be deleted)`, "ssh scotch@host destroy blog --force"}, ":main")
	s.wantRef("refs/heads/main", one)
	s.push(1, []string{"(only branches and tags can be pushed)"}, "main:refs/notes/x")
	s.push(1, []string{"[remote rejected]"}, "main:refs/releases/v9")
	s.push(1, []string{"[remote rejected]"}, "main:refs/scotch/source/HEAD")
	s.push(1, []string{"(bad name: "}, "main:refs/heads/HEAD")
	s.push(1, []string{"(bad name: it begins with a dash"}, "main:refs/heads/-x")
	s.push(1, []string{"(bad name: it holds characters"}, "main:refs/heads/x\xff")
	s.push(1, []string{`("main/x" can't stand beside "main", the branch that deploys)`}, "main:refs/heads/main/x")
	// git's own client refuses a tree as a branch unless the name is whole.
	s.push(1, []string{"(a branch must be a commit, this is a tree)"}, "main^{tree}:refs/heads/tree")
	s.push(1, []string{`(unknown push option "ci.skip")`, "git config --show-origin"}, "-o", "ci.skip", "main:dev")
	s.handler.Limits = hooks.MaxRefs(2)
	s.push(1, []string{"the push has 3 refs, at most 2 are taken at once", "(pre-receive hook declined)"}, "main:a", "main:b", "main:c")
	s.handler.Limits = nil
	s.handler.Branch = func(string) (string, bool, error) { return "", false, errors.New("blog.cfg:3: bad key") }
	s.push(1, []string{"(the server failed while looking for the app's branch: blog.cfg:3: bad key)"}, "main:dev")
	s.deploys(1)
	if refs := s.run(s.git.Path("blog"), "for-each-ref", "--format=%(refname)"); refs != "refs/heads/main\nrefs/releases/v1" {
		t.Errorf("refs: %s", refs)
	}
}

func TestPushOptions(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	s.push(0, nil, "-o", "clean", "-o", "wait", "main")
	if r := s.deployer.requests[0]; !r.Clean || !r.Wait {
		t.Errorf("clean and wait did not arrive: %+v", r)
	}
}

func TestDryRun(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	s.push(0, []string{"main -> main"}, "--dry-run", "main")
	s.deploys(0)
	s.wantRef("refs/heads/main", "")
}

func TestWhichBranchDeploys(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, []string{"stored prod"}, "main:prod")
	s.push(0, []string{"live at"}, "main:master") // whichever comes first
	s.wantRef("refs/heads/master", one)
	s.push(0, []string{"stored main, not deployed: blog deploys from master"}, "main")
	s.deploys(1)
	s.branch, s.set = "prod", true
	s.commit("two")
	s.push(0, []string{"stored master, not deployed: blog deploys from prod"}, "main:master")
	s.push(0, []string{"live at"}, "main:prod")
	s.deploys(2)

	s = newServer(t)
	one = s.commit("one")
	s.push(0, []string{"stored master"}, "main", "main:master") // both at once
	s.deploys(1)
	s.wantRef("refs/heads/main", one)
	s.wantRef("refs/heads/master", one)
}

func TestShallow(t *testing.T) {
	s := newServer(t)
	s.commit("one")
	s.commit("two")
	clone := filepath.Join(t.TempDir(), "clone")
	s.run("", "clone", "-q", "--depth=1", "file://"+s.work, clone)
	s.run(clone, "remote", "add", "scotch", s.git.Path("blog"))
	for _, ref := range []string{"main", "main:dev"} {
		var out bytes.Buffer
		_, wait := s.start(clone, &out, "scotch", ref)
		if status := wait(); status != 1 {
			t.Errorf("exit status %d", status)
		}
		for _, want := range []string{"(this clone is shallow: part of the history is missing)", "git fetch --unshallow", "fetch-depth: 0"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in:\n%s", want, &out)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(s.git.Path("blog"), "shallow")); err == nil {
		t.Error("the repository became shallow")
	}
	s.deploys(0)
	s.run(clone, "fetch", "-q", "--unshallow")
	var out bytes.Buffer
	if _, wait := s.start(clone, &out, "scotch", "main"); wait() != 0 {
		t.Errorf("after --unshallow:\n%s", &out)
	}
	s.deploys(1)
	s.run(s.git.Path("blog"), "fsck", "--strict")
}

// What can't be deployed is refused for the branch that deploys, and may be
// stored elsewhere.
func TestNotDeployable(t *testing.T) {
	s := newServer(t)
	one := s.commit("one")
	s.push(0, nil, "main")
	s.run(s.work, "update-index", "--add", "--cacheinfo", "160000,"+one+",vendor/lib")
	s.run(s.work, "commit", "-q", "-m", "submodule")
	s.push(1, []string{`(submodules are not supported yet: "vendor/lib")`, "remote:        commit their files instead"}, "main")
	s.push(0, nil, "main:dev")
	s.run(s.work, "reset", "-q", "--hard", one)
	if err := os.Symlink("/etc/passwd", filepath.Join(s.work, "pw")); err != nil {
		t.Fatal(err)
	}
	s.run(s.work, "add", "-A")
	s.run(s.work, "commit", "-q", "-m", "link")
	s.push(1, []string{`(symbolic links leave the tree: "pw")`}, "main")
	s.deploys(1)
}
