package compute

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/logging"
)

// backupInstance makes an image of the instance and removes the oldest
// backups of the same type until as many are left as rotation says. The
// properties by which backups are found have been set by the API.
func (m *Manager) backupInstance(ctx context.Context, o *op) (any, error) {
	var imageID, kind string
	rotation := -1
	for name, v := range map[string]any{"image_id": &imageID, "backup_type": &kind, "rotation": &rotation} {
		if err := o.arg(name, v); err != nil {
			return nil, err
		}
	}
	made, err := m.takeImage(ctx, o, imageID, transition{expect: []string{taskImageBackup}, task: taskImageBackup})
	if err != nil || !made {
		return nil, err
	}
	if rotation < 0 {
		return nil, messaging.NovaError("RotationRequiredForBackup", 400, "Rotation param is required for backup image_type")
	}
	return nil, m.rotate(ctx, o, imageID, kind, rotation)
}

// rotate removes all backups but the newest, which is the one just made. One
// that cannot be removed does not keep the others.
func (m *Manager) rotate(ctx context.Context, o *op, made, kind string, keep int) error {
	cred := credentials(o.rc)
	list, err := m.dep.Images.Backups(ctx, cred, o.uuid(), kind)
	if err != nil {
		return fmt.Errorf("backups of %s: %w", o.uuid(), err)
	}
	ids := newest(list, made)
	for _, id := range ids[min(keep, len(ids)):] {
		if err := m.dep.Images.Delete(ctx, cred, id); err != nil {
			o.log.Warn().Err(err).Str(logging.Image, id).Msg("old backup not removed")
		}
	}
	return nil
}

// newest orders what a rotation counts, the newest first. The image service
// knows whole seconds only: the one just made comes before others of its second.
// The instance has no task any more, so the next backup may have a record by
// now, which is not counted before it is complete; an incomplete one from before
// was left by a backup that was cut off.
func newest(list []Backup, made string) []string {
	var ids []string
	var since time.Time
	if i := slices.IndexFunc(list, func(b Backup) bool { return b.ID == made }); i >= 0 {
		ids, since = []string{made}, list[i].Created
	}
	for _, b := range list {
		if b.ID != made && (b.Active || b.Created.Before(since)) {
			ids = append(ids, b.ID)
		}
	}
	return ids
}
