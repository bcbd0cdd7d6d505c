// Package image reads and writes container images as files: docker archives
// (docker save), OCI archives (a tar of an OCI image layout) and root file
// system tarballs, plain or compressed. Disk images are told from these and
// read by OpenOptions.Disk.
//
// What a file is follows from its bytes alone and is checked against what the
// control plane declared. An Image is immutable. Its layers are streams of
// uncompressed tar; a reader gets io.EOF only after every digest that the
// image states has been verified. Nothing of an image is executed, and of its
// configuration only the fields of Config are read.
//
// Sources of the formats: OCI image specification 1.1 (image-layout.md,
// image-index.md, manifest.md, config.md, layer.md); docker image
// specification v1.2 (manifest.json). The package imports engine/content and
// internal/errdefs of ours, and writes no log.
package image

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

// Image is one image for this host. Methods return the same values each time
// and are safe for concurrent use; callers do not change what they return.
type Image interface {
	Kind() Kind
	// ID is the digest of the configuration document, or empty for an image
	// without one.
	ID() digest.Digest
	Config() Config
	// Layers from the bottom to the top; at least one.
	Layers() []Layer
}

// Layer is one layer of an image.
type Layer interface {
	// DiffID is the digest of the uncompressed tar stream, or empty when the
	// image does not state it.
	DiffID() digest.Digest
	// StoredSize is the size of the layer as stored, in bytes.
	StoredSize() int64
	// Open returns the uncompressed tar stream. Instead of io.EOF it ends with
	// errdefs.ErrCorrupt if the stored form, the digests or the sizes do not
	// agree, and with errdefs.ErrInvalid if it expands beyond Limits. It may
	// be called many times.
	Open(ctx context.Context) (io.ReadCloser, error)
}

// Kind is the form of an image.
type Kind string

// The kinds.
const (
	DockerArchive Kind = "docker archive"
	OCIArchive    Kind = "OCI archive"
	Rootfs        Kind = "root file system tarball"
	DiskImage     Kind = "disk image"
)

// Limits bound what is read of an image. A zero field means the default.
type Limits struct {
	// Manifest and Config bound the documents, in bytes. Default 4 and 8 MiB.
	Manifest, Config int64
	// Layers of one image. Default 200.
	Layers int
	// Entries of an archive's own tar. Default 10,000.
	Entries int
	// JSONDepth of the documents. Default 64.
	JSONDepth int
	// LayerBytes bounds one uncompressed layer. Default 64 GiB.
	LayerBytes int64
	// Ratio of uncompressed to compressed bytes, enforced beyond RatioFrom
	// uncompressed bytes. Default 200 and 64 MiB.
	Ratio, RatioFrom int64
}

func (l Limits) withDefaults() Limits {
	set := func(v *int64, def int64) {
		if *v == 0 {
			*v = def
		}
	}
	set(&l.Manifest, 4<<20)
	set(&l.Config, 8<<20)
	set(&l.LayerBytes, 64<<30)
	set(&l.Ratio, 200)
	set(&l.RatioFrom, 64<<20)
	if l.Layers == 0 {
		l.Layers = 200
	}
	if l.Entries == 0 {
		l.Entries = 10_000
	}
	if l.JSONDepth == 0 {
		l.JSONDepth = 64
	}
	return l
}

// OpenOptions say what is known of a file before it is opened.
type OpenOptions struct {
	// ContainerFormat and DiskFormat as the control plane declares them, in
	// Glance's words. Empty means nothing was declared.
	ContainerFormat, DiskFormat string
	// Arch is the architecture to choose, in Go's words. Empty means this
	// host's.
	Arch string
	// SpoolDir is where an archive that is compressed as a whole is unpacked,
	// into a file without a name. Empty refuses such archives.
	SpoolDir string
	// Disk reads disk images; nil refuses them.
	Disk   DiskReader
	Limits Limits
}
