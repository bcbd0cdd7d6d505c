package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// ports implements compute.Ports: Neutron's ports, with Nova's rows kept in step.
type ports struct {
	neutron   *neutron.Client
	conductor *conductor.Client
	host      string
}

var _ compute.Ports = ports{}

// Allocate implements compute.Ports.
func (p ports) Allocate(ctx context.Context, rc messaging.RequestContext, req compute.AllocateRequest) (objects.NetworkInfo, error) {
	inst := objects.Instance{Object: req.Instance}
	if req.Rebind {
		known, err := inst.NetworkInfo()
		if err != nil {
			return nil, err
		}
		info, err := p.neutron.Rebind(ctx, neutron.RebindRequest{
			InfoRequest:      neutron.InfoRequest{InstanceUUID: inst.UUID(), Known: known, RequestID: requestID(rc)},
			AvailabilityZone: inst.String("availability_zone"), Host: p.host,
		})
		if err != nil {
			return nil, err
		}
		return info, p.conductor.SaveInfoCache(ctx, rc, inst.UUID(), info)
	}
	networks, err := neutron.ParseRequests(req.Networks)
	if err != nil {
		return nil, err
	}
	got, err := p.neutron.Allocate(ctx, neutron.AllocateRequest{
		InstanceUUID: inst.UUID(), ProjectID: inst.ProjectID(), AvailabilityZone: inst.String("availability_zone"),
		Hostname: inst.Hostname(), Host: p.host, Networks: networks, SecurityGroups: req.SecurityGroups,
		Admin: slices.Contains(rc.Roles(), "admin"), Auth: userAuth(rc),
	})
	if err != nil {
		return nil, err
	}
	if err := p.record(ctx, rc, req.Instance, got); err != nil {
		undo := context.WithoutCancel(ctx)
		return nil, errors.Join(err, p.Deallocate(undo, rc, req.Instance, got.Info))
	}
	return got.Info, nil
}

// record writes Nova's rows of new ports.
func (p ports) record(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, got *neutron.AllocateResult) error {
	uuid, tagged := inst.String("uuid"), false
	for _, port := range got.Ports {
		vif := objects.NewVirtualInterface(uuid, port.ID, port.MAC, port.Tag)
		if err := p.conductor.CreateVIF(ctx, rc, vif.Object); err != nil {
			return err
		}
		tagged = tagged || port.Tag != ""
	}
	if tagged {
		if err := p.describeDevices(ctx, rc, inst); err != nil {
			return err
		}
	}
	return p.conductor.SaveInfoCache(ctx, rc, uuid, got.Info)
}

// Deallocate implements compute.Ports.
func (p ports) Deallocate(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, known objects.NetworkInfo) error {
	uuid := inst.String("uuid")
	if err := p.neutron.Deallocate(ctx, neutron.DeallocateRequest{InstanceUUID: uuid, Known: known, RequestID: requestID(rc)}); err != nil {
		return err
	}
	// a row that is gone already is what was wanted
	err := errors.Join(p.conductor.DeleteVIFs(ctx, rc, uuid), p.conductor.SaveInfoCache(ctx, rc, uuid, objects.NetworkInfo{}))
	if messaging.IsRemote(err, "InstanceInfoCacheNotFound", "InstanceNotFound") {
		return nil
	}
	return err
}

// Refresh implements compute.Ports. What the row says now counts, not what came
// with a message: only it knows which ports that were attached meanwhile are
// the user's.
func (p ports) Refresh(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error) {
	known, err := p.Cached(ctx, rc, inst)
	if err != nil {
		return nil, err
	}
	uuid := inst.String("uuid")
	info, err := p.neutron.Info(ctx, neutron.InfoRequest{InstanceUUID: uuid, Known: known, RequestID: requestID(rc)})
	if err != nil {
		return nil, err
	}
	return info, p.conductor.SaveInfoCache(ctx, rc, uuid, info)
}

func requestID(rc messaging.RequestContext) string {
	if id := rc.GlobalRequestID(); id != "" {
		return id
	}
	return rc.RequestID()
}

func userAuth(rc messaging.RequestContext) openstack.UserAuth {
	return openstack.UserAuth{Token: rc.AuthToken(), RequestID: requestID(rc)}
}

func credentials(c driver.Credentials) openstack.UserAuth {
	return openstack.UserAuth{Token: c.UserToken, RequestID: c.RequestID}
}

// imageSource implements local.ImageSource.
type imageSource struct{ glance *glance.Client }

// OpenImage implements local.ImageSource.
func (s imageSource) OpenImage(ctx context.Context, cred driver.Credentials, img driver.Image) (io.ReadCloser, error) {
	size := img.SizeBytes
	if size <= 0 {
		size = -1 // the request did not say
	}
	return s.glance.Open(ctx, credentials(cred), glance.Image{
		ID: img.ID, Name: img.Name, Status: glance.StatusActive, DiskFormat: img.DiskFormat, ContainerFormat: img.ContainerFormat,
		SizeBytes: size, Checksum: img.Checksum, HashAlgo: img.HashAlgo, HashValue: img.HashValue,
	})
}

// StatImage implements local.ImageSource.
func (s imageSource) StatImage(ctx context.Context, cred driver.Credentials, id string) (driver.Image, error) {
	img, err := s.glance.Stat(ctx, credentials(cred), id)
	if err == nil && !img.Active() {
		err = fmt.Errorf("image %s is %s: %w", id, img.Status, errdefs.ErrNotFound)
	}
	if err != nil {
		return driver.Image{}, err
	}
	return driver.Image{
		ID: img.ID, Name: img.Name, DiskFormat: img.DiskFormat, ContainerFormat: img.ContainerFormat, SizeBytes: img.SizeBytes,
		Checksum: img.Checksum, HashAlgo: img.HashAlgo, HashValue: img.HashValue, MinDiskGB: img.MinDiskGB, MinRAMMB: img.MinRAMMB,
		Properties: img.Properties,
	}, nil
}

// imageStore implements compute.ImageStore.
type imageStore struct{ glance *glance.Client }

var _ compute.ImageStore = imageStore{}

// StatImage implements compute.ImageStore.
func (s imageStore) StatImage(ctx context.Context, cred driver.Credentials, id string) (driver.Image, error) {
	return imageSource(s).StatImage(ctx, cred, id)
}

// SetFormats implements compute.ImageStore.
func (s imageStore) SetFormats(ctx context.Context, cred driver.Credentials, id, disk, container string, properties map[string]string) error {
	return s.glance.Update(ctx, credentials(cred), id, glance.Patch{DiskFormat: disk, ContainerFormat: container, Properties: properties})
}

// Upload implements compute.ImageStore.
func (s imageStore) Upload(ctx context.Context, cred driver.Credentials, id string, content io.Reader) error {
	return s.glance.Upload(ctx, credentials(cred), id, content)
}

// Delete implements compute.ImageStore.
func (s imageStore) Delete(ctx context.Context, cred driver.Credentials, id string) error {
	err := s.glance.Delete(ctx, credentials(cred), id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// Backups implements compute.ImageStore.
func (s imageStore) Backups(ctx context.Context, cred driver.Credentials, instance, backupType string) ([]compute.Backup, error) {
	list, err := s.glance.List(ctx, credentials(cred), glance.Filter{Properties: map[string]string{
		"image_type": "backup", "backup_type": backupType, "instance_uuid": instance,
	}})
	out := make([]compute.Backup, len(list))
	for i, img := range list {
		out[i] = compute.Backup{ID: img.ID, Created: img.Created, Active: img.Active()}
	}
	return out, err
}

// Active implements compute.ImageStore.
func (s imageStore) Active(ctx context.Context, cred driver.Credentials, id string) (bool, error) {
	img, err := s.glance.Stat(ctx, credentials(cred), id)
	return img.Active(), err
}
