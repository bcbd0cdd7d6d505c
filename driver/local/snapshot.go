package local

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Snapshot opens an image of the instance's disk, in the form of
// Options.SnapshotFormat.
func (d *Driver) Snapshot(ctx context.Context, cred driver.Credentials, uuid driver.InstanceUUID) (driver.SnapshotImage, error) {
	out := driver.SnapshotImage{DiskFormat: "raw", ContainerFormat: "docker"}
	var commit engine.Committed
	var err error
	switch d.opts.SnapshotFormat {
	case SnapshotDelta:
		commit, err = d.opts.Engine.CommitDelta(ctx, container(uuid))
		out.Content = commit.Content
	case SnapshotTar:
		out.ContainerFormat = "bare"
		out.Content, err = d.opts.Engine.Export(ctx, container(uuid))
	case SnapshotRaw, SnapshotQCOW2:
		out, err = d.snapshotDisk(ctx, cred, uuid)
	case SnapshotFull, "":
		commit, err = d.opts.Engine.Commit(ctx, container(uuid))
		out.Content = commit.Content
	}
	if err != nil {
		return driver.SnapshotImage{}, fmt.Errorf("snapshot %s: %w", uuid, err)
	}
	return out, nil
}

// snapshotDisk makes a disk image of an instance of a disk image, which is
// fetched again, and an archive of all layers of another.
func (d *Driver) snapshotDisk(ctx context.Context, cred driver.Credentials, uuid driver.InstanceUUID) (driver.SnapshotImage, error) {
	img, isDisk, err := d.diskOf(ctx, cred, uuid)
	if err == nil && isDisk {
		out := driver.SnapshotImage{DiskFormat: string(d.opts.SnapshotFormat), ContainerFormat: "bare"}
		var commit engine.Committed
		if commit, err = d.commitDisk(ctx, cred, uuid, img); err == nil {
			out.Content = commit.Content
			return out, nil
		}
	}
	if err != nil && !errors.Is(err, engine.ErrNoDisk) {
		return driver.SnapshotImage{}, err
	}
	commit, err := d.opts.Engine.Commit(ctx, container(uuid))
	return driver.SnapshotImage{DiskFormat: "raw", ContainerFormat: "docker", Content: commit.Content}, err
}

// diskOf is the image of the instance, if it may be a disk image.
func (d *Driver) diskOf(ctx context.Context, cred driver.Credentials, uuid driver.InstanceUUID) (img driver.Image, isDisk bool, err error) {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return img, false, err
	}
	info, err := d.opts.Engine.Image(ctx, s.Image)
	if err != nil || !info.RootFS {
		return img, false, err
	}
	id, hash, _ := strings.Cut(s.Image, ":")
	if hash == "" {
		return img, false, nil // an operator's
	}
	img, err = d.opts.Images.StatImage(ctx, cred, id)
	if err == nil && imageRef(img) != s.Image {
		err = fmt.Errorf("image %s is %s now: %w", s.Image, imageRef(img), errdefs.ErrNotFound)
	}
	if errors.Is(err, errdefs.ErrNotFound) {
		err = errdefs.WithPublic(err, "a snapshot in the form of a disk image needs image "+id+", of which the instance was made and which is not there any more")
	}
	return img, true, err
}

func (d *Driver) commitDisk(ctx context.Context, cred driver.Credentials, uuid driver.InstanceUUID, img driver.Image) (engine.Committed, error) {
	body, err := d.opts.Images.OpenImage(ctx, cred, img)
	if err != nil {
		return engine.Committed{}, fmt.Errorf("open image %s: %w", img.ID, err)
	}
	commit, err := d.opts.Engine.CommitDisk(ctx, container(uuid), engine.CommitDiskRequest{
		Format: string(d.opts.SnapshotFormat), Original: body, OriginalFormat: img.DiskFormat,
	})
	cerr := body.Close()
	if err == nil && cerr != nil {
		err = errors.Join(cerr, commit.Content.Close())
	}
	return commit, err
}
