package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxPath is the longest path of a subvolume, as PATH_MAX. It also ends the
// walk up from a subvolume that is said to be below itself.
const maxPath = 4096

// Subvolume is an entry of Subvolumes.
type Subvolume struct {
	// ID is what WithRoot takes and Node.Volume holds.
	ID uint64
	// Path from the top of the file system, without a leading slash; empty for
	// the top itself, which has the number 5. As stored: a damaged or hostile
	// file system may show any text here.
	Path string
	// ReadOnly as set by "btrfs property"; typical of snapshots that are kept
	// to go back to.
	ReadOnly bool
	// Snapshot says that it was made as a snapshot of another one.
	Snapshot bool
}

// volumes is a forest with the trees of its subvolumes.
type volumes struct {
	*forest
	last     volume // the one used last
	cache    extentCache
	expander expander
}

// volume is a subvolume.
type volume struct {
	tree               tree
	rootInode          uint64
	readOnly, snapshot bool
}

// volume returns the subvolume id; errdefs.ErrNotFound if there is none, or if
// it is being deleted.
func (v *volumes) volume(id uint64) (volume, error) {
	if v.last.tree.id == id && id != 0 {
		return v.last, nil
	}
	if !isVolume(id) {
		return volume{}, fmt.Errorf("btrfs: tree %d is not a subvolume: %w", id, errdefs.ErrNotFound)
	}
	it, found, err := v.floor(v.super.root, key{id, kindRoot, math.MaxUint64})
	if err != nil {
		return volume{}, err
	}
	if !found || it.key.object != id || it.key.kind != kindRoot {
		return volume{}, fmt.Errorf("btrfs: subvolume %d: %w", id, errdefs.ErrNotFound)
	}
	vol, err := parseVolume(it)
	if err == nil {
		v.last = vol
	}
	return vol, err
}

func isVolume(id uint64) bool { return id == fsTree || id >= firstFree && id <= lastFree }

// parseVolume reads a root item.
func parseVolume(it item) (volume, error) {
	const least, withParent = 239, 279
	le, b, id := binary.LittleEndian, it.data, it.key.object
	if len(b) < least {
		return volume{}, corrupt("subvolume %d: its item has %d bytes", id, len(b))
	}
	if le.Uint32(b[216:]) == 0 {
		return volume{}, fmt.Errorf("btrfs: subvolume %d is deleted: %w", id, errdefs.ErrNotFound)
	}
	vol := volume{
		tree:      tree{id: id, generation: le.Uint64(b[160:]), block: le.Uint64(b[176:]), level: b[238]},
		rootInode: le.Uint64(b[168:]),
		readOnly:  le.Uint64(b[208:])&1 != 0,
		snapshot:  len(b) >= withParent && [16]byte(b[263:]) != [16]byte{},
	}
	if vol.tree.level > maxLevel {
		return volume{}, corrupt("subvolume %d: a tree of %d levels", id, vol.tree.level)
	}
	return vol, nil
}

// defaultSubvolume returns the subvolume that a mount without options shows:
// what the entry "default" of a directory in the root tree names.
func (v *volumes) defaultSubvolume() (uint64, error) {
	id := uint64(fsTree)
	err := v.each(v.super.root, v.super.defaultDirectory, kindDirItem, func(it item) error {
		return eachEntry(it, func(e entry) error {
			if string(e.name) == "default" {
				id = e.location.object
			}
			return nil
		})
	})
	return id, err
}

// Subvolumes calls visit for each subvolume, the top (5) first and the others
// in the order of their numbers, which is the order they were made in. Those
// that are being deleted are left out. An error of visit ends it and is
// returned as it is. What the view shows below its own root is listed too.
func (s *FileSystem) Subvolumes(visit func(Subvolume) error) error {
	for k := (key{object: fsTree, kind: kindRoot}); ; {
		it, found, err := s.seek(s.super.root, k)
		switch {
		case err != nil:
			return err
		case !found || it.key.object > lastFree:
			return nil
		case it.key.kind != kindRoot || !isVolume(it.key.object):
			k = nextRoot(it.key)
			continue
		}
		id := it.key.object
		k = nextRoot(key{id, kindRoot, math.MaxUint64})
		vol, err := s.volume(id)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		path, err := s.path(id)
		if err != nil {
			return fmt.Errorf("path of the subvolume %d: %w", id, err)
		}
		if err := visit(Subvolume{ID: id, Path: path, ReadOnly: vol.readOnly, Snapshot: vol.snapshot}); err != nil {
			return err
		}
	}
}

// nextRoot returns the lowest key after k that a root item may have.
func nextRoot(k key) key {
	switch {
	case k.kind < kindRoot && isVolume(k.object):
		return key{k.object, kindRoot, 0}
	case k.object < firstFree:
		return key{firstFree, kindRoot, 0}
	}
	return key{k.object + 1, kindRoot, 0}
}

// path returns where the subvolume id hangs, from the top.
func (v *volumes) path(id uint64) (string, error) {
	path := ""
	for at := id; at != fsTree; {
		parent, dir, name, err := v.parent(at)
		if err != nil {
			return "", err
		}
		if path, err = prepend(name, path); err != nil {
			return "", err
		}
		vol, err := v.volume(parent)
		if err != nil {
			return "", corrupt("subvolume %d is in the subvolume %d: %v", at, parent, err)
		}
		for dir != vol.rootInode {
			it, found, err := v.seek(vol.tree, key{dir, kindInodeRef, 0})
			if err != nil {
				return "", err
			}
			if !found || it.key.object != dir || it.key.kind != kindInodeRef || len(it.data) < 10 {
				return "", corrupt("directory %d of the subvolume %d has no parent", dir, parent)
			}
			name := it.data[10:]
			name = name[:min(len(name), int(binary.LittleEndian.Uint16(it.data[8:])))]
			if path, err = prepend(string(name), path); err != nil {
				return "", err
			}
			dir = it.key.offset
		}
		at = parent
	}
	return path, nil
}

func prepend(name, path string) (string, error) {
	if len(name) == 0 || len(name)+1+len(path) > maxPath {
		return "", corrupt("a part of %d bytes before a path of %d", len(name), len(path))
	}
	if path == "" {
		return name, nil
	}
	return name + "/" + path, nil
}

// parent returns the subvolume, the directory and the name of the one entry
// that shows the subvolume id.
func (v *volumes) parent(id uint64) (parent, dir uint64, name string, err error) {
	it, found, err := v.seek(v.super.root, key{id, kindBackref, 0})
	if err != nil {
		return 0, 0, "", err
	}
	if !found || it.key.object != id || it.key.kind != kindBackref {
		return 0, 0, "", corrupt("subvolume %d is in no directory", id)
	}
	dir, name, err = parseRootRef(it)
	return it.key.offset, dir, name, err
}

// shownIn says whether the entry name of the directory dir of the subvolume
// parent is the place of the subvolume id. In a snapshot, the entries of
// nested subvolumes stay behind without them.
func (v *volumes) shownIn(parent, dir uint64, name string, id uint64) (bool, error) {
	data, found, err := v.get(v.super.root, key{parent, kindRootRef, id})
	if err != nil || !found {
		return false, err
	}
	d, n, err := parseRootRef(item{key{parent, kindRootRef, id}, data})
	if err != nil || d != dir || n != name {
		return false, err
	}
	_, err = v.volume(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// parseRootRef reads the reference between a subvolume and its directory.
func parseRootRef(it item) (dir uint64, name string, err error) {
	le, b := binary.LittleEndian, it.data
	if len(b) < 18 || len(b)-18 < int(le.Uint16(b[16:])) {
		return 0, "", corrupt("reference %v: has %d bytes", it.key, len(b))
	}
	return le.Uint64(b), string(b[18 : 18+int(le.Uint16(b[16:]))]), nil
}
