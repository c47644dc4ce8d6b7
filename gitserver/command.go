package gitserver

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"scotch/config"
)

// splitCommand splits a command line into words as a shell would, and does
// nothing else that a shell does: ssh sends one line, and git quotes its
// argument for a shell (sq_quote_buf in git's quote.c).
func splitCommand(line string) ([]string, error) {
	if strings.ContainsRune(line, 0) {
		return nil, errors.New("the command line has a NUL byte, which no word can have")
	}
	if !utf8.ValidString(line) {
		return nil, errors.New("the command line is not UTF-8 text")
	}
	var words []string
	var word strings.Builder
	begun := false // a word, which may be empty: ''
	for i := 0; i < len(line); i++ {
		switch b := line[i]; b {
		case ' ', '\t', '\n', '\r':
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		case '\'':
			begun = true
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' in the command line has no second one")
			}
			word.WriteString(line[i+1 : i+1+end])
			i += 1 + end
		case '"':
			begun = true
			for i++; i < len(line) && line[i] != '"'; i++ {
				// POSIX, Shell Command Language, 2.2.3.
				if line[i] == '\\' && i+1 < len(line) && strings.IndexByte("$`\"\\\n", line[i+1]) >= 0 {
					i++
					if line[i] == '\n' {
						continue
					}
				}
				word.WriteByte(line[i])
			}
			if i == len(line) {
				return nil, errors.New(`a " in the command line has no second one`)
			}
		case '\\':
			if i+1 == len(line) {
				return nil, errors.New(`the command line ends in \`)
			}
			i++
			if line[i] != '\n' {
				begun = true
				word.WriteByte(line[i])
			}
		default:
			begun = true
			word.WriteByte(b)
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// service is what a git client asks for.
type service string

const (
	receivePack   service = "receive-pack"   // git push
	uploadPack    service = "upload-pack"    // git clone, fetch, ls-remote
	uploadArchive service = "upload-archive" // git archive --remote
)

// parseGit tells whether words are what a git client sends and for which app:
// git-receive-pack 'blog', also "git receive-pack", and the path /blog,
// blog.git, /blog.git or with slashes behind.
func parseGit(words []string) (s service, app string, ok bool, err error) {
	if len(words) == 0 {
		return "", "", false, nil
	}
	name, rest := words[0], words[1:]
	if name == "git" && len(rest) > 0 {
		name, rest = "git-"+rest[0], rest[1:]
	}
	short, isGit := strings.CutPrefix(name, "git-")
	s = service(short)
	if !isGit || (s != receivePack && s != uploadPack && s != uploadArchive) {
		return "", "", false, nil
	}
	if len(rest) != 1 {
		return s, "", true, fmt.Errorf("%s takes the name of an app and nothing else", name)
	}
	app, err = appName(rest[0])
	return s, app, true, err
}

// appName is the name of the app in a remote's path.
func appName(path string) (string, error) {
	name := strings.TrimSuffix(strings.Trim(path, "/"), ".git")
	if name == "" {
		return "", errors.New("the remote's URL has no name of an app at its end\nwrite it as in ssh://scotch@HOST:PORT/APP")
	}
	if err := config.ValidName(name); err != nil {
		return "", err
	}
	return name, nil
}
