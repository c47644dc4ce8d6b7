package git

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"scotch/config"
)

// maxConfig is the longest configuration of a repository, in bytes.
const maxConfig = 64 << 10

// harmless are the keys that a repository's own configuration may have. Others
// may make git run a program (CVE-2022-24765 and its kin: core.fsmonitor,
// core.sshCommand, filter.*, uploadpack.packObjectsHook, gpg.*), read another
// file (include.path) or fetch from elsewhere (url.*.insteadOf), and no list of
// those stays whole: git learns new ones.
var harmless = map[string][]string{
	"core": {"repositoryformatversion", "bare", "filemode", "symlinks", "ignorecase", "precomposeunicode", "logallrefupdates", "sharedrepository",
		"compression", "loosecompression", "bigfilethreshold", "deltabasecachelimit", "packedgitlimit", "packedgitwindowsize", "commitgraph", "multipackindex", "fsync", "fsyncmethod"},
	"extensions": {"objectformat", "refstorage", "preciousobjects"},
	"gc":         nil, // nil: all
	"pack":       nil,
	"repack":     nil,
	"user":       {"name", "email"},
	"receive":    {"denydeletes", "denynonfastforwards", "denycurrentbranch", "denydeletecurrent", "fsckobjects", "unpacklimit", "maxinputsize", "keepalive", "autogc"},
	"transfer":   {"fsckobjects", "unpacklimit"},
	"uploadpack": {"allowfilter", "allowanysha1inwant", "allowtipsha1inwant", "allowreachablesha1inwant", "allowrefinwant", "keepalive"},
	"http":       {"receivepack", "uploadpack"},
	"branch":     {"remote", "merge", "rebase"},
}

// originKeys are those of [remote "origin"], which a mirror brings along. A
// remote of any other name could stand for an address.
var originKeys = []string{"url", "fetch", "mirror", "tagopt"}

// Sound tells whether git may be run in an app's repository: it has no
// configuration but harmless keys, and takes nothing from another directory.
// git has no switch to leave a repository's own configuration unread.
func (g *Git) Sound(app string) error {
	if err := config.ValidName(app); err != nil {
		return err
	}
	dir := g.Path(app)
	for _, name := range []string{"commondir", "config.worktree"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return unsound(app, filepath.Join(dir, name), fmt.Sprintf("there is a %q, by which git would read another configuration", name), "remove it")
		}
	}
	path := filepath.Join(dir, "config")
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // git says better what is missing
	}
	if err != nil {
		return fmt.Errorf("looking at the repository of %q: %w", app, err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxConfig {
		return unsound(app, path, "it is no regular file, or too long", "make it anew: git init --bare "+dir)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("looking at the repository of %q: %w", app, err)
	}
	if what, hint := harmful(string(text)); what != "" {
		return unsound(app, path, what, fmt.Sprintf("was it you? "+hint, path))
	}
	return nil
}

var (
	headerPattern = pattern(`^\[([A-Za-z0-9-]+)(?: "([^"\\]*)")?\]$`)
	optionPattern = pattern(`^([A-Za-z][A-Za-z0-9-]*)(?:[ \t]*=[ \t]*(.*))?$`)
)

// harmful is what is wrong with a repository's configuration, "" for nothing,
// and what to do with the file. It is read line by line and strictly: all of
// git-config(1)'s syntax that two readers could see differently (a continued
// line, an option behind a header, a control character) is refused.
func harmful(text string) (what, hint string) {
	section, sub := "", ""
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.Trim(line, " \t")
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		odd := strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == '\uFEFF' })
		if m := headerPattern().FindStringSubmatch(line); m != nil && !odd {
			section, sub = strings.ToLower(m[1]), m[2]
			continue
		}
		m := optionPattern().FindStringSubmatch(line)
		if m == nil || odd || section == "" || strings.HasSuffix(line, `\`) {
			return fmt.Sprintf("%q is no line that scotch is sure to read as git does", line), "mend %s"
		}
		key := strings.ToLower(m[1])
		allowed, known := harmless[section]
		switch {
		case sub != "" && section == "remote" && sub == "origin" && slices.Contains(originKeys, key):
		case (sub == "" || section == "branch") && known && (allowed == nil || slices.Contains(allowed, key)):
		default:
			name := section + "." + key
			if sub != "" {
				name = section + "." + sub + "." + key
			}
			return fmt.Sprintf("it sets %q, by which git could be made to run a program or to read other files", name),
				"take it out: git config --file %s --unset-all '" + strings.ReplaceAll(name, "%", "%%") + "'"
		}
	}
	return "", ""
}

func unsound(app, path, what, hint string) error {
	return fmt.Errorf("git is not run in the repository of %q: %s: %s\n%s", app, path, what, hint)
}
