package compute

import (
	"context"
	"errors"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	gib         = 1 << 30
	imageActive = "active"
)

// imageOf finds the image of an order and holds it against the flavor.
func (s *Service) imageOf(ctx context.Context, r *rest.Request, id string, o *order) error {
	image, err := s.o.Images.Image(ctx, r.Caller, id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return badRequest("Can not find requested image")
	}
	if err != nil {
		return err
	}
	f := o.flavor
	switch {
	case image.Status != imageActive:
		return badRequest("Image %s is not active.", id)
	case image.MinRAM > int64(f.MemoryMB):
		return badRequest("Flavor's memory is too small for requested image.")
	case f.RootGB == 0 && !r.Caller.Admin():
		return forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
	case f.RootGB == 0:
	case image.Size > int64(f.RootGB)*gib:
		return badRequest("Flavor's disk is too small for requested image. Flavor disk is %d bytes, image is %d bytes.", int64(f.RootGB)*gib, image.Size)
	case image.MinDisk > int64(f.RootGB):
		return badRequest("Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is %d bytes, minimum size is %d bytes.",
			int64(f.RootGB)*gib, image.MinDisk*gib)
	}
	o.image = image
	return nil
}

// wire is the image as Glance's dictionary, the form in which it goes to compute
// hosts (nova/image/glance.py, _translate_from_glance).
func (i Image) wire() map[string]any {
	none := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	properties := map[string]any{}
	for k, v := range i.Properties {
		properties[k] = v
	}
	return map[string]any{
		"id": i.ID, "name": i.Name, "status": i.Status, "owner": i.Owner, "size": i.Size, "min_disk": i.MinDisk, "min_ram": i.MinRAM,
		"checksum": none(i.Checksum), "os_hash_algo": none(i.HashAlgo), "os_hash_value": none(i.HashValue), "os_hidden": false,
		"container_format": none(i.ContainerFormat), "disk_format": none(i.DiskFormat), "is_public": i.Public,
		"created_at": micros(i.CreatedAt), "updated_at": micros(i.UpdatedAt), "deleted_at": nil, "deleted": false, "properties": properties,
	}
}

// systemMetadata is what an instance remembers of its image
// (nova.utils.get_system_metadata_from_image).
func (i Image) systemMetadata(f *Flavor) map[string]string {
	out := map[string]string{}
	for k, v := range i.Properties {
		if len(v) <= 255 {
			out["image_"+k] = v
		}
	}
	out["image_min_ram"], out["image_min_disk"] = itoa(i.MinRAM), itoa(max(i.MinDisk, int64(f.RootGB)))
	out["image_container_format"], out["image_disk_format"] = i.ContainerFormat, i.DiskFormat
	out["image_base_image_ref"] = i.ID
	return out
}
