// Package overlay keeps snapshots as overlay mounts over id-mapped layers.
//
// Layout below the root (docs/ondisk.md): layers/HEX holds a committed layer's
// content in "fs"; active/KEY holds "upper", "work" and "chain", a symbolic
// link that names a file in chains/: the chain ids of the layers below, one a
// line, under the beginning of their digest. "empty" is the lower branch of an
// image without layers. Names that begin with ".new-" or ".gone-" are half made
// or half removed and are swept at the start.
//
// It needs Linux 5.19: overlay over id-mapped mounts. It imports errdefs,
// atomicfile and engine/snapshot of ours.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	halfMade = ".new-"
	halfGone = ".gone-"
)

// Snapshotter implements snapshot.Snapshotter.
type Snapshotter struct {
	root string
	// mu orders the making of disks against the removal of layers.
	mu sync.RWMutex
	// pending maps a target to the end (chan struct{}) of its unmount.
	pending sync.Map
	closing sync.WaitGroup
	// pathsOnly is set once the kernel has refused branches by descriptor.
	pathsOnly atomic.Bool
}

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

// New opens or makes the store of snapshots at root, and removes what an
// interrupted call left there.
func New(root string) (*Snapshotter, error) {
	s := &Snapshotter{root: root}
	for _, dir := range []string{s.root, s.path("layers"), s.path("active"), s.path("chains"), s.path("empty")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	for _, dir := range []string{s.path("layers"), s.path("active")} {
		if err := sweep(dir); err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	if err := s.sweepChains(); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return s, nil
}

func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), halfMade) || strings.HasPrefix(e.Name(), halfGone) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Snapshotter) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

// layerName is the directory name of a chain id.
func layerName(chainID string) (string, error) {
	hex, ok := strings.CutPrefix(chainID, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("chain id %q: %w", chainID, errdefs.ErrInvalid)
	}
	return hex, nil
}

// keyName checks that a key can be a file name.
func keyName(key string) (string, error) {
	if key == "" || key[0] == '.' || strings.ContainsAny(key, "/\x00\n,:\\") {
		return "", fmt.Errorf("snapshot key %q: %w", key, errdefs.ErrInvalid)
	}
	return key, nil
}

// HasLayer implements snapshot.Snapshotter.
func (s *Snapshotter) HasLayer(_ context.Context, chainID string) (bool, error) {
	name, err := layerName(chainID)
	if err != nil {
		return false, err
	}
	return exists(s.path("layers", name))
}

func exists(name string) (bool, error) {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Unpack implements snapshot.Snapshotter.
func (s *Snapshotter) Unpack(ctx context.Context, chainID string, fill func(dir string) error) error {
	name, err := layerName(chainID)
	if err != nil {
		return err
	}
	final := s.path("layers", name)
	if there, err := exists(final); there || err != nil {
		return err
	}
	if err := s.unpack(final, fill); err != nil {
		return fmt.Errorf("unpack layer %s: %w", chainID, classify(err))
	}
	return ctx.Err()
}

func (s *Snapshotter) unpack(final string, fill func(dir string) error) error {
	tmp, err := os.MkdirTemp(s.path("layers"), halfMade)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // New sweeps what stays
	dir := filepath.Join(tmp, "fs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	if err := syncTree(dir); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		if there, eerr := exists(final); eerr == nil && there {
			return nil // somebody else was faster with the same content
		}
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(final))
}

// RemoveLayer implements snapshot.Snapshotter.
func (s *Snapshotter) RemoveLayer(ctx context.Context, chainID string) error {
	name, err := layerName(chainID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.List(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		chain, err := s.chain(key)
		if err != nil {
			return fmt.Errorf("remove layer %s: %w", chainID, err)
		}
		if slices.Contains(chain, chainID) {
			return fmt.Errorf("remove layer %s: snapshot %s is over it: %w", chainID, key, errdefs.ErrConflict)
		}
	}
	if err := discard(s.path("layers"), name); err != nil {
		return fmt.Errorf("remove layer %s: %w", chainID, err)
	}
	return nil
}

// discard renames first, so that an interrupted removal is recognised.
func discard(dir, name string) error {
	gone := filepath.Join(dir, halfGone+name)
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, name), gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(gone)
}

// Layer implements snapshot.Snapshotter.
func (s *Snapshotter) Layer(_ context.Context, chainID string) (string, error) {
	name, err := layerName(chainID)
	if err != nil {
		return "", err
	}
	dir := s.path("layers", name, "fs")
	if there, err := exists(dir); err != nil || !there {
		return "", errors.Join(err, fmt.Errorf("layer %s: %w", chainID, errdefs.ErrNotFound))
	}
	return dir, nil
}

// Layers implements snapshot.Snapshotter.
func (s *Snapshotter) Layers(context.Context) ([]string, error) {
	names, err := names(s.path("layers"))
	for i := range names {
		names[i] = "sha256:" + names[i]
	}
	return names, err
}

// List implements snapshot.Snapshotter.
func (s *Snapshotter) List(context.Context) ([]string, error) {
	return names(s.path("active"))
}

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

// Prepare implements snapshot.Snapshotter.
func (s *Snapshotter) Prepare(_ context.Context, key string, chain []string) error {
	name, err := keyName(key)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, id := range chain {
		layer, err := layerName(id)
		if err != nil {
			return fmt.Errorf("prepare snapshot %s: %w", key, err)
		}
		if there, err := exists(s.path("layers", layer)); err != nil {
			return fmt.Errorf("prepare snapshot %s: %w", key, err)
		} else if !there {
			return fmt.Errorf("prepare snapshot %s: layer %s: %w", key, id, errdefs.ErrNotFound)
		}
	}
	final := s.path("active", name)
	if there, err := exists(final); err != nil || there {
		return errors.Join(err, fmt.Errorf("prepare snapshot %s: %w", key, errdefs.ErrAlreadyExists))
	}
	if err := s.prepare(final, chain); err != nil {
		return fmt.Errorf("prepare snapshot %s: %w", key, classify(err))
	}
	return nil
}

func (s *Snapshotter) prepare(final string, chain []string) error {
	tmp, err := os.MkdirTemp(s.path("active"), halfMade)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // New sweeps what stays
	upper := filepath.Join(tmp, "upper")
	for _, dir := range []string{upper, filepath.Join(tmp, "work")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := s.likeTop(upper, chain); err != nil {
		return err
	}
	record, err := s.recordChain(chain)
	if err != nil {
		return err
	}
	if err := os.Symlink(record, filepath.Join(tmp, "chain")); err != nil {
		return err
	}
	return os.Rename(tmp, final)
}

// recordChain writes the chain, durably, unless an earlier snapshot has the
// same, and returns the name of its record: short enough that a symbolic link
// to it is a part of its inode and needs no fsync of its own.
func (s *Snapshotter) recordChain(chain []string) (string, error) {
	data := []byte(strings.Join(chain, "\n"))
	name := digest.FromBytes(data).Encoded()[:40]
	if there, err := exists(s.path("chains", name)); err != nil || there {
		return name, err
	}
	return name, atomicfile.Write(s.path("chains", name), data, 0o600)
}

// sweepChains removes the records that no snapshot names any more, unless it
// cannot tell.
func (s *Snapshotter) sweepChains() error {
	keys, err := names(s.path("active"))
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, key := range keys {
		record, err := os.Readlink(s.path("active", key, "chain"))
		if err != nil {
			return nil //nolint:nilerr // one damaged snapshot must not keep the others from being opened
		}
		used[record] = true
	}
	entries, err := os.ReadDir(s.path("chains"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !used[e.Name()] {
			if err := os.Remove(s.path("chains", e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// likeTop gives the upper directory mode, owner and times of the chain's root:
// in an overlay the upper directory is what shows.
func (s *Snapshotter) likeTop(upper string, chain []string) error {
	if len(chain) == 0 {
		return os.Chmod(upper, 0o755)
	}
	layer, err := layerName(chain[len(chain)-1])
	if err != nil {
		return err
	}
	info, err := os.Stat(s.path("layers", layer, "fs"))
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("stat of layer root: %w", errdefs.ErrUnsupported)
	}
	if err := os.Lchown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(upper, info.Mode()); err != nil {
		return err
	}
	return os.Chtimes(upper, info.ModTime(), info.ModTime())
}

func (s *Snapshotter) chain(key string) ([]string, error) {
	record, err := os.Readlink(s.path("active", key, "chain"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("snapshot %s: %w", key, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", key, err)
	}
	raw, err := os.ReadFile(s.path("chains", record))
	if err == nil && digest.FromBytes(raw).Encoded()[:40] != record {
		err = errors.New("the record of its chain does not match its name")
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w: %w", key, errdefs.ErrCorrupt, err)
	}
	if len(raw) == 0 {
		return nil, nil
	}
	return strings.Split(string(raw), "\n"), nil
}

// Changes implements snapshot.Snapshotter.
func (s *Snapshotter) Changes(_ context.Context, key string) (string, error) {
	name, err := keyName(key)
	if err != nil {
		return "", err
	}
	if _, err := s.chain(name); err != nil {
		return "", err
	}
	return s.path("active", name, "upper"), nil
}

// Usage implements snapshot.Snapshotter.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshot.Usage, error) {
	dir, err := s.Changes(ctx, key)
	if err != nil {
		return snapshot.Usage{}, err
	}
	var u snapshot.Usage
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone while we looked
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			u.Bytes += st.Blocks * 512
		}
		u.Inodes++
		return ctx.Err()
	})
	if err != nil {
		return u, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return u, nil
}

// Remove implements snapshot.Snapshotter.
func (s *Snapshotter) Remove(_ context.Context, key string) error {
	name, err := keyName(key)
	if err != nil {
		return err
	}
	if err := discard(s.path("active"), name); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	return nil
}

// classify gives a full disk its class.
func classify(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", errdefs.ErrExhausted, err)
	}
	return err
}
