package nginx

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A level of nginx's configuration that has an access_log inherits none from
// outside of it, and several at one level all count; "off" ends those beside it
// (ngx_http_log_module). So the log of failed requests goes to where the
// others are that it must not replace.

// builtInLog is where nginx logs when no access_log says so: the path that the
// packages of Debian, Ubuntu and nginx.org are built with.
const builtInLog = "/var/log/nginx/access.log"

// accessLogs are the values of access_log that scotch sets at the level of http and
// in its own servers.
func (n *NGINX) accessLogs() (inHTTP, inServers []string) {
	failed := []string{n.failedLogValue()}
	switch {
	case n.accessLog == "off" || n.standalone && n.accessLog == "":
		return nil, failed
	case n.accessLog != "":
		return nil, append(failed, n.accessLog)
	}
	others := n.httpLogs()
	if slices.Contains(others, "off") {
		return nil, failed
	}
	if len(others) > 0 {
		return failed, nil
	}
	if _, err := os.Stat(filepath.Dir(builtInLog)); err == nil {
		failed = append(failed, quote(builtInLog))
	}
	return nil, failed
}

// failedLogValue is the value of an access_log; see templates/http.conf.
func (n *NGINX) failedLogValue() string {
	return quote(n.failedLog) + " scotch_failed if=$scotch_failed"
}

// httpLogs are the values of access_log in http, by files that are not
// scotch's.
func (n *NGINX) httpLogs() []string {
	s := scan{n: n, want: []string{"http"}, seen: map[string]bool{}}
	s.file(n.file("nginx.conf"), nil)
	return s.found
}

// setsLog tells whether an operator's include sets access_log for the location
// that it is included in.
func (n *NGINX) setsLog(include string) bool {
	s := scan{n: n, seen: map[string]bool{}}
	s.files(include, nil)
	return len(s.found) > 0
}

// scan looks for access_log in the blocks named by want, from the outermost.
type scan struct {
	n     *NGINX
	want  []string
	seen  map[string]bool
	found []string
}

func (s *scan) files(pattern string, in []string) {
	if !filepath.IsAbs(pattern) {
		pattern = s.n.file(pattern)
	}
	paths, _ := filepath.Glob(pattern) // what can't be a pattern includes nothing
	for _, p := range paths {
		site := filepath.Dir(p) == s.n.sitesPath && strings.HasPrefix(filepath.Base(p), "scotch-")
		if p != s.n.httpFile() && !site {
			s.file(p, in)
		}
	}
}

// file reads one file that is included in the blocks named by in. What can't be
// read says nothing: nginx's own check will tell.
func (s *scan) file(path string, in []string) {
	if s.seen[path] {
		return
	}
	s.seen[path] = true
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	blocks := slices.Clone(in)
	var words []string
	for w := range tokens(string(text)) {
		switch w {
		case "{":
			blocks = append(blocks, strings.Join(words, " "))
			words = nil
		case "}":
			if len(blocks) > len(in) {
				blocks = blocks[:len(blocks)-1]
			}
			words = nil
		case ";":
			s.directive(words, blocks)
			words = nil
		default:
			words = append(words, w)
		}
	}
}

func (s *scan) directive(words, blocks []string) {
	if len(words) < 2 {
		return
	}
	switch {
	case words[0] == "access_log" && slices.Equal(blocks, s.want):
		s.found = append(s.found, words[1])
	case words[0] == "include" && len(blocks) <= len(s.want) && slices.Equal(blocks, s.want[:len(blocks)]):
		s.files(words[1], blocks)
	}
}

// tokens splits nginx's configuration into words, ";", "{" and "}", without
// comments and quotes (ngx_conf_read_token). A quoted "{" is told from a brace
// by a blank that no other word has.
func tokens(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := 0; i < len(text); {
			c := text[i]
			switch {
			case strings.IndexByte(" \t\r\n", c) >= 0:
				i++
			case c == '#':
				end := strings.IndexByte(text[i:], '\n')
				if end < 0 {
					return
				}
				i += end
			case strings.IndexByte(";{}", c) >= 0:
				if !yield(text[i : i+1]) {
					return
				}
				i++
			case c == '"' || c == '\'':
				j := i + 1
				for j < len(text) && text[j] != c {
					if text[j] == '\\' {
						j++
					}
					j++
				}
				word := text[i+1 : min(j, len(text))]
				if len(word) == 1 && strings.Contains(";{}", word) {
					word += " "
				}
				if !yield(word) {
					return
				}
				i = j + 1
			default:
				j := i
				for j < len(text) && strings.IndexByte(" \t\r\n;", text[j]) < 0 && (text[j] != '{' || text[j-1] == '$') {
					if text[j] == '\\' {
						j++
					}
					j++
				}
				j = min(j, len(text))
				if !yield(text[i:j]) {
					return
				}
				i = j
			}
		}
	}
}
