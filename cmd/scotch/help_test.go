package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Help is read in an ssh session of 80 columns.
func TestHelpFits(t *testing.T) {
	for _, srv := range []*server{nil, {}} {
		root := (&session{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, local: srv == nil, srv: srv}).tree()
		var walk func(c *cobra.Command)
		walk = func(c *cobra.Command) {
			var out bytes.Buffer
			c.SetOut(&out)
			if err := c.Help(); err != nil {
				t.Errorf("%s: %v", c.CommandPath(), err)
			}
			for line := range strings.SplitSeq(out.String(), "\n") {
				if n := utf8.RuneCountInString(line); n > 80 {
					t.Errorf("%s: a line of %d: %q", c.CommandPath(), n, line)
				}
			}
			for _, below := range c.Commands() {
				walk(below)
			}
		}
		walk(root)
	}
}
