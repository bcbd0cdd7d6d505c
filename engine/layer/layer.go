// Package layer turns tar streams into directories and back.
//
// Apply unpacks one layer of an image into a directory of its own, in the form
// that overlayfs reads: a removed name is a character device 0:0, a directory
// that hides what is below carries the attribute trusted.overlay.opaque. Diff
// reads such a directory, a layer's or the upper one of a container, and
// writes the layer as a tar stream with whiteouts as files (.wh.NAME).
//
// The tar stream is hostile input. Every path is opened below the descriptor
// of the target directory (openat2 with RESOLVE_IN_ROOT); no path is checked
// as text first and used later. Ids are the container's own, 0 to 65535, and
// stay as they are on disk: instances see layers through id-mapped mounts.
//
// Sources of the formats: OCI image specification, layer.md (whiteouts, hard
// links, attributes); Linux Documentation/filesystems/overlayfs.rst; POSIX pax
// and its SCHILY.xattr records, as GNU tar and libarchive write them. The
// package imports internal/errdefs only and needs the privileges of the host's
// root.
package layer

import (
	"github.com/opencontainers/go-digest"
)

// Limits bound what one layer may make. A zero field means the default.
type Limits struct {
	// Bytes of file content, holes included. Default 64 GiB.
	Bytes int64
	// Entries of the tar stream, skipped ones included. Default 500,000.
	Entries int64
	// Depth of a path in components. Default 256.
	Depth int
	// PathLen and the length of a component, in bytes. Default 4,095 and 255.
	PathLen, NameLen int
	// Xattrs of one entry, and the length of one value in bytes. Default 64
	// and 65,536.
	Xattrs, XattrLen int
	// MaxID is the largest user or group id. Default 65,535.
	MaxID int
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	if l.Bytes == 0 {
		l.Bytes = 64 << 30
	}
	if l.Entries == 0 {
		l.Entries = 500_000
	}
	set(&l.Depth, 256)
	set(&l.PathLen, 4095)
	set(&l.NameLen, 255)
	set(&l.Xattrs, 64)
	set(&l.XattrLen, 65536)
	set(&l.MaxID, 65535)
	return l
}

// Options of Apply.
type Options struct {
	Limits Limits
	// Verified, if set, is the digest of the stream, which the reader itself
	// verifies before it returns io.EOF; Apply then does not hash a second
	// time and returns it as the DiffID.
	Verified digest.Digest
	// Ahead says that the reader has bytes before they are asked for, so that
	// Apply needs no goroutine that reads ahead.
	Ahead bool
	// Holes makes holes of zeros in all files, and not only in sparse ones.
	Holes bool
	// Opaque, if set, is called with the path of each opaque directory instead
	// of marking it, which needs the host's root: MarkOpaque does it later. For
	// a process whose root is the target; its working directory changes.
	Opaque func(path string)
}

// Result of Apply.
type Result struct {
	// DiffID is the sha256 digest of the whole tar stream, padding included.
	DiffID digest.Digest
	// Bytes of file content, Entries of the stream.
	Bytes, Entries int64
	// Devices counts block and character devices that were left out, and hard
	// links to them. Skipped counts what else was left out: sockets, metadata
	// of aufs, attributes outside the allow list.
	Devices, Skipped int64
	// ImplicitDirs are the directories that had to be made without an entry of
	// their own; "." is the root. They are 0755 and root's; Inherit gives them
	// the attributes of the same directory in the layers below. Sorted.
	ImplicitDirs []string
}

// DiffResult of Diff.
type DiffResult struct {
	// DiffID and Size (bytes) of the tar stream written.
	DiffID digest.Digest
	Size   int64
	// Entries written, whiteouts included.
	Entries int64
	// Bytes of files as they are unpacked, those with several names counted for
	// each.
	Bytes int64
	// Skipped counts what cannot be part of a layer and was left out: sockets,
	// devices, names that look like whiteouts, files that vanished while being
	// read.
	Skipped int64
}
