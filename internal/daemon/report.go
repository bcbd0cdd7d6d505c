package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

const (
	// sectionTime is what a section of a report gets: one whose lock is held by
	// what is to be reported must not hold up the others.
	sectionTime = 5 * time.Second
	// mostStacks bounds the stacks of goroutines in a report.
	mostStacks = 16 << 20
)

// report is the state of a service as text, for people who look for what is
// wrong with it, as Nova's guru meditation reports are. Parts of the service add
// their sections as they come to be. Safe for concurrent use.
type report struct {
	mu       sync.Mutex
	sections []section // guarded by mu
}

type section struct {
	title string
	write func(ctx context.Context, w io.Writer) error
}

// add appends a section. write gets sectionTime and may be called at any later
// time, from any goroutine. It writes no secrets.
func (r *report) add(title string, write func(ctx context.Context, w io.Writer) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sections = append(r.sections, section{title, write})
}

// text is the whole report: the sections in the order in which they were added,
// then the stacks of all goroutines.
func (r *report) text(ctx context.Context) []byte {
	r.mu.Lock()
	sections := append([]section(nil), r.sections...)
	r.mu.Unlock()
	var b bytes.Buffer
	for _, s := range sections {
		heading(&b, s.title)
		b.Write(s.text(ctx))
	}
	heading(&b, "Goroutines")
	b.Write(stacks())
	return b.Bytes()
}

func heading(b *bytes.Buffer, title string) {
	fmt.Fprintf(b, "\n========================================================================\n==== %s\n", title)
}

func (s section) text(ctx context.Context) []byte {
	ctx, cancel := context.WithTimeout(ctx, sectionTime)
	defer cancel()
	done := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		if err := s.write(ctx, &b); err != nil {
			fmt.Fprintf(&b, "incomplete: %v\n", err)
		}
		done <- b.Bytes()
	}()
	select {
	case text := <-done:
		return text
	case <-ctx.Done():
		return fmt.Appendf(nil, "no answer within %s\n", sectionTime)
	}
}

// stacks are those of all goroutines (runtime.Stack).
func stacks() []byte {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size || size >= mostStacks {
			return buf[:n]
		}
	}
}

// deliver writes the report to a new file of dir, or to standard error without a
// dir, and returns the name of the file. The name is that of oslo.reports.
func (r *report) deliver(ctx context.Context, dir string) (string, error) {
	text := r.text(ctx)
	if dir == "" {
		_, err := os.Stderr.Write(text)
		return "", err
	}
	name := filepath.Join(dir, "gantry-compute_gurumeditation_"+time.Now().Format("20060102150405.000"))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return "", fmt.Errorf("write report: %w", err)
	}
	return name, f.Close()
}
