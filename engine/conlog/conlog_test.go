package conlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func write(t *testing.T, w *Writer, s string) {
	t.Helper()
	if n, err := w.Write([]byte(s)); err != nil || n != len(s) {
		t.Fatalf("write: %d, %v", n, err)
	}
}

func open(t *testing.T, path string, limit int64) *Writer {
	t.Helper()
	w, err := NewWriter(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func TestLogIsBoundedAndKeepsTheNewest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	const limit = 1000
	w := open(t, path, limit)
	var all strings.Builder
	for i := range 5000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		write(t, w, line)
	}
	data, err := Tail(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > limit || len(data) < limit/2 {
		t.Errorf("%d bytes kept of a limit of %d", len(data), limit)
	}
	if !strings.HasSuffix(all.String(), string(data)) {
		t.Error("what is kept is not the end of what was written")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestOneLargeWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	w := open(t, path, 100)
	in := bytes.Repeat([]byte("0123456789"), 100)
	write(t, w, string(in))
	data, err := Tail(path, 0, 0)
	if err != nil || len(data) > 100 || !bytes.HasSuffix(in, data) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

func TestAppendsAfterReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	w := open(t, path, 100)
	write(t, w, "first\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	write(t, open(t, path, 100), "second\n")
	if data, err := Tail(path, 0, 0); err != nil || string(data) != "first\nsecond\n" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestTailLines(t *testing.T) {
	tests := []struct {
		in    string
		lines int
		bytes int64
		want  string
	}{
		{"a\nb\nc\n", 2, 0, "b\nc\n"},
		{"a\nb\nc", 2, 0, "b\nc"},
		{"a\nb\n\n", 1, 0, "\n"},
		{"a\nb\n", 5, 0, "a\nb\n"},
		{"a\nb\n", 0, 0, "a\nb\n"},
		{"a\nb\n", -1, 0, "a\nb\n"},
		{"", 3, 0, ""},
		{"\n", 1, 0, "\n"},
		{"abcdef\n", 1, 3, "ef\n"},
		{"a\r\nb\r\n", 1, 0, "b\r\n"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%q/%d/%d", tt.in, tt.lines, tt.bytes), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			write(t, open(t, path, 0), tt.in)
			if got, err := Tail(path, tt.lines, tt.bytes); err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestTailAcrossSegments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 20) // segments of 10 bytes
	write(t, w, "aaa\nbbb\nccc\nddd\n")
	if got, err := Tail(path, 3, 0); err != nil || string(got) != "bbb\nccc\nddd\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSymlinksAreRefused(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	if err := os.Symlink(secret, path); err != nil {
		t.Fatal(err)
	}
	if _, err := NewWriter(path, 0); err == nil {
		t.Error("the writer followed a symbolic link")
	}
	if data, err := Tail(path, 0, 0); err == nil {
		t.Errorf("the reader followed a symbolic link: %q", data)
	}
	if got, _ := os.ReadFile(secret); string(got) != "host" {
		t.Errorf("target changed: %q", got)
	}
}

func TestRemoveIsIdempotent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 4)
	write(t, w, "abcdefgh")
	for range 2 {
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := Tail(path, 0, 0); err != nil || len(data) != 0 {
		t.Errorf("%q, %v", data, err)
	}
}

// Readers beside a rotating writer see a suffix of the stream, never a line
// twice or out of order.
func TestReadersBesideTheWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 400)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 3000 {
			if _, err := fmt.Fprintf(w, "%09d\n", i); err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				data, err := Tail(path, 0, 0)
				if err != nil {
					t.Errorf("tail: %v", err)
					return
				}
				last := ""
				for line := range strings.Lines(string(data)) {
					if len(line) == 10 && last != "" && line <= last {
						t.Errorf("%q after %q", line, last)
						return
					}
					if len(line) == 10 {
						last = line
					}
				}
			}
		})
	}
	wg.Wait()
}

// A log that nobody wrote to has no file, and a writer after a crash knows
// whether the first bytes have come.
func TestFirstByteMakesTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, 100)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a silent log: %v", err)
	}
	before := w.Mark()
	if n, known := open(t, path, 100).Since(before); n != 0 || !known {
		t.Errorf("nothing written: %d, %v", n, known)
	}
	write(t, w, "first")
	for name, w := range map[string]*Writer{"the same writer": w, "another": open(t, path, 100)} {
		if n, known := w.Since(before); n != 5 || !known {
			t.Errorf("%s: %d, %v", name, n, known)
		}
	}
	after := w.Mark()
	if after == before || after == (Mark{}) {
		t.Errorf("mark %+v", after)
	}
	write(t, w, strings.Repeat("x", 50)) // fills the segment and begins another
	if n, known := open(t, path, 100).Since(after); n != 50 || !known {
		t.Errorf("over the end of a segment: %d, %v", n, known)
	}
	if _, err := NewWriter(filepath.Join(t.TempDir(), "absent", "log"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
