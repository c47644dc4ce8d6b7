package git

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"scotch/deployer"
)

// Export writes the commit's tree into dst, an existing empty directory. What
// is written is what `git archive` gives of the tree: export-ignore is honoured,
// and line ends and encodings that .gitattributes asks for are those of a
// checkout. No filter runs: none is configured. Nor does export-subst, which
// formats what a push says by what a push says (CVE-2022-41903), and by %G runs
// gpg: git archive has nothing to fill in where it is given no commit. Modes are
// 0644 and 0755. Half a tree is left when it fails.
//
// Stock git and not go-git, for the attributes: go-git 5.19 takes "docs/
// export-ignore" for no match and gives earlier lines precedence. And a stream
// holds no blob in memory.
func (g *Git) Export(ctx context.Context, app string, c deployer.Commit, dst string) (stats deployer.ExportStats, err error) {
	if !plumbing.IsHash(c.ID) {
		return stats, fmt.Errorf("%q is no object name", c.ID)
	}
	// A commit that was stored or fetched has not been judged yet.
	if err := g.Deployable(ctx, app, c.ID); err != nil {
		return stats, inWords(err)
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		return stats, err
	}
	w := &treeWriter{dirs: []*os.Root{root}, buf: make([]byte, 128<<10)}
	defer w.close()
	err = g.stream(ctx, app, nil, func(r io.Reader) error {
		t := tar.NewReader(r)
		for {
			h, err := t.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return fmt.Errorf("reading git archive: %w", err)
			}
			if err := w.write(h, t); err != nil {
				return fmt.Errorf("writing %q: %w", h.Name, err)
			}
		}
	}, "archive", "--format=tar", c.ID+"^{tree}")
	return w.stats, err
}

// treeWriter writes a tree in the order of git archive, depth first. It keeps
// the directories open that lead to the current one, so that each file costs
// one lookup, and no link can turn it elsewhere.
type treeWriter struct {
	names []string   // of the open directories below the top
	dirs  []*os.Root // the top and one for each name
	buf   []byte
	stats deployer.ExportStats
}

func (w *treeWriter) close() {
	for _, d := range w.dirs {
		d.Close()
	}
}

func (w *treeWriter) write(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // git's own: the name of the commit
	}
	name := strings.TrimSuffix(h.Name, "/")
	// Deployable has judged the names; this is the door itself.
	if badPath(name) {
		return errors.New("this name can't be written safely")
	}
	if h.Typeflag == tar.TypeDir {
		_, err := w.dir(name)
		return err
	}
	d, err := w.dir(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	w.stats.Files++
	switch h.Typeflag {
	case tar.TypeSymlink:
		return d.Symlink(h.Linkname, base)
	case tar.TypeReg:
		mode := fs.FileMode(0o644)
		if h.Mode&0o100 != 0 {
			mode = 0o755
		}
		return w.file(d, base, mode, content)
	}
	return fmt.Errorf("git archive has an entry of type %q", h.Typeflag)
}

func (w *treeWriter) file(d *os.Root, name string, mode fs.FileMode, content io.Reader) (err error) {
	f, err := d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, content, w.buf)
	w.stats.Bytes += n
	if err != nil {
		return err
	}
	return f.Chmod(mode) // whatever the umask
}

// dir returns a directory of the tree, made where it is missing.
func (w *treeWriter) dir(p string) (*os.Root, error) {
	var want []string
	if p != "." {
		want = strings.Split(p, "/")
	}
	same := 0
	for same < len(want) && same < len(w.names) && want[same] == w.names[same] {
		same++
	}
	for _, d := range w.dirs[same+1:] {
		d.Close()
	}
	w.names, w.dirs = w.names[:same], w.dirs[:same+1]
	for _, name := range want[same:] {
		d, err := enter(w.dirs[len(w.dirs)-1], name)
		if err != nil {
			return nil, err
		}
		w.names, w.dirs = append(w.names, name), append(w.dirs, d)
	}
	return w.dirs[len(w.dirs)-1], nil
}

func enter(in *os.Root, name string) (*os.Root, error) {
	err := in.Mkdir(name, 0o755)
	if errors.Is(err, fs.ErrExist) {
		// Only a directory that this export made may be here, never a link.
		fi, serr := in.Lstat(name)
		if serr != nil || !fi.IsDir() {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	} else if err := in.Chmod(name, 0o755); err != nil {
		return nil, err
	}
	return in.OpenRoot(name)
}
