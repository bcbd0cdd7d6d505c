// Package shelf keeps what every Snapshotter has on disk in the same way: the
// committed layers, and the names and chains of the disks. A back end embeds a
// Shelf and adds how a disk is made, shown and bounded.
//
// Layout below the root (docs/ondisk.md): layers/HEX holds a committed layer's
// content in "fs", or what it can be made of in "packed", and its "manifest";
// active/KEY holds a disk, whatever the
// back end puts there, and "chain-RECORD", one more name of chains/RECORD, or
// "chain", a symbolic link that names it: the chain ids of the layers below, one
// a line,
// under the beginning of their digest. "empty" is an empty directory. Names that
// begin with ".new-" or ".gone-" are half made or half removed and are swept at
// the start.
//
// It imports errdefs, atomicfile, keylock and engine/snapshot of ours, and is for the
// back ends below engine/snapshot only.
package shelf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/keylock"
)

// Beginnings of names that are not there yet or no more.
const (
	HalfMade = ".new-"
	HalfGone = ".gone-"
)

// Options of a Shelf.
type Options struct {
	// RemoveDisk removes a disk's directory with everything in it: mounts,
	// subvolumes, loop files. An absent one is nil. Default os.RemoveAll.
	RemoveDisk func(dir string) error
	// Dirs are more directories that the back end needs below the root, and how
	// what is half made in them is removed.
	Dirs map[string]func(path string) error
}

// Public is what a back end passes on as it is.
type Public interface {
	HasLayer(ctx context.Context, chainID string) (bool, error)
	Unpack(ctx context.Context, chainID string, fill func(dir string) error) error
	RemoveLayer(ctx context.Context, chainID string) error
	Pack(ctx context.Context, chainID string, fill func(dir string) error) error
	Packed(ctx context.Context, chainID string) (dir string, err error)
	Layer(ctx context.Context, chainID string) (dir string, err error)
	Layers(ctx context.Context) ([]string, error)
	Remove(ctx context.Context, key string) error
	List(ctx context.Context) ([]string, error)
}

// Shelf holds layers and names disks. Its methods are safe for concurrent use.
type Shelf struct {
	root string
	opts Options
	// mu orders the making of disks (read) against the removal of layers
	// (write).
	mu sync.RWMutex
	// recording keeps two from making one record of a chain.
	recording sync.Mutex
	// making keeps two from making one layer, by its name.
	making keylock.Map[string]
	// busy holds the paths of half made things that somebody works on.
	busy  sync.Map
	trash trash
}

// Open opens or makes the shelf at root, and removes what an interrupted call
// left there.
func Open(root string, opts Options) (*Shelf, error) {
	if opts.RemoveDisk == nil {
		opts.RemoveDisk = os.RemoveAll
	}
	s := &Shelf{root: root, opts: opts}
	for _, dir := range s.dirs() {
		if err := os.MkdirAll(s.Path(dir), 0o700); err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	if err := spread(s.Path("active")); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	for dir, remove := range s.removers() {
		left, err := s.halves(dir)
		for _, name := range left {
			path := s.Path(dir, name)
			if dir == "active" && strings.HasPrefix(name, HalfGone) && !small(path) {
				s.busy.Store(path, nil)
				s.trash.put(path, remove, func() { s.busy.Delete(path) })
				continue
			}
			err = errors.Join(err, remove(path))
		}
		if err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	if err := s.sweepChains(); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return s, nil
}

// dirs of the store, the root first.
func (s *Shelf) dirs() []string {
	return append([]string{"", "layers", "active", "chains", "empty"}, slices.Sorted(maps.Keys(s.opts.Dirs))...)
}

// removers of what is half made, by directory.
func (s *Shelf) removers() map[string]func(string) error {
	out := map[string]func(string) error{"layers": s.dropLayer, "active": s.opts.RemoveDisk}
	maps.Copy(out, s.opts.Dirs)
	return out
}

// halves lists what is half made or half removed in a directory of the store
// and that nobody works on.
func (s *Shelf) halves(dir string) ([]string, error) {
	entries, err := os.ReadDir(s.Path(dir))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), HalfMade) && !strings.HasPrefix(e.Name(), HalfGone) {
			continue
		}
		if _, busy := s.busy.Load(s.Path(dir, e.Name())); !busy {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Root is the directory of the store.
func (s *Shelf) Root() string { return s.root }

// Path joins elem below the root.
func (s *Shelf) Path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

// Temp makes a directory for something half made below dir, a directory of the
// store; drop forgets that it is worked on and removes what is still there.
func (s *Shelf) Temp(dir string, remove func(string) error) (tmp string, drop func(), err error) {
	// The name must be known as busy before it exists, or a Check takes it for
	// a left-over.
	for {
		tmp = s.Path(dir, HalfMade+randomName())
		s.busy.Store(tmp, nil)
		err = os.Mkdir(tmp, 0o700)
		if err == nil {
			break
		}
		s.busy.Delete(tmp)
		if !errors.Is(err, fs.ErrExist) {
			return "", nil, err
		}
	}
	return tmp, func() {
		if there, err := Exists(tmp); err != nil || there {
			_ = remove(tmp) // Open and Check sweep what stays
		}
		s.busy.Delete(tmp)
	}, nil
}

// LayerName is the directory name of a chain id.
func LayerName(chainID string) (string, error) {
	hex, ok := strings.CutPrefix(chainID, "sha256:")
	if !ok || !isLayerName(hex) {
		return "", fmt.Errorf("chain id %q: %w", chainID, errdefs.ErrInvalid)
	}
	return hex, nil
}

func isLayerName(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// KeyName checks that a key can be a file name.
func KeyName(key string) (string, error) {
	if key == "" || len(key) > 200 || key[0] == '.' || strings.ContainsAny(key, "/\x00\n,:\\") {
		return "", fmt.Errorf("snapshot key %q: %w", key, errdefs.ErrInvalid)
	}
	return key, nil
}

// Classify gives a full disk its class.
func Classify(err error) error {
	if errors.Is(err, errdefs.ErrExhausted) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", errdefs.ErrExhausted, err)
	}
	return err
}

// Exists reports whether there is something of the name, without following a
// link.
func Exists(name string) (bool, error) {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// SyncTree makes what is below dir durable with one call for its file system.
func SyncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd()))), d.Close())
}

// discard renames first, so that an interrupted removal is recognised. With
// later a large tree goes in the background.
func (s *Shelf) discard(ctx context.Context, dir, name string, remove func(string) error, later bool) error {
	gone := s.Path(dir, HalfGone+name)
	if err := s.trash.await(ctx, gone); err != nil {
		return err
	}
	s.busy.Store(gone, nil)
	done := func() { s.busy.Delete(gone) }
	if err := remove(gone); err != nil {
		done()
		return err
	}
	if err := os.Rename(s.Path(dir, name), gone); err != nil {
		done()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if later && !small(gone) {
		s.trash.put(gone, remove, done)
		return nil
	}
	defer done()
	return remove(gone)
}

// Close waits for the removal that is under way. What waits for its turn is left
// to the next Open.
func (s *Shelf) Close() { s.trash.close() }

func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
