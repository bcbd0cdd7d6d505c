package conlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func read(t *testing.T, path string, o Options) string {
	t.Helper()
	r, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReaderLines(t *testing.T) {
	for _, limit := range []int64{0, 20, 40} {
		path := filepath.Join(t.TempDir(), "log")
		w := open(t, path, limit)
		for i := range 6 {
			write(t, w, fmt.Sprintf("l%d\n", i))
		}
		for lines := range 9 {
			want, err := Tail(path, lines, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, path, Options{Lines: lines}); got != string(want) {
				t.Errorf("limit %d, %d lines: %q, want %q", limit, lines, got, want)
			}
		}
		if got := read(t, path, Options{Lines: -1}); got != "" {
			t.Errorf("no lines: %q", got)
		}
	}
}

func TestReaderLongLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 1<<20)
	long := strings.Repeat("x", 50_000) + "\n"
	write(t, w, "first\n"+long+long)
	if got := read(t, path, Options{Lines: 2}); got != long+long {
		t.Errorf("%d bytes", len(got))
	}
	if got := read(t, path, Options{Lines: 3}); got != "first\n"+long+long {
		t.Errorf("%d bytes", len(got))
	}
}

func TestAbsentLogIsEmpty(t *testing.T) {
	if got := read(t, filepath.Join(t.TempDir(), "log"), Options{}); got != "" {
		t.Errorf("%q", got)
	}
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "no", "log"), Options{Follow: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory to follow: %v", err)
	}
}

// Times are written as entries say; the test writes entries itself.
func TestSince(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 0)
	write(t, w, "aaaa\n")
	base := time.Now()
	w.times.last = time.Time{}
	for i, s := range []string{"bbbb\n", "cccc\n"} {
		offset := w.size
		at := base.Add(time.Duration(i+1) * time.Minute)
		w.times.last = at // no entry of Write's own
		write(t, w, s)
		w.times.last = time.Time{}
		w.times.add(offset, at)
	}
	later := base.Add(10 * time.Minute)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		since time.Duration
		want  string
	}{
		{-time.Hour, "aaaa\nbbbb\ncccc\n"},
		{30 * time.Second, "aaaa\nbbbb\ncccc\n"}, // b may have begun any time since a
		{time.Minute, "bbbb\ncccc\n"},
		{2 * time.Minute, "cccc\n"},
		{5 * time.Minute, "cccc\n"},
		{11 * time.Minute, ""},
	} {
		if got := read(t, path, Options{Since: base.Add(tt.since)}); got != tt.want {
			t.Errorf("since %s: %q, want %q", tt.since, got, tt.want)
		}
	}
	if got := read(t, path, Options{Since: base.Add(time.Minute), Lines: 1}); got != "cccc\n" {
		t.Errorf("and one line: %q", got)
	}
	// A log of a version without times, or with somebody else's: all or nothing.
	for _, content := range []string{"", "nonsense", timesMagic + "12345678" + strings.Repeat("z", 99)} {
		if err := os.WriteFile(timesOf(path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path, Options{Since: base.Add(time.Minute)}); got != "aaaa\nbbbb\ncccc\n" {
			t.Errorf("times %q: %q", content, got)
		}
	}
	if err := os.Remove(timesOf(path)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, Options{Since: base.Add(11 * time.Minute)}); got != "" {
		t.Errorf("no times: %q", got)
	}
}

func TestTimesGoWithTheirSegment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 20)
	for _, part := range []string{"aaaaa", "aaaaabbb", "b"} {
		w.times.last = time.Time{}
		write(t, w, part)
	}
	for p, offset := range map[string]int64{older(path): 5, path: 3} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if list := readStamps(timesOf(p), inode(info)); len(list) != 1 || list[0].offset != offset {
			t.Errorf("%s: %v", p, list)
		}
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestTimesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.times")
	s := stamps{path: path, segment: 7, limit: 20}
	base := time.Unix(1000, 0)
	const n = 5000
	for i := range n {
		s.add(int64(i), base.Add(time.Duration(i)*time.Second))
	}
	list := readStamps(path, 7)
	if len(list) > 21 || len(list) < 10 {
		t.Fatalf("%d entries", len(list))
	}
	for i, e := range list {
		if got := e.time.Unix() - 1000; got != e.offset || i > 0 && e.offset <= list[i-1].offset {
			t.Errorf("entry %d: offset %d at second %d", i, e.offset, got)
		}
	}
	if list[0].offset != 1 || list[len(list)-1].offset != n-1 {
		t.Errorf("from %d to %d", list[0].offset, list[len(list)-1].offset)
	}
}

// What is said at once is one file: the beginning of a segment needs no time.
func TestFirstWordsHaveNoTimes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	s := stamps{path: timesOf(path), segment: 7, limit: 20}
	base := time.Unix(1000, 0)
	s.add(0, base)
	s.add(10, base.Add(stampInterval-1))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	s.add(20, base.Add(stampInterval))
	if list := readStamps(s.path, 7); len(list) != 1 || list[0].offset != 20 {
		t.Errorf("%v", list)
	}
}

// A follower beside a writer that begins many segments sees everything once,
// as long as it keeps up.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r, err := Open(t.Context(), path, Options{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	w := open(t, path, 100)
	buf := make([]byte, 64)
	for i := range 500 {
		line := fmt.Sprintf("line %d\n", i)
		write(t, w, line)
		if _, err := io.ReadFull(r, buf[:len(line)]); err != nil || string(buf[:len(line)]) != line {
			t.Fatalf("%q, %v, want %q", buf[:len(line)], err, line)
		}
	}
	write(t, w, "the end")
	r.Finish()
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "the end" {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestFollowIsWoken(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(r *Reader, cancel context.CancelCauseFunc, path string)
		want error
	}{
		"write":   {nil, nil},
		"context": {func(_ *Reader, cancel context.CancelCauseFunc, _ string) { cancel(io.ErrNoProgress) }, io.ErrNoProgress},
		"finish":  {func(r *Reader, _ context.CancelCauseFunc, _ string) { r.Finish() }, io.EOF},
		"close":   {func(r *Reader, _ context.CancelCauseFunc, _ string) { _ = r.Close() }, os.ErrClosed},
		"removal": {func(_ *Reader, _ context.CancelCauseFunc, path string) { _ = Remove(path) }, io.EOF},
	} {
		for _, watched := range []bool{true, false} {
			t.Run(fmt.Sprint(name, "/", watched), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "log")
				write(t, open(t, path, 0), "before")
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				r, err := Open(ctx, path, Options{Follow: true, Lines: -1})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.Close() }()
				if !watched {
					_ = r.wake.f.Close()
					r.wake.f = nil
				}
				got := make(chan error, 1)
				go func() {
					_, err := r.Read(make([]byte, 10))
					got <- err
				}()
				if tt.end == nil {
					write(t, open(t, path, 0), "x")
				} else {
					tt.end(r, cancel, path)
				}
				if err := <-got; !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
			})
		}
	}
}

// Logs share a directory: what one says wakes no follower of another.
func TestNeighboursWakeNobody(t *testing.T) {
	dir := t.TempDir()
	mine, other := open(t, filepath.Join(dir, "mine"), 0), open(t, filepath.Join(dir, "other"), 0)
	write(t, mine, "a")
	write(t, other, "a")
	w, err := watch(filepath.Join(dir, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	if !w.renew() || w.renew() {
		t.Error("the segment is new once")
	}
	told := func() bool {
		raw, err := w.f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var n int
		err = raw.Control(func(fd uintptr) {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	write(t, other, "b")
	if told() {
		t.Error("woken by another log")
	}
	write(t, mine, "b")
	if !told() {
		t.Error("not woken by its own")
	}
}

func TestMarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 20)
	write(t, w, "aaaaaaa")
	m := w.Mark()
	for i, want := range []int64{0, 4, 8, 12} {
		again := open(t, path, 20)
		if n, ok := again.Since(m); !ok || n != want {
			t.Errorf("%d: %d, %t, want %d", i, n, ok, want)
		}
		write(t, w, "bbbb")
	}
	write(t, w, "cccccccccccccccc")
	if n, ok := open(t, path, 20).Since(m); ok {
		t.Errorf("known after two segments: %d", n)
	}
	if n, ok := w.Since(Mark{}); ok {
		t.Errorf("zero mark: %d", n)
	}
}

func FuzzDecodeStamps(f *testing.F) {
	head := append([]byte(timesMagic), 7, 0, 0, 0, 0, 0, 0, 0)
	f.Add(bytes.Join([][]byte{head, encodeStamp(1, time.Unix(5, 0)), encodeStamp(2, time.Unix(6, 0))}, nil))
	f.Add(append(head, 1, 2, 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := int64(0)
		for _, s := range decodeStamps(data, 7) {
			if s.offset < before {
				t.Errorf("offset %d behind %d", s.offset, before)
			}
			before = s.offset
		}
	})
}
