package compute

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/notification"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// snapshotInstance makes an image of the instance. The image record exists;
// it is removed when it cannot be filled.
func (m *Manager) snapshotInstance(ctx context.Context, o *op) (any, error) {
	var imageID string
	if err := o.arg("image_id", &imageID); err != nil {
		return nil, err
	}
	_, err := m.takeImage(ctx, o, imageID, transition{expect: []string{taskSnapshotPending}, task: taskSnapshot})
	return nil, err
}

// takeImage goes from t's expected task through its own and image_uploading to
// none. It reports false when the user has deleted the image meanwhile, which
// is nothing to complain about.
func (m *Manager) takeImage(ctx context.Context, o *op, imageID string, t transition) (bool, error) {
	free, err := m.uploads.take(ctx)
	if err != nil {
		return false, err
	}
	defer free()
	work, end, ok := m.active.begin(ctx, o.uuid(), kindSnapshot)
	if !ok {
		return false, fmt.Errorf("snapshot %s: another one is under way: %w", o.uuid(), errdefs.ErrConflict)
	}
	defer end()
	of := notification.More{SnapshotImage: imageID}
	m.notifyWith(ctx, o.rc, o.inst, messaging.PriorityInfo, "snapshot.start", nil, of)
	err = because(work, m.snapshot(work, o, imageID, t))
	switch {
	case err == nil:
		m.notifyWith(ctx, o.rc, o.inst, messaging.PriorityInfo, "snapshot.end", nil, of)
		return true, nil
	case errors.Is(err, errImageGone):
		o.log.Info().Err(err).Msg("image was deleted during its upload")
		return false, m.revertTask(context.WithoutCancel(ctx), o)
	}
	return false, errors.Join(err, m.discardImage(ctx, o, imageID))
}

// errImageGone says that the image record is not there any more.
var errImageGone = errors.New("the image is gone")

// snapshot leaves out Nova's image_pending_upload before image_uploading: it
// tells nothing that the others do not.
func (m *Manager) snapshot(ctx context.Context, o *op, imageID string, t transition) error {
	img, err := m.capture(ctx, o, t)
	if err != nil {
		return err
	}
	err = m.save(ctx, o.rc, o.inst, map[string]any{"task_state": taskImageUploading}, Expect{TaskState: []string{t.task}})
	if err == nil {
		err = m.upload(ctx, o, imageID, img)
	}
	err = errors.Join(err, img.Content.Close())
	if err != nil {
		return err
	}
	return m.save(ctx, o.rc, o.inst, map[string]any{"task_state": nil}, Expect{TaskState: []string{taskImageUploading}})
}

// capture opens the image under the lock of the instance; the upload then goes
// on beside whatever else happens to it.
func (m *Manager) capture(ctx context.Context, o *op, t transition) (driver.SnapshotImage, error) {
	unlock, err := m.locks.Lock(ctx, o.uuid())
	if err != nil {
		return driver.SnapshotImage{}, err
	}
	defer unlock()
	state, err := m.power(ctx, o)
	if err != nil {
		return driver.SnapshotImage{}, err
	}
	begun := map[string]any{"task_state": t.task, "power_state": int(state)}
	if err := m.save(ctx, o.rc, o.inst, begun, Expect{TaskState: t.expect}); err != nil {
		return driver.SnapshotImage{}, err
	}
	return m.open(ctx, o)
}

// open opens an image of the instance, whose lock is held.
func (m *Manager) open(ctx context.Context, o *op) (driver.SnapshotImage, error) {
	s, ok := m.dep.Driver.(driver.Snapshotter)
	if !ok || m.dep.Images == nil {
		return driver.SnapshotImage{}, fmt.Errorf("snapshot %s: %w", o.uuid(), errdefs.ErrUnsupported)
	}
	img, err := s.Snapshot(ctx, credentials(o.rc), driver.InstanceUUID(o.uuid()))
	if err != nil {
		return driver.SnapshotImage{}, fmt.Errorf("snapshot %s: %w", o.uuid(), err)
	}
	return img, nil
}

// upload sets the formats, which must come before the data, and sends it.
func (m *Manager) upload(ctx context.Context, o *op, imageID string, img driver.SnapshotImage) error {
	cred := credentials(o.rc)
	properties := map[string]string{
		"image_location": "snapshot", "image_state": "available", "owner_id": o.inst.String("project_id"),
	}
	if v := o.inst.String("os_type"); v != "" {
		properties["os_type"] = v
	}
	maps.Copy(properties, img.Properties)
	err := m.dep.Images.SetFormats(ctx, cred, imageID, img.DiskFormat, img.ContainerFormat, properties)
	if err == nil {
		err = m.dep.Images.Upload(ctx, cred, imageID, img.Content)
	}
	if errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("upload image %s: %w: %w", imageID, errImageGone, err)
	}
	if err != nil {
		return fmt.Errorf("upload image %s: %w", imageID, err)
	}
	return nil
}

// discardImage removes an image that was not filled. One that became active
// stays: only what came after it has failed.
func (m *Manager) discardImage(ctx context.Context, o *op, imageID string) error {
	if m.dep.Images == nil || imageID == "" {
		return nil
	}
	ctx, cred := context.WithoutCancel(ctx), credentials(o.rc)
	active, err := m.dep.Images.Active(ctx, cred, imageID)
	if errors.Is(err, errdefs.ErrNotFound) || err == nil && active {
		return nil
	}
	if err := m.dep.Images.Delete(ctx, cred, imageID); err != nil {
		return fmt.Errorf("delete image %s: %w", imageID, err)
	}
	return nil
}
