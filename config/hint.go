package config

import (
	"cmp"
	"fmt"
	"strings"
)

// siteFile names the site file to edit: the one that wins.
func (s *Site) siteFile() string {
	if len(s.Files) == 0 {
		return "a site file, such as /etc/scotch.cfg"
	}
	return "the site file " + s.Files[len(s.Files)-1]
}

// setCommand is the command that sets for an app what a line of its source says.
// It does not quote what may be a secret.
func (s *Site) setCommand(app string, e entry, v *Values) string {
	key := e.key
	if e.section != "app" {
		key = e.section + ":" + key
	}
	command := fmt.Sprintf("%s config %s set ", cmp.Or(s.Commands, "scotch"), app)
	value, err := v.interpolate(ref{e.section, e.key}, e.raw)
	secret := isSecret(e.section) || e.section == "app" && e.key == "src" && strings.Contains(value, "@")
	word, ok := quoteWord(key + "=" + value)
	switch {
	case err != nil && !secret:
		word, ok = quoteWord(key + "=VALUE")
	case secret || !ok:
		word, ok = quoteWord(key)
		word += " < FILE"
	}
	if !ok {
		return command + "KEY=VALUE"
	}
	return command + word
}

var (
	plainWord  = pattern(`\A[\p{L}\p{N}._/:@%+,=-]+\z`)
	quotedWord = pattern(`\A[\p{L}\p{N} ._/:@%+,=*?~#&()<>|;{}^!$-]+\z`)
)

// quoteWord writes a word of a command for ssh. The shell here and the server take
// off one pair of quotes each. ok is false for what no such quotes can hold.
func quoteWord(s string) (word string, ok bool) {
	key, value, assigns := strings.Cut(s, "=")
	switch {
	case s == "" || s[0] == '-' || len(s) > 200:
		return "", false
	case plainWord().MatchString(s):
		return s, true
	case assigns && plainWord().MatchString(key) && quotedWord().MatchString(value):
		return fmt.Sprintf(`'%s="%s"'`, key, value), true
	}
	return "", false
}
