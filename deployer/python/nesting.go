package python

import (
	"bytes"
	"fmt"
)

// maxNesting is how deep values and keys of a TOML file may lie in one another.
// Real ones have less than ten.
const maxNesting = 100

// checkNesting refuses what the parser must not see: it calls itself for each
// bracket, and a stack that overflows ends the whole server, which no recover
// prevents; for a key of many parts it takes time by a power of their number.
//
// It reads strings and comments as TOML does (https://toml.io/en/v1.0.0). What is
// none, such as a string that its line does not close, is where the parser stops
// as well, and what comes behind does not matter.
func checkNesting(b []byte) error {
	depth, parts := 0, 0
	line := 1
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case '#':
			n := bytes.IndexAny(b[i:], "\r\n") // the parser takes each for a line's end
			if n < 0 {
				return nil
			}
			i += n - 1
		case '"', '\'':
			n := tomlString(b[i:])
			if n < 0 {
				return nil
			}
			line += bytes.Count(b[i:i+n], []byte("\n"))
			i += n - 1
		case '[', '{':
			parts = 0
			if depth++; depth > maxNesting {
				return fmt.Errorf("line %d: more than %d brackets in one another", line, maxNesting)
			}
		case ']', '}':
			parts = 0
			depth = max(0, depth-1)
		case '.':
			if parts++; parts > maxNesting {
				return fmt.Errorf("line %d: a key of more than %d parts", line, maxNesting)
			}
		case '\n':
			line++
			parts = 0
		case '=', ',':
			parts = 0
		}
	}
	return nil
}

// tomlString is the length of the string that b begins with, less than 0 where
// it is not closed.
func tomlString(b []byte) int {
	quote := b[:1]
	long := bytes.HasPrefix(b, bytes.Repeat(quote, 3))
	if long {
		quote = b[:3]
	}
	for i := len(quote); i < len(b); i++ {
		switch {
		case b[i] == '\\' && quote[0] == '"':
			i++
		case bytes.HasPrefix(b[i:], quote):
			i += len(quote)
			// Up to two quotes at its end are the long string's own.
			for range 2 {
				if long && i < len(b) && b[i] == quote[0] {
					i++
				}
			}
			return i
		case b[i] == '\n' && !long:
			return -1
		}
	}
	return -1
}
