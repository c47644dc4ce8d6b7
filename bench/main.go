// Command bench measures scotch on the machine at hand: the built program as a
// server of its own, below a temporary directory, with the real git, ssh, nginx
// and uWSGI. Run it by `make bench`.
//
// Each measurement is taken side by side, in one run, with what it is compared
// to: a floor, which is the least that anybody could do (a push that deploys
// nothing, the app's own boot), or a peer (stock git behind OpenSSH's sshd). So
// what counts are ratios, and these hold on a busy machine too. It never measures
// what users have no door to: nothing of scotch's inside is imported.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// measure is one measurement. It starts what it needs on a bench of its own,
// and adds rows to the results.
type measure struct {
	name, about string
	run         func(ctx context.Context, b *bench) error
}

func measures() []measure {
	return []measure{
		{"redeploy", "a push with unchanged dependencies, against the push and the boot alone", redeploy},
		{"switches", "requests lost and latency while versions come and deploys fail", switches},
		{"rollback", "the way back, against the app's own boot", rollback},
		{"deploys", "first, unchanged and changed dependencies, by uv and by pip", deploys},
		{"locks", "formats of locks: Django with thirty packages by each of them", locks},
		{"first-push", "git over ssh with a large repository, against OpenSSH's sshd", firstPush},
		{"export", "a commit of 20,000 files, against git archive and tar", export},
		{"apps", "beside 0, 10, 100 and 500 other apps; many pushes at once", apps},
		{"releases", "an app with a thousand releases behind it", pastReleases},
		{"restart", "the server ends and starts with 100 live apps", restart},
	}
}

// bench is what a measurement works with: a machine with nothing on it yet, the
// size, and the results.
type bench struct {
	*world
	name    string
	size    float64
	results *results
}

// rounds is n, made longer or shorter by BENCH_SIZE; never less than three.
func (b *bench) rounds(n int) int { return max(3, int(float64(n)*b.size+0.5)) }

// scaled is n, made larger or smaller by BENCH_SIZE, from least on.
func (b *bench) scaled(n, least int) int { return max(least, int(float64(n)*b.size+0.5)) }

// add adds a row to the results.
func (b *bench) add(r row) {
	r.Measure = b.name
	b.results.Rows = append(b.results.Rows, r.judged())
}

// skip says why something was not measured.
func (b *bench) skip(what, why string) {
	b.add(row{What: what, Note: "skipped: " + why})
}

// say tells what is done, on stderr: the table alone is the output.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format(time.TimeOnly), b.name, fmt.Sprintf(format, args...))
}

func main() {
	// The server is to end with this program, however that ends: a process's
	// PR_SET_PDEATHSIG (prctl(2)) is for the thread that started it.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	program := flags.String("scotch", ".build/bin/scotch", "the `PROGRAM` that is measured")
	pick := flags.String("run", "", "measurements whose names match this `PATTERN`; empty: all")
	size := flags.Float64("size", 1, "how long: 2 for twice the rounds")
	to := flags.String("out", "", "the `DIR` that results.json and results.svg go to; empty: they are only printed")
	list := flags.Bool("list", false, "list the measurements")
	most := flags.Duration("timeout", time.Hour, "how long all may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// make's BENCH_SIZE, or a word that lost its flag, would measure everything.
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag; to pick measurements: -run %[1]q", flags.Arg(0))
	}
	if !(*size > 0 && *size <= 100) {
		return fmt.Errorf("BENCH_SIZE (-size) is a number above 0, at most 100, not %v", *size)
	}
	ctx, cancel := context.WithTimeout(ctx, *most)
	defer cancel()
	if *list {
		for _, m := range measures() {
			fmt.Fprintf(out, "%-12s %s\n", m.name, m.about)
		}
		return nil
	}
	picked, err := regexp.Compile("^(" + *pick + ")$")
	if err != nil {
		return fmt.Errorf("BENCH is no pattern: %w", err)
	}
	binary, err := filepath.Abs(*program)
	if err != nil {
		return err
	}
	facts, err := factsOf(ctx, binary)
	if err != nil {
		return err
	}
	res := &results{Facts: facts, Size: *size}
	begin := time.Now()
	var failed []error
	ran := 0
	for _, m := range measures() {
		if *pick != "" && !picked.MatchString(m.name) {
			continue
		}
		ran++
		if err := measureOne(ctx, m, binary, *size, res); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
			fmt.Fprintf(os.Stderr, "%s: %v\n", m.name, err)
		}
		res.Took = time.Since(begin).Round(time.Second).String()
		if ctx.Err() != nil {
			res.print(out)
			return errors.Join(append(failed, context.Cause(ctx))...)
		}
	}
	if ran == 0 {
		return fmt.Errorf("no measurement is called %q; there are: %s", *pick, names())
	}
	res.print(out)
	if *to != "" {
		if err := res.write(*to); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func names() string {
	var all []string
	for _, m := range measures() {
		all = append(all, m.name)
	}
	return strings.Join(all, " ")
}

// measureOne runs one measurement on a machine of its own.
func measureOne(ctx context.Context, m measure, binary string, size float64, res *results) (err error) {
	w, err := newWorld(binary)
	if err != nil {
		return err
	}
	b := &bench{world: w, name: m.name, size: size, results: res}
	begin := time.Now()
	defer func() {
		err = errors.Join(err, w.close(ctx))
		b.say("%s", time.Since(begin).Round(time.Second))
	}()
	b.say("%s", m.about)
	return m.run(ctx, b)
}
