// Package disk reads the root file system out of a disk image, and writes one anew: a raw or qcow2
// file with a GPT, an MBR or no partition table, and an ext, XFS or btrfs file
// system on it.
//
//	qcow2      the image format, as a plain io.ReaderAt
//	partition  GPT and MBR
//	filesystem the contract of file system readers, and their tar stream
//	jail       all of it in a process that can do nothing else
//
// Nothing is mounted and nothing is executed: the bytes of a tenant are parsed
// in Go. The image needs no change; its boot loader, kernel and fstab are files
// like others.
//
// # Which file system is the root
//
//  1. The disk is one file system if it has no partition table. A table that has
//     partitions counts before what else the disk looks like, and GPT before MBR
//     where the MBR says that there is a GPT.
//  2. Each partition that begins with an ext, XFS or btrfs file system is opened,
//     and of it, for btrfs, the subvolume that a mount without options shows,
//     and all others if that is no root.
//  3. A root has the directory etc, one of usr and bin, and one of the programs
//     that an instance is started with (sbin/init and what stands for it).
//  4. Roots in partitions whose GPT type is the root partition of this
//     architecture (Discoverable Partitions Specification) come before the
//     others; those of another architecture do not count. Of the subvolumes of one file system, those at the top that
//     distributions install to (@, @rootfs, root) come before the others, which
//     are their snapshots.
//  5. What is left must be one. Several are refused, and so is none: the error
//     names all that was found.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/partition"
	"github.com/gantry-project/gantry/engine/disk/qcow2"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The formats, in Glance's words.
const (
	Raw   = "raw"
	QCOW2 = "qcow2"
)

// Options of Open and Convert.
type Options struct {
	// Format is the declared one; empty means that none was declared.
	Format string
	// Arch of the host, in Go's words: whose root partitions count.
	Arch string
	// Limits of what Convert writes.
	Limits filesystem.Limits
}

// Disk is a disk image whose root file system was found.
type Disk struct {
	// Format of the file: Raw or QCOW2.
	Format string
	// Size of the disk in bytes.
	Size int64
	// Table is what the disk is divided by.
	Table partition.Kind
	// Where says in words where the root is, for logs: "partition 2", "the whole
	// disk", "subvolume @ of partition 1".
	Where string
	// Root is the root file system. It reads from the image as long as it is used.
	Root filesystem.FileSystem

	table *partition.Table
	// part is where the root is: the whole disk has the number 0.
	part partition.Partition
}

// Open finds the root file system of the image in r, which is size bytes long
// and must stay readable and unchanged while the Disk is used. Nothing but r is
// read.
//
// errdefs.ErrInvalid: the image is not of the declared format, refers to another
// file, or it is not clear which file system is the root. errdefs.ErrUnsupported: the
// root is on, or may be on, something that is not read here.
// errdefs.ErrCorrupt: the image contradicts its formats. All of these have a
// text for tenants. errdefs.ErrAborted when ctx ends first.
func Open(ctx context.Context, r io.ReaderAt, size int64, opts Options) (*Disk, error) {
	d := &Disk{Format: Raw, Size: size}
	magic := make([]byte, len(qcow2.Magic))
	if n, err := r.ReadAt(magic, 0); n < len(magic) && err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	if string(magic) == qcow2.Magic {
		d.Format = QCOW2
	}
	// QEMU would guess the format of an image that is declared to be raw, and a
	// tenant could make it guess one that refers to the host's files.
	if opts.Format != "" && opts.Format != d.Format {
		return nil, refuse(errdefs.ErrInvalid, "the image is declared to have the disk_format %s, but its content is %s", opts.Format, d.Format)
	}
	if d.Format == QCOW2 {
		img, err := qcow2.Open(r, size)
		if err != nil {
			return nil, fmt.Errorf("open disk: %w", err)
		}
		r, d.Size = img, img.Size()
	}
	table, err := partition.Read(r, d.Size)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	d.Table = table.Kind
	root, err := find(ctx, r, d.Size, table, opts.Arch)
	if err != nil {
		return nil, err
	}
	d.Root, d.Where, d.table, d.part = root.fs, root.where, table, root.part
	return d, nil
}

// refuse makes an error whose text a tenant may read.
func refuse(class error, format string, args ...any) error {
	return errdefs.WithPublic(fmt.Errorf("open disk: %w", class), fmt.Sprintf(format, args...))
}
