package gitserver

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// packHead begins a pack of n objects (gitformat-pack(5)).
func packHead(n uint32) *bytes.Buffer {
	return bytes.NewBuffer(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), n))
}

func sealed(pack *bytes.Buffer) string {
	sum := sha1.Sum(pack.Bytes())
	pack.Write(sum[:])
	return pack.String()
}

// packObject appends the type and size of an object, what comes between, and
// its content.
func packObject(pack *bytes.Buffer, kind byte, size uint64, between, content []byte) {
	packObjectHead(pack, kind, size)
	pack.Write(between)
	z := zlib.NewWriter(pack)
	z.Write(content)
	z.Close()
}

func packObjectHead(pack *bytes.Buffer, kind byte, size uint64) {
	b := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		pack.WriteByte(b | 0x80)
		b = byte(size & 0x7f)
	}
	pack.WriteByte(b)
}

// bomb is a small pack: a blob of 16 MB of zeros, and deltas of it that copy it so
// many times: 191 times are 3 GB from 17 KB. others are blobs beside it: from some
// objects on git keeps a pack (index-pack), fewer it unpacks (unpack-objects).
func bomb(deltas, times, others int) string {
	const base = 16<<20 - 1
	pack := packHead(uint32(1 + deltas + others))
	packObject(pack, 3, base, nil, make([]byte, base))
	id := sha1.New()
	fmt.Fprintf(id, "blob %d\x00", base)
	io.CopyN(id, zeros{}, base)
	for i := range deltas {
		delta := binary.AppendUvarint(nil, base)
		delta = binary.AppendUvarint(delta, uint64(base*times+1))
		for range times {
			delta = append(delta, 0xf0, 0xff, 0xff, 0xff) // copy 0xffffff bytes from 0 on
		}
		delta = append(delta, 1, byte(i)) // and this one
		packObject(pack, 7, uint64(len(delta)), id.Sum(nil), delta)
	}
	for i := range others {
		text := fmt.Sprint("other ", i)
		packObject(pack, 3, uint64(len(text)), nil, []byte(text))
	}
	return sealed(pack)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// raw sends a push byte by byte as told, and returns all that came back.
func (f *fixture) raw(app, able string, after io.Reader) string {
	f.t.Helper()
	c := f.dial("alice")
	defer c.Close()
	sess, err := c.NewSession()
	if err != nil {
		f.t.Fatal(err)
	}
	var said syncBuffer
	line := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/main\x00report-status " + able
	sess.Stdin = io.MultiReader(strings.NewReader(fmt.Sprintf("%04x%s", len(line)+4, line)), after)
	sess.Stdout, sess.Stderr = &said, &said
	timer := time.AfterFunc(time.Duration(floods(30, 300))*time.Second, func() { c.Close() })
	defer timer.Stop()
	if err := sess.Run("git-receive-pack '" + app + "'"); err != nil {
		f.t.Log(err)
	}
	return said.String()
}

// nothingStays checks that a refused push left no quarantine, and that the next
// one is taken.
func (f *fixture) nothingStays() {
	f.t.Helper()
	for _, pattern := range []string{"tmp_objdir*", "incoming*", "pack/*"} {
		if left, _ := filepath.Glob(f.repos.Path("blog") + "/objects/" + pattern); len(left) > 0 {
			f.t.Errorf("left behind: %q", left)
		}
	}
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
}

// A pack of 17 KB that unpacks to 3 GB, which git would take into memory: the
// limit must end git, and not the machine, and the pusher be told why.
func TestSmallPackThatInflates(t *testing.T) {
	for name, others := range map[string]int{"unpack-objects": 0, "index-pack": 40} {
		t.Run(name, func(t *testing.T) {
			f := start(t, func(f *fixture) { f.Server.Git.Limits.Memory = 512 << 20 })
			f.app("blog")
			pack := bomb(1, 191, others)
			if len(pack) > 20<<10 {
				t.Fatalf("the pack has %d bytes", len(pack))
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			said := f.raw("blog", "", strings.NewReader("0000"+pack))
			runtime.ReadMemStats(&after)
			if !strings.Contains(said, "unpack "+name+" abnormal exit") {
				t.Errorf("the push was not refused: %q", said)
			}
			if !strings.Contains(said, "scotch: git needs more memory to unpack the push than the 512 MB") || !strings.Contains(said, "[server] push_memory") {
				t.Errorf("not told why: %q", said)
			}
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 50<<20 {
				t.Errorf("the server's memory grew by %d MB", grown>>20)
			}
			f.Server.Git.Limits.Memory = -1 // the tests' own hooks need more
			f.nothingStays()
		})
	}
}

// A pack of 22 KB that git is busy with for a long time, with little memory: fifty
// deltas of 64 MB each.
func TestPackThatTakesForever(t *testing.T) {
	f := start(t, func(f *fixture) { f.Server.Git.Limits.CPU = time.Second })
	f.app("blog")
	said := f.raw("blog", "", strings.NewReader("0000"+bomb(50, 4, 0)))
	if !strings.Contains(said, "scotch: git was ended while it unpacked the push: it may use the processor for 1s") || !strings.Contains(said, "[server] push_cpu") {
		t.Errorf("not told why: %q", said)
	}
	f.Server.Git.Limits.CPU = 0
	f.nothingStays()
}

// A pack that goes on for longer than a push may (1 GB, and 1.2 GB sent, with
// SCOTCH_SOAK=1), of what can't be compressed: it is refused with a clear message while
// it comes in, the disk is as it was afterwards, and the server's memory all the time.
func TestFloodOfPushedBytes(t *testing.T) {
	limit := int64(floods(2<<20, 1<<30))
	f := start(t, func(f *fixture) { f.Server.Git.MaxPush = limit })
	f.app("blog")
	var heap atomic.Uint64
	r, w := io.Pipe()
	go func() {
		z, _ := zlib.NewWriterLevel(w, zlib.NoCompression)
		block := noise(1 << 20)
		for sent := int64(0); sent < limit+limit/5+8<<20; sent += int64(len(block)) {
			if _, err := z.Write(block); err != nil {
				return
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap.Store(max(heap.Load(), m.HeapAlloc))
		}
		w.Close()
	}()
	head := packHead(100)
	packObjectHead(head, 3, uint64(2*limit))
	said := f.raw("blog", "", io.MultiReader(strings.NewReader("0000"), head, r))
	r.Close()
	if !strings.Contains(said, "scotch: the push is larger than the "+inBytes(limit)+" that this server takes") {
		t.Errorf("%q", said)
	}
	if heap.Load() > 100<<20 {
		t.Errorf("the heap grew to %d MB", heap.Load()>>20)
	}
	f.nothingStays()
}

// A pack whose head claims 4,294,967,295 objects: git makes room for all of them
// before it has read one.
func TestPackThatClaimsObjects(t *testing.T) {
	f := start(t, func(f *fixture) { f.Server.Git.MaxObjects = 50 })
	f.app("blog")
	for _, n := range []uint32{51, 1<<32 - 1} {
		for _, able := range []string{"", "push-options"} {
			list := "0000"
			if able != "" {
				list = "0000" + "0009clean" + "0000"
			}
			said := f.raw("blog", able, iotest.OneByteReader(io.MultiReader(strings.NewReader(list), packHead(n), bytes.NewReader(make([]byte, 1000)))))
			if !strings.Contains(said, fmt.Sprintf("scotch: the push brings %d objects, more than the 50", n)) {
				t.Errorf("%d %q: %q", n, able, said)
			}
		}
	}
	f.nothingStays()
}

// What git and the server read differently let a pack's head pass unseen: a
// delim-pkt ends a list for git as a flush-pkt does, and what a client is able to
// do may stand far behind in a line, or in one where git does not look for it.
func TestPackThatClaimsObjectsInDisguise(t *testing.T) {
	f := start(t, func(f *fixture) { f.Server.Git.MaxObjects = 50 })
	f.app("blog")
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	one := strings.Repeat("1", 40)
	far := strings.Repeat("0", 40) + " " + one + " refs/heads/" + strings.Repeat("x", 6000) + "\x00push-options"
	for name, list := range map[string]string{
		"delim":                 "0001",
		"response-end":          "0002",
		"options behind a name": line(far) + "0000" + line("clean") + "0000",
		"options of a shallow":  line("shallow "+one+"\x00push-options") + "0000",
		"options by a delim":    line(far) + "0001" + line("clean") + "0001",
	} {
		said := f.raw("blog", "", iotest.OneByteReader(io.MultiReader(strings.NewReader(list), packHead(1<<32-1), bytes.NewReader(make([]byte, 1000)))))
		if !strings.Contains(said, "scotch: the push brings 4294967295 objects, more than the 50") {
			t.Errorf("%s: %q", name, said)
		}
	}
	f.nothingStays()
}

// The list of refs and the push options are held in memory by git, and the
// options go into the environment of hooks: neither grows without an end.
func TestEndlessListOfRefs(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	line := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/" + strings.Repeat("x", 60_000)
	said := f.raw("blog", "", &endless{line: fmt.Sprintf("%04x%s", len(line)+4, line), times: 1000})
	if !strings.Contains(said, "scotch: the push names too many refs") {
		t.Errorf("refs: %q", said)
	}
	for _, end := range []string{"0000", "0001"} {
		said = f.raw("blog", "push-options", io.MultiReader(strings.NewReader(end), &endless{line: "0009clean", times: 1 << 20}))
		if !strings.Contains(said, "scotch: the push options are too long") {
			t.Errorf("options behind %s: %q", end, said)
		}
	}
	f.nothingStays()
}

// endless reads as one line, many times over.
type endless struct {
	line  string
	times int
	rest  string
}

func (e *endless) Read(b []byte) (int, error) {
	if e.rest == "" {
		if e.times == 0 {
			return 0, io.EOF
		}
		e.times--
		e.rest = e.line
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// A name of an app with a NUL, a newline or a second word: OpenSSH's client would
// not send it.
func TestHostileCommandLines(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	c := f.dial("alice")
	for _, path := range []string{"blog\x00", "blog\n", "blog.git/../blog", "blog' 'x", "bl\x1bog", "blog;id", "`id`", "Blog", "//blog/../../etc"} {
		for _, verb := range []string{"git-receive-pack", "git-upload-pack"} {
			sess, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			var said syncBuffer
			sess.Stdout, sess.Stderr = &said, &said
			if err := sess.Run(verb + " '" + path + "'"); err == nil || !strings.HasPrefix(said.String(), "scotch: ") || strings.Contains(said.String(), "\x1b") {
				t.Errorf("%s %q: %v, %q", verb, path, err, said.String())
			}
		}
	}
	if len(f.pushes.all()) > 0 {
		t.Error("something was pushed")
	}
}

// A repository's own configuration is as good as a program for git
// (CVE-2022-24765 and its kin). What scotch gives on the command line wins over
// it; keys that have no such answer are Sound's to find.
func TestUnsoundRepositoryIsLeftAlone(t *testing.T) {
	f := start(t, func(f *fixture) {
		f.Sound = func(app string) error { return fmt.Errorf("the repository of %q is spoilt", app) }
	})
	f.app("blog")
	f.commit()
	f.git("alice", "push", f.url("blog"), "main").exits(128).says("is spoilt")
	f.git("alice", "fetch", f.url("blog")).exits(128).says("is spoilt")
}

// Programs that a repository's configuration names for what a push or a fetch
// does: none of them is run.
func TestProgramsNamedByARepository(t *testing.T) {
	f := start(t, nil)
	f.app("blog")
	id := f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	repo := f.repos.Path("blog")
	mark := filepath.Join(t.TempDir(), "ran")
	program := filepath.Join(repo, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntouch "+mark+"\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.git")
	f.git("alice", "clone", "-q", "--bare", f.url("blog"), other).ok()
	for name, text := range map[string]string{
		"objects/info/alternates": other + "/objects\n",
		"included":                "[core]\n\tfsmonitor = " + program + "\n\tsshCommand = " + program + "\n\thooksPath = " + repo + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(repo, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(repo, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, kv := range [][2]string{
		{"core.alternateRefsCommand", program}, {"core.fsmonitor", program}, {"core.sshCommand", program}, {"core.pager", program}, {"core.editor", program},
		{"uploadpack.packObjectsHook", program}, {"receive.certNonceSeed", "x"}, {"gpg.program", program}, {"include.path", "included"},
		{"alias.receive-pack", "!" + program}, {"credential.helper", program}, {"gc.auto", "1"}, {"receive.autogc", "true"}, {"gc.recentObjectsHook", program},
	} {
		f.git("alice", "--git-dir="+repo, "config", kv[0], kv[1]).ok()
	}
	next := f.commit()
	f.git("alice", "push", f.url("blog"), "main").ok()
	clone := filepath.Join(t.TempDir(), "clone")
	f.git("carol", "clone", "-q", f.url("blog"), clone).ok()
	if _, err := os.Stat(mark); err == nil {
		t.Error("a planted program ran")
	}
	if got := f.ref("blog", "refs/heads/main"); got != next || got == id {
		t.Errorf("main is %q", got)
	}
}

// FuzzPushed: however a push's bytes come in, the same are passed on, in order and
// unchanged, and the same is said of them.
func FuzzPushed(f *testing.F) {
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	update := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/main"
	f.Add([]byte(line(update+"\x00report-status push-options")+"0000"+line("clean")+"0000"+packHead(1000).String()+"rest"), 3)
	f.Add([]byte(line("shallow "+strings.Repeat("1", 40))+line(update+"\x00push-options=x")+"0000"+packHead(5).String()), 7)
	f.Add([]byte("0000"), 1)
	f.Add([]byte("0003zzzz"), 2)
	f.Add([]byte(line(update)+"0000PACK\xff\xff\xff\xff\xff\xff\xff\xff"), 100)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		whole := &pushed{r: bytes.NewReader(in), maxObjects: 100}
		all, err := io.ReadAll(whole)
		if err != nil || !bytes.HasPrefix(in, all) || whole.refused() == "" && len(all) != len(in) {
			t.Fatalf("%q became %q, %v, %q", in, all, err, whole.refused())
		}
		pieces := &pushed{r: bytes.NewReader(in), maxObjects: 100}
		var got []byte
		for b := make([]byte, max(1, min(size, 1000))); ; {
			n, err := pieces.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				break
			}
		}
		if whole.refused() != pieces.refused() {
			t.Fatalf("%q: %q and %q", in, whole.refused(), pieces.refused())
		}
		if whole.refused() == "" && !bytes.Equal(got, all) {
			t.Fatalf("%q: %q and %q", in, all, got)
		}
		// Of a pack that is refused git must never see the whole number.
		if whole.refused() != "" && len(got) > len(all)+11 {
			t.Fatalf("%q: %d and %d bytes passed", in, len(all), len(got))
		}
	})
}
