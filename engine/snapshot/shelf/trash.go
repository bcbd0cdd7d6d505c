package shelf

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
)

// What is removed while the caller waits: no more than that.
const (
	fewEntries = 512
	fewBlocks  = 64 << 20 / 512
)

// small reports whether the tree goes at once. One that cannot be read as a
// whole, because its paths are too long for example, is not.
func small(dir string) bool {
	entries, blocks := 0, int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			blocks += st.Blocks
		}
		if entries++; entries > fewEntries || blocks > fewBlocks {
			return fs.SkipAll
		}
		return nil
	})
	return err == nil && entries <= fewEntries && blocks <= fewBlocks
}

// trash removes large trees in the background, one at a time. They have names
// that say that they are half removed: what a crash interrupts is found by the
// next Open, and what cannot be removed by Check.
type trash struct {
	one sync.Mutex // held by the removal that is under way
	all sync.WaitGroup

	mu      sync.Mutex
	closed  bool                     // guarded by mu, as is pending
	pending map[string]chan struct{} // by path; closed when it was dealt with
}

// put removes path with remove, and calls done then. Once closed it leaves it.
func (t *trash) put(path string, remove func(string) error, done func()) {
	end := make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		done()
		return
	}
	if t.pending == nil {
		t.pending = map[string]chan struct{}{}
	}
	t.pending[path] = end
	t.all.Go(func() {
		t.one.Lock()
		defer t.one.Unlock()
		t.mu.Lock()
		closed := t.closed
		t.mu.Unlock()
		if !closed {
			_ = remove(path) // Check and Open find what is left
		}
		done()
		t.mu.Lock()
		delete(t.pending, path)
		t.mu.Unlock()
		close(end)
	})
}

// await waits until path is not being removed.
func (t *trash) await(ctx context.Context, path string) error {
	t.mu.Lock()
	end, ok := t.pending[path]
	t.mu.Unlock()
	if !ok {
		return nil
	}
	select {
	case <-end:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the removal of %s: %w", filepath.Base(path), ctx.Err())
	}
}

// close waits for the removal that is under way; the others are left to the
// next Open.
func (t *trash) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.all.Wait()
}
