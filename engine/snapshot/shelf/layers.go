package shelf

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func randomName() string { return rand.Text() }

// HasLayer implements snapshot.LayerStore.
func (s *Shelf) HasLayer(_ context.Context, chainID string) (bool, error) {
	name, err := LayerName(chainID)
	if err != nil {
		return false, err
	}
	return Exists(s.Path("layers", name))
}

// Unpack implements snapshot.LayerStore.
func (s *Shelf) Unpack(ctx context.Context, chainID string, fill func(dir string) error) error {
	return s.PutLayer(ctx, chainID, filled(fill))
}

// filled makes the directory that fill fills.
func filled(fill func(dir string) error) func(dir string) error {
	return func(dir string) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
			return err
		}
		return fill(dir)
	}
}

// PutLayer is Unpack with a place that does not exist yet: make makes it, or
// renames a directory to it.
func (s *Shelf) PutLayer(ctx context.Context, chainID string, make func(dir string) error) error {
	name, err := LayerName(chainID)
	if err != nil {
		return err
	}
	unlock, err := s.making.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	final := s.Path("layers", name)
	packed, err := isPacked(final)
	if err != nil {
		return err
	}
	if there, err := Exists(final); there && !packed || err != nil {
		return err
	}
	put := putLayer
	if packed {
		put = swapLayer
	}
	if err := s.putLayer(ctx, "fs", make, SyncTree, func(tmp string) error { return put(tmp, final) }); err != nil {
		return fmt.Errorf("unpack layer %s: %w", chainID, Classify(err))
	}
	return ctx.Err()
}

// TakeLayer makes the directory from, which is below the root, the content of
// the layer chainID. It moves it; on error, and after a crash, from is where it
// was.
func (s *Shelf) TakeLayer(ctx context.Context, chainID, from string) error {
	back, err := filepath.Rel(s.root, from)
	if err != nil {
		return fmt.Errorf("commit layer %s: %w", chainID, err)
	}
	err = s.PutLayer(ctx, chainID, func(dir string) error {
		if err := os.Symlink(back, filepath.Join(filepath.Dir(dir), origin)); err != nil {
			return err
		}
		return os.Rename(from, dir)
	})
	if err != nil {
		return err
	}
	name, err := LayerName(chainID)
	if err != nil {
		return err
	}
	if err := os.Remove(s.Path("layers", name, origin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("commit layer %s: %w", chainID, err)
	}
	return nil
}

// origin is a link in a layer that is being committed: where its content is
// moved back to when it does not become a layer.
const origin = "origin"

// dropLayer removes a half made layer, after it has given back what it took.
func (s *Shelf) dropLayer(tmp string) error {
	back, err := os.Readlink(filepath.Join(tmp, origin))
	if err == nil && filepath.IsLocal(back) {
		err := os.Rename(filepath.Join(tmp, "fs"), s.Path(back))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return os.RemoveAll(tmp)
}

// putLayer has make fill the directory form of a layer that has no name yet, and
// put name it.
func (s *Shelf) putLayer(ctx context.Context, form string, make, sync, put func(dir string) error) error {
	tmp, drop, err := s.Temp("layers", s.dropLayer)
	if err != nil {
		return err
	}
	defer drop()
	if err := make(filepath.Join(tmp, form)); err != nil {
		return err
	}
	if err := writeManifest(ctx, tmp, form); err != nil {
		return err
	}
	if err := sync(tmp); err != nil {
		return err
	}
	return put(tmp)
}

// putLayer gives a layer its name.
func putLayer(tmp, final string) error {
	if err := os.Rename(tmp, final); err != nil {
		if there, eerr := Exists(final); eerr == nil && there {
			return nil // somebody else was faster with the same content
		}
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(final))
}

// RemoveLayer implements snapshot.LayerStore.
func (s *Shelf) RemoveLayer(ctx context.Context, chainID string) error {
	name, err := LayerName(chainID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.userOf(ctx, chainID)
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", chainID, err)
	}
	if key != "" {
		return fmt.Errorf("remove layer %s: snapshot %s is over it: %w", chainID, key, errdefs.ErrConflict)
	}
	if err := s.discard(ctx, "layers", name, os.RemoveAll, false); err != nil {
		return fmt.Errorf("remove layer %s: %w", chainID, err)
	}
	return nil
}

// userOf names a disk that has the layer below it, if there is one.
func (s *Shelf) userOf(ctx context.Context, chainID string) (string, error) {
	keys, err := s.List(ctx)
	if err != nil {
		return "", err
	}
	for _, key := range keys {
		chain, err := s.Chain(key)
		if err != nil {
			if _, gone := s.Disk(key); errors.Is(gone, errdefs.ErrNotFound) {
				continue // since it was listed
			}
			return "", err
		}
		if slices.Contains(chain, chainID) {
			return key, nil
		}
	}
	return "", nil
}

// Layer implements snapshot.LayerStore.
func (s *Shelf) Layer(_ context.Context, chainID string) (string, error) {
	name, err := LayerName(chainID)
	if err != nil {
		return "", err
	}
	dir := s.Path("layers", name, "fs")
	if there, err := Exists(dir); err != nil || !there {
		if packed, perr := isPacked(filepath.Dir(dir)); perr == nil && packed {
			return "", fmt.Errorf("layer %s is packed: %w", chainID, errdefs.ErrConflict)
		}
		return "", errors.Join(err, fmt.Errorf("layer %s: %w", chainID, errdefs.ErrNotFound))
	}
	return dir, nil
}

// Dirs returns the directories of a chain's layers, in its order.
func (s *Shelf) Dirs(ctx context.Context, chain []string) ([]string, error) {
	out := make([]string, len(chain))
	for i, id := range chain {
		var err error
		if out[i], err = s.Layer(ctx, id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Layers implements snapshot.LayerStore.
func (s *Shelf) Layers(context.Context) ([]string, error) {
	found, err := names(s.Path("layers"))
	out := found[:0]
	for _, name := range found {
		if isLayerName(name) {
			out = append(out, "sha256:"+name)
		}
	}
	return out, err
}
