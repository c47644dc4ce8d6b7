package git

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"scotch/deployer"
)

// incoming is a repository that a source is fetched into, as a push's objects come
// into quarantine: what is too large never is part of the app's own. It lies where
// git's quarantines do, so that Recover removes one that was left, and it has the
// app's objects as an alternate, so that only new ones are fetched.
type incoming struct {
	g    *Git
	app  string
	name string // below the app's repository
}

// quarantined are git's settings for it.
func quarantined() [][2]string {
	s := slices.DeleteFunc(settings(), func(kv [2]string) bool {
		// git asks the alternate which commits it has, by git itself.
		return kv[0] == "core.alternateRefsCommand" || kv[0] == "core.fsync"
	})
	return append(s,
		[2]string{"core.fsync", "objects,derived-metadata"}, // its refs are for a moment, its packs stay
		[2]string{"fetch.unpackLimit", "1"},                 // one pack, whatever comes
	)
}

// newIncoming makes one. The caller removes it.
func (g *Git) newIncoming(ctx context.Context, app string) (*incoming, error) {
	if err := g.Sound(app); err != nil {
		return nil, err
	}
	in := &incoming{g, app, filepath.Join("objects", "tmp_objdir-fetch-"+rand.Text())}
	var stderr tail
	// By git's own user, to whom it belongs.
	c := deployer.Command{
		Args: []string{"git", "init", "--quiet", "--bare", "--template=", in.dir()},
		Dir:  "/", Env: environment(), User: g.o.User, Stdout: &stderr, Stderr: &stderr,
	}
	if err := failed(c, "init", &stderr, g.runner.Run(ctx, c)); err != nil {
		return nil, errors.Join(err, in.remove())
	}
	return in, nil
}

func (in *incoming) dir() string { return filepath.Join(in.g.Path(in.app), in.name) }

func (in *incoming) remove() error {
	root, err := os.OpenRoot(in.g.Path(in.app))
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(in.name), root.Close())
}

// command is a git in it.
func (in *incoming) command(args ...string) (deployer.Command, error) {
	c, err := in.g.command(in.app, args...)
	if err != nil {
		return c, err
	}
	c.Args[1] = "--git-dir=" + in.dir()
	c.Env = append(environmentOf(quarantined()), "GIT_ALTERNATE_OBJECT_DIRECTORIES="+filepath.Join(in.g.Path(in.app), "objects"))
	return c, nil
}

// explain finds the limit that ended a fetch. git's own words for an index-pack that
// was ended by a signal are that it said nothing.
func (in *incoming) explain(err error) {
	var e *gitError
	if !errors.As(err, &e) || e.limit != "" || len(e.complaints()) != 1 || !e.has("invalid index-pack output") {
		return
	}
	l := in.g.o.Limits
	half, _ := filepath.Glob(filepath.Join(in.dir(), "objects", "pack", "tmp_pack_*"))
	for _, p := range half {
		if fi, err := os.Lstat(p); err == nil && l.Push > 0 && fi.Size() >= l.Push {
			e.limit = tooMuch(l.Push)
			return
		}
	}
	e.limit = "git was ended while it took in what it had fetched\nthe machine may be out of memory"
	if l.CPU > 0 {
		e.limit += fmt.Sprintf(", or it used the processor for %s: have an admin raise [server] push_cpu", l.CPU)
	}
}

// settle takes what was fetched into the app's repository, where it is not too
// large: the packs, and then the refs, of which those go that the source has no
// more. out gets a line for each that moved.
func (in *incoming) settle(ctx context.Context, out io.Writer) error {
	if err := in.g.checkObjects(ctx, in.app, filepath.Join(in.dir(), "objects"), "the source", in.g.o.Limits.Objects); err != nil {
		return inWords(err)
	}
	c, err := in.command("for-each-ref", refFormat, sourceRefs)
	if err != nil {
		return err
	}
	now, err := in.g.refsOf(ctx, c)
	if err != nil {
		return err
	}
	if c, err = in.g.command(in.app, "for-each-ref", refFormat, sourceRefs); err != nil {
		return err
	}
	was, err := in.g.refsOf(ctx, c)
	if err != nil {
		return err
	}
	if err := in.moveObjects(); err != nil {
		return fmt.Errorf("taking in what was fetched: %w", err)
	}
	var gone, moved, told []string
	for _, ref := range slices.Sorted(maps.Keys(was)) {
		if now[ref] == "" {
			gone = append(gone, "delete "+ref)
			told = append(told, strings.TrimPrefix(ref, sourceRefs)+" is gone there")
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(now)) {
		if now[ref] != was[ref] {
			moved = append(moved, "update "+ref+" "+now[ref])
			told = append(told, fmt.Sprintf("%s is at %.7s", strings.TrimPrefix(ref, sourceRefs), now[ref]))
		}
	}
	// One after the other: a branch may be the folder of another that went.
	for _, lines := range [][]string{gone, moved} {
		if err := in.g.updateRefs(ctx, in.app, lines); err != nil {
			return err
		}
	}
	const most = 10
	for _, line := range told[:min(len(told), most)] {
		fmt.Fprintln(out, deployer.Neutral(line))
	}
	if len(told) > most {
		fmt.Fprintf(out, "and %d more\n", len(told)-most)
	}
	return nil
}

const refFormat = "--format=%(objectname) %(refname)"

// refsOf reads what a git for-each-ref lists: the values of refs by their names.
func (g *Git) refsOf(ctx context.Context, c deployer.Command) (map[string]string, error) {
	refs := map[string]string{}
	return refs, g.streamOf(ctx, c, "for-each-ref", func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			id, ref, _ := strings.Cut(lines.Text(), " ")
			refs[ref] = id
		}
		return lines.Err()
	})
}

func (g *Git) updateRefs(ctx context.Context, app string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	return g.stream(ctx, app, strings.NewReader(strings.Join(lines, "\n")+"\n"), func(io.Reader) error { return nil }, "update-ref", "--no-deref", "--stdin")
}

// moveObjects renames what came: packs, each with its index last, as it is one from
// then on, and from a source behind a plain web server (gitprotocol-http(5), dumb
// clients) loose objects. They are on disk already, and their new names are when it
// returns.
func (in *incoming) moveObjects() error {
	root, err := os.OpenRoot(in.g.Path(in.app))
	if err != nil {
		return err
	}
	defer root.Close()
	dirs, err := fs.ReadDir(root.FS(), filepath.Join(in.name, "objects"))
	if err != nil {
		return err
	}
	touched := []string{"objects"}
	for _, d := range dirs {
		from, to := filepath.Join(in.name, "objects", d.Name()), filepath.Join("objects", d.Name())
		if d.Name() != "pack" && !fanOut().MatchString(d.Name()) {
			continue
		}
		if _, err := root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			if err := root.Rename(from, to); err != nil {
				return err
			}
			touched = append(touched, to)
			continue
		}
		moved, err := moveFiles(root, from, to)
		if err != nil {
			return err
		}
		if moved {
			touched = append(touched, to)
		}
	}
	for _, dir := range touched {
		d, err := root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// fanOut is a directory of loose objects.
var fanOut = pattern(`^[0-9a-f]{2}$`)

// moveFiles moves packs and loose objects, and nothing that was not finished.
func moveFiles(root *os.Root, from, to string) (moved bool, err error) {
	entries, err := fs.ReadDir(root.FS(), from)
	if err != nil {
		return false, err
	}
	for _, index := range []bool{false, true} {
		for _, d := range entries {
			name := d.Name()
			whole := strings.HasPrefix(name, "pack-") && filepath.Ext(name) != ".keep" && filepath.Ext(name) != ".temp" || plumbing.IsHash(to[len("objects/"):]+name)
			if !whole || strings.HasSuffix(name, ".idx") != index {
				continue
			}
			if err := root.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				return moved, err
			}
			moved = true
		}
	}
	return moved, nil
}
