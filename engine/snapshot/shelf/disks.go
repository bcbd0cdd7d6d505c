package shelf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// List implements snapshot.DiskStore.
func (s *Shelf) List(context.Context) ([]string, error) { return names(s.Path("active")) }

// Disk is the directory of a disk, and its name. errdefs.ErrNotFound if there
// is none.
func (s *Shelf) Disk(key string) (dir string, err error) {
	name, err := KeyName(key)
	if err != nil {
		return "", err
	}
	dir = s.Path("active", name)
	there, err := Exists(dir)
	if err == nil && !there {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("snapshot %s: %w", key, err)
	}
	return dir, nil
}

// Prepare makes the disk key over chain: fill is called with its directory,
// private and empty, before it has its name.
func (s *Shelf) Prepare(_ context.Context, key string, chain []string, fill func(dir string) error) error {
	name, err := KeyName(key)
	if err != nil {
		return err
	}
	if there, err := Exists(s.Path("active", name)); err != nil || there {
		return errors.Join(err, fmt.Errorf("prepare snapshot %s: %w", key, errdefs.ErrAlreadyExists))
	}
	staged, err := s.Stage(chain, fill)
	if err != nil {
		return fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	return staged.Name(key)
}

// Staged is a disk without a name. It keeps layers from being removed.
type Staged struct {
	shelf *Shelf
	tmp   string
	drop  func()
}

// Stage makes a disk as Prepare does, without a name.
func (s *Shelf) Stage(chain []string, fill func(dir string) error) (_ *Staged, err error) {
	s.mu.RLock()
	defer func() {
		if err != nil {
			s.mu.RUnlock()
			err = Classify(err)
		}
	}()
	if err := s.haveAll(chain); err != nil {
		return nil, err
	}
	tmp, drop, err := s.Temp("active", s.opts.RemoveDisk)
	if err != nil {
		return nil, err
	}
	if err = fill(tmp); err == nil {
		err = s.keepChain(tmp, chain)
	}
	if err != nil {
		drop()
		return nil, err
	}
	return &Staged{s, tmp, drop}, nil
}

// PrepareSlowly is Prepare for a fill that takes long: layers may be removed
// meanwhile, those of chain too, which is an error in the end.
func (s *Shelf) PrepareSlowly(key string, chain []string, fill func(dir string) error) error {
	name, err := KeyName(key)
	if err != nil {
		return err
	}
	if there, err := Exists(s.Path("active", name)); err != nil || there {
		return errors.Join(err, fmt.Errorf("prepare snapshot %s: %w", key, errdefs.ErrAlreadyExists))
	}
	tmp, drop, err := s.Temp("active", s.opts.RemoveDisk)
	if err != nil {
		return fmt.Errorf("prepare snapshot %s: %w", key, Classify(err))
	}
	err = fill(tmp)
	s.mu.RLock()
	if err == nil {
		err = s.haveAll(chain)
	}
	if err == nil {
		err = s.keepChain(tmp, chain)
	}
	staged := &Staged{s, tmp, drop}
	if err != nil {
		staged.Drop()
		return fmt.Errorf("prepare snapshot %s: %w", key, Classify(err))
	}
	return staged.Name(key)
}

// haveAll is errdefs.ErrNotFound for a chain of which a layer is missing.
func (s *Shelf) haveAll(chain []string) error {
	for _, id := range chain {
		layer, err := LayerName(id)
		if err != nil {
			return err
		}
		there, err := Exists(s.Path("layers", layer))
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("layer %s: %w", id, errdefs.ErrNotFound)
		}
	}
	return nil
}

// keepChain notes the chain of the disk tmp.
func (s *Shelf) keepChain(tmp string, chain []string) error {
	record, err := s.recordChain(chain)
	if err != nil {
		return err
	}
	return s.nameChain(tmp, record)
}

// Drop implements snapshot.Staged.
func (d *Staged) Drop() {
	d.drop()
	d.shelf.mu.RUnlock()
}

// Name implements snapshot.Staged.
func (d *Staged) Name(key string) error {
	defer d.Drop()
	name, err := KeyName(key)
	if err != nil {
		return err
	}
	final := d.shelf.Path("active", name)
	there, err := Exists(final)
	if err == nil && there {
		err = errdefs.ErrAlreadyExists
	}
	if err == nil {
		err = Classify(os.Rename(d.tmp, final))
	}
	if err != nil {
		return fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	return nil
}

// nameChain gives a disk its chain: one more name of the record, which costs no
// inode. The name has the record's in it, so that the text can be told from
// another, also in a copy of the store that has made two files of it. Where there
// cannot be one (the record has as many as the file system allows, or a mount
// lies in between) it is a symbolic link, as earlier versions made it: short
// enough that it is a part of its inode and needs no fsync.
func (s *Shelf) nameChain(disk, record string) error {
	if os.Link(s.Path("chains", record), filepath.Join(disk, chainPrefix+record)) == nil {
		return nil
	}
	return os.Symlink(record, filepath.Join(disk, chainLink))
}

// How the chain is called in the directory of a disk.
const (
	chainPrefix = "chain-"
	chainLink   = "chain"
)

// record is the file with the chain of a disk, and the name that its text must
// have; fs.ErrNotExist if there is none.
func (s *Shelf) record(key string) (file, name string, err error) {
	dir := s.Path("active", key)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", "", err
	}
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), chainPrefix); ok {
			return filepath.Join(dir, e.Name()), name, nil
		}
		if e.Name() == chainLink {
			name, err := os.Readlink(filepath.Join(dir, chainLink))
			return s.Path("chains", filepath.Base(name)), name, err
		}
	}
	return "", "", fs.ErrNotExist
}

// recordLength is how much of the digest names a record.
const recordLength = 40

// ChainRecord is the name under which a chain is recorded: the beginning of
// its digest.
func ChainRecord(chain []string) string {
	return digest.FromString(strings.Join(chain, "\n")).Encoded()[:recordLength]
}

// recordChain writes the chain, durably, unless an earlier snapshot has the
// same, and returns the name of its record. A record is never written anew: what
// names it names one file.
func (s *Shelf) recordChain(chain []string) (string, error) {
	s.recording.Lock()
	defer s.recording.Unlock()
	name := ChainRecord(chain)
	if there, err := Exists(s.Path("chains", name)); err != nil || there {
		return name, err
	}
	return name, atomicfile.Write(s.Path("chains", name), []byte(strings.Join(chain, "\n")), 0o600)
}

// unusedChains lists the records that no disk names any more; none if it
// cannot tell.
func (s *Shelf) unusedChains() ([]string, error) {
	keys, err := names(s.Path("active"))
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, key := range keys {
		switch record, err := os.Readlink(s.Path("active", key, chainLink)); {
		case err == nil:
			used[record] = true
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil // one damaged snapshot must not keep the others from being opened
		}
	}
	entries, err := os.ReadDir(s.Path("chains"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 1 && !used[e.Name()] {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

func (s *Shelf) sweepChains() error {
	unused, err := s.unusedChains()
	for _, name := range unused {
		err = errors.Join(err, os.Remove(s.Path("chains", name)))
	}
	return err
}

// Chain is the chain of a disk, lowest layer first. errdefs.ErrNotFound if
// there is no such disk, errdefs.ErrCorrupt if its record is damaged.
func (s *Shelf) Chain(key string) ([]string, error) {
	file, name, err := s.record(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("snapshot %s: %w", key, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", key, err)
	}
	raw, err := linux.ReadFile(file)
	if err == nil && digest.FromBytes(raw).Encoded()[:recordLength] != name {
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

// LikeTop gives dir mode, owner and times of the chain's root: in an overlay
// the upper directory is what shows.
func (s *Shelf) LikeTop(ctx context.Context, dir string, chain []string) error {
	if len(chain) == 0 {
		return os.Chmod(dir, 0o755)
	}
	top, err := s.Layer(ctx, chain[len(chain)-1])
	if err != nil {
		return err
	}
	info, err := os.Stat(top)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("stat of layer root: %w", errdefs.ErrUnsupported)
	}
	if err := os.Lchown(dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(dir, info.Mode()); err != nil {
		return err
	}
	return os.Chtimes(dir, info.ModTime(), info.ModTime())
}

// Remove implements snapshot.DiskStore. The disk is gone when it returns; a large
// one gives its space back in the background (trash.go).
func (s *Shelf) Remove(ctx context.Context, key string) error {
	name, err := KeyName(key)
	if err != nil {
		return err
	}
	if err := s.discard(ctx, "active", name, s.opts.RemoveDisk, true); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	return nil
}
