package shelf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// packed is the directory of a layer that has no "fs" yet.
const packed = "packed"

func isPacked(layer string) (bool, error) { return Exists(filepath.Join(layer, packed)) }

// Pack implements snapshot.LayerStore.
func (s *Shelf) Pack(ctx context.Context, chainID string, fill func(dir string) error) error {
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
	if there, err := Exists(final); there || err != nil {
		return err
	}
	if err := s.putLayer(ctx, packed, filled(fill), syncFiles, func(tmp string) error { return putLayer(tmp, final) }); err != nil {
		return fmt.Errorf("pack layer %s: %w", chainID, Classify(err))
	}
	return ctx.Err()
}

// Packed implements snapshot.LayerStore.
func (s *Shelf) Packed(_ context.Context, chainID string) (string, error) {
	name, err := LayerName(chainID)
	if err != nil {
		return "", err
	}
	dir := s.Path("layers", name, packed)
	if there, err := Exists(dir); err != nil || !there {
		return "", errors.Join(err, fmt.Errorf("packed layer %s: %w", chainID, errdefs.ErrNotFound))
	}
	return dir, nil
}

// swapLayer gives a layer that was packed its unpacked form, and tmp the packed
// one, in one step.
func swapLayer(tmp, final string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(final))
}

// syncFiles makes a few files below dir durable, and nothing else of the file
// system.
func syncFiles(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return atomicfile.SyncDir(path)
		case !d.Type().IsRegular():
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
