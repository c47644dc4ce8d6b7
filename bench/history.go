package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"syscall"
)

// history makes a repository as projects have it after some years: commits that
// each change a few of many files in nested directories, text that compresses and
// deltas like source. Each commit makes about 13 objects. It is always the same.
func (w *world) history(ctx context.Context, dir string, commits, files int) error {
	if _, err := w.run(ctx, w.home, "git", "init", "-q", dir); err != nil {
		return err
	}
	// git fast-import(1)
	cmd := exec.CommandContext(ctx, "git", "fast-import", "--quiet")
	cmd.Dir, cmd.Env = dir, w.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	out := bufio.NewWriter(in)
	writeHistory(out, commits, files)
	err = out.Flush()
	in.Close()
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("git fast-import: %w\n%s", werr, &said)
	}
	if err != nil {
		return err
	}
	_, err = w.run(ctx, dir, "git", "reset", "-q", "--hard", "main")
	return err
}

func writeHistory(out io.Writer, commits, files int) {
	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("return self request response import from class def value name order customer price total None True False if else for in not is cache model view form field query filter update delete create user token path file line error log test assert")
	newLine := func() string {
		var b strings.Builder
		b.WriteString(strings.Repeat("    ", random.IntN(4)))
		for range 2 + random.IntN(8) {
			b.WriteString(words[random.IntN(len(words))])
			b.WriteString([]string{" ", ".", "(", ", ", "_"}[random.IntN(5)])
		}
		fmt.Fprintf(&b, "%x\n", random.Uint32())
		return b.String()
	}
	content := make([][]string, files)
	path := func(i int) string { return fmt.Sprintf("shop/part%02d/sub%02d/module%d.py", i%20, i/20%20, i) }
	put := func(i int) {
		text := strings.Join(content[i], "")
		fmt.Fprintf(out, "M 100644 inline %s\ndata %d\n%s\n", path(i), len(text), text)
	}
	for n := range commits {
		message := fmt.Sprintf("Change %d of the shop\n", n)
		fmt.Fprintf(out, "commit refs/heads/main\ncommitter Ada <ada@example.org> %d +0000\ndata %d\n%s", 1_500_000_000+3600*n, len(message), message)
		if n == 0 {
			for i := range files {
				for range 20 + random.IntN(150) {
					content[i] = append(content[i], newLine())
				}
				put(i)
			}
			continue
		}
		for range 4 {
			i := random.IntN(files)
			for range 1 + random.IntN(6) {
				content[i][random.IntN(len(content[i]))] = newLine()
			}
			put(i)
		}
	}
}
