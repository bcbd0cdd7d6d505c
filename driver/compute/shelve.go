package compute

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// The keys of system_metadata that make an instance a shelved one.
const (
	shelvedAt    = "shelved_at" // ISO 8601 without a zone, UTC
	shelvedImage = "shelved_image_id"
	shelvedHost  = "shelved_host"
)

// shelveInstance stops the guest, makes an image of it and, with a
// ShelvedOffloadTime of 0, takes it off the host. When there is no image in
// the end the guest runs again and the image record is gone.
func (m *Manager) shelveInstance(ctx context.Context, o *op) (any, error) {
	var imageID string
	clean := true
	err := errors.Join(o.arg("image_id", &imageID), o.arg("clean_shutdown", &clean))
	if err == nil && (imageID == "" || m.dep.Images == nil) {
		err = notSupported("Shelving an instance without an image")
	}
	if err != nil {
		return nil, errors.Join(err, m.discardImage(ctx, o, imageID))
	}
	work, end, ok := m.active.begin(ctx, o.uuid(), kindSnapshot)
	if !ok {
		return nil, fmt.Errorf("shelve %s: a snapshot is under way: %w", o.uuid(), errdefs.ErrConflict)
	}
	defer end()
	if err := because(work, m.shelve(work, o, imageID, clean)); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, errors.Join(err, m.dep.Images.Delete(context.WithoutCancel(ctx), credentials(o.rc), imageID))
	}
	if m.opt.ShelvedOffloadTime != 0 {
		return nil, nil
	}
	return nil, because(work, m.offload(work, o, false))
}

// shelve goes shelving, shelving_image_uploading, and either none or
// shelving_offloading.
func (m *Manager) shelve(ctx context.Context, o *op, imageID string, clean bool) (err error) {
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "shelve.start", nil)
	free, err := m.uploads.take(ctx)
	if err != nil {
		return err
	}
	defer free()
	state, err := m.power(ctx, o)
	if err != nil {
		return err
	}
	// A paused guest hears nothing.
	if err := m.dep.Driver.PowerOff(ctx, driver.InstanceUUID(o.uuid()), m.patience(o.inst, clean && state == driver.PowerRunning)); err != nil {
		return fmt.Errorf("stop %s: %w", o.uuid(), err)
	}
	defer func() {
		if err != nil && state == driver.PowerRunning && ctx.Err() == nil && !gone(err) {
			err = errors.Join(err, m.powerOn(ctx, o))
		}
	}()
	img, err := m.open(ctx, o)
	if err != nil {
		return err
	}
	err = m.save(ctx, o.rc, o.inst, map[string]any{"task_state": taskShelvingUpload}, Expect{TaskState: []string{taskShelving}})
	if err == nil {
		err = m.upload(ctx, o, imageID, img)
	}
	if err = errors.Join(err, img.Content.Close()); err != nil {
		return err
	}
	meta := maps.Clone(o.inst.Strings("system_metadata"))
	if meta == nil {
		meta = map[string]string{}
	}
	meta[shelvedAt], meta[shelvedImage], meta[shelvedHost] = time.Now().UTC().Format("2006-01-02T15:04:05.000000"), imageID, m.opt.Host
	t := transition{expect: []string{taskShelvingUpload}, to: vmShelved}
	fields := map[string]any{"system_metadata": meta}
	if m.opt.ShelvedOffloadTime == 0 {
		fields["task_state"] = taskOffloading
	}
	if err := m.arrive(ctx, o, t, fields); err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "shelve.end", nil)
	return nil
}

// Offload takes a shelved instance without a task off the host, as Nova's
// periodic task does. One that is not such an instance any more is left alone.
func (m *Manager) Offload(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	o := m.own(rc, "shelve_offload_instance", inst)
	_, err := m.perform(ctx, wrapXREF|wrapLock, o, func(m *Manager, ctx context.Context, o *op) (any, error) {
		begun := map[string]any{"task_state": taskOffloading}
		if err := m.save(ctx, o.rc, o.inst, begun, Expect{VMState: []string{vmShelved}, TaskState: []string{noTask, taskOffloading}}); err != nil {
			return nil, err
		}
		return nil, m.offload(ctx, o, false)
	})
	return err
}

// offloadInstance makes sure that the row still is what the sender saw: what
// follows ends the guest.
func (m *Manager) offloadInstance(ctx context.Context, o *op) (any, error) {
	clean := true
	if err := o.arg("clean_shutdown", &clean); err != nil {
		return nil, err
	}
	tasks := []string{taskShelving, taskOffloading}
	if err := m.save(ctx, o.rc, o.inst, map[string]any{"task_state": taskOffloading}, Expect{TaskState: tasks}); err != nil {
		return nil, err
	}
	return nil, m.offload(ctx, o, clean)
}

// offload takes the guest off this host; its image and its ports stay. The
// allocation goes before the state says so: whoever waits for the state may
// want the room. Each step is idempotent.
func (m *Manager) offload(ctx context.Context, o *op, clean bool) error {
	id := driver.InstanceUUID(o.uuid())
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "shelve_offload.start", nil)
	state, _, err := m.real(ctx, o.uuid())
	if err != nil {
		return fmt.Errorf("state of %s: %w", o.uuid(), err)
	}
	if state == driver.PowerRunning || state == driver.PowerPaused {
		if err := m.dep.Driver.PowerOff(ctx, id, m.patience(o.inst, clean && state == driver.PowerRunning)); err != nil {
			return fmt.Errorf("stop %s: %w", o.uuid(), err)
		}
	}
	m.dropConsoles(string(id))
	if err := m.dep.Driver.Destroy(ctx, id); err != nil {
		return fmt.Errorf("destroy %s: %w", o.uuid(), err)
	}
	if err := m.dep.Tracker.Drop(ctx, o.rc, o.inst); err != nil {
		return fmt.Errorf("drop usage of %s: %w", o.uuid(), err)
	}
	fields := orphan(map[string]any{"vm_state": vmShelvedOffloaded, "task_state": nil, "power_state": int(driver.PowerShutdown)})
	if err := m.save(ctx, o.rc, o.inst, fields, Expect{TaskState: []string{taskOffloading}}); err != nil {
		return err
	}
	if m.dep.Scheduler != nil {
		m.dep.Scheduler.InstanceDeleted(ctx, o.rc, o.uuid())
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "shelve_offload.end", nil)
	return nil
}

// withoutShelf is the system metadata without what shelving puts there, and
// the image that it made; no image says that the instance is not shelved.
func withoutShelf(inst *objects.Object) (meta map[string]string, image string) {
	meta = maps.Clone(inst.Strings("system_metadata"))
	image = meta[shelvedImage]
	for _, k := range []string{shelvedAt, shelvedImage, shelvedHost} {
		delete(meta, k)
	}
	return meta, image
}

// dropShelfImage removes the image of an instance that is not shelved any
// more. One that stays costs room and nothing else.
func (m *Manager) dropShelfImage(ctx context.Context, o *op, image string) {
	if image == "" || m.dep.Images == nil {
		return
	}
	if err := m.dep.Images.Delete(ctx, credentials(o.rc), image); err != nil {
		o.log.Warn().Err(err).Str(logging.Image, image).Msg("image of the shelved instance not removed")
	}
}
