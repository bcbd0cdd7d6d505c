// Package filesystemtest is the conformance suite of the readers of
// engine/disk/filesystem.
//
// Run makes a file system with its own mkfs, fills it through a mount of the
// kernel's, and compares entry by entry what the reader shows with what the
// kernel shows. Then it damages the image and demands what the contract
// promises for every input. Fuzz goes on with that from an image kept as a
// file.
//
// It needs root, loop devices and a mount namespace of the test's own
// (snapshottest.InMountNamespace in TestMain).
package filesystemtest

import (
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

// Maker says how a file system is made and read.
type Maker struct {
	// Type is for mount(8): ext4, xfs, btrfs.
	Type string
	// Mkfs is the command that makes an empty file system; the path of the
	// image is added to it.
	Mkfs []string
	// Size of the image in bytes, which is a sparse file; 2 GiB when 0.
	Size int64
	// SmallSize is the Size for the images that are damaged; Size when 0.
	SmallSize int64
	// Options of mount, with commas between them; may be empty.
	Options string
	// Open is the reader.
	Open filesystem.Opener
	// Unchecked is a reader that takes each checksum as right, so that damage
	// comes as far as the parser; nil if there is none.
	Unchecked filesystem.Opener
	// Lossy says that after a crash the reader may show what the kernel would
	// repair from the journal, if it says so by Info.Dirty.
	Lossy bool
}

func (m Maker) size() int64 {
	if m.Size == 0 {
		return 2 << 30
	}
	return m.Size
}

func (m Maker) small() Maker {
	if m.SmallSize != 0 {
		m.Size = m.SmallSize
	}
	return m
}

// Run runs the suite.
func Run(t *testing.T, m Maker) {
	t.Run("tree", func(t *testing.T) {
		image := m.image(t)
		m.mounted(t, image, "", func(dir string) { populate(t, dir, true) })
		m.same(t, image)
	})
	t.Run("crash", func(t *testing.T) { crash(t, m) })
	t.Run("contract", func(t *testing.T) { contract(t, m.small()) })
	t.Run("not mine", func(t *testing.T) { notMine(t, m) })
	t.Run("damage", func(t *testing.T) {
		base := load(t, m.smallImage(t))
		t.Run("flipped bits", func(t *testing.T) { damage(t, base, m.Open, 100) })
		if m.Unchecked != nil {
			t.Run("flipped bits, right checksums", func(t *testing.T) { damage(t, base, m.Unchecked, 200) })
		}
		t.Run("truncated", func(t *testing.T) { truncated(t, base, m.Open) })
		t.Run("failing disk", func(t *testing.T) { failing(t, base, m.Open) })
	})
}

// smallImage makes an image with little in it.
func (m Maker) smallImage(t *testing.T) string {
	m = m.small()
	image := m.image(t)
	m.mounted(t, image, "", func(dir string) { populate(t, dir, false) })
	return image
}

// same compares the reader's view of an image with the kernel's.
func (m Maker) same(t *testing.T, image string) {
	t.Helper()
	m.mounted(t, image, "ro", func(dir string) {
		r, size := open(t, image)
		fs, err := m.Open(r, size)
		if err != nil {
			t.Fatal(err)
		}
		if info := fs.Info(); info.Dirty {
			t.Error("dirty")
		}
		Compare(t, fs, dir)
	})
}
