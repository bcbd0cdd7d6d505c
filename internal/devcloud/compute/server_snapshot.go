package compute

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// imageVerbs make images of servers.
func (s *Service) imageVerbs() []verb {
	states := []string{vmActive, vmStopped, vmPaused, vmSuspended}
	backup := schema.Object(schema.Req("name", schema.Name()...), schema.Req("backup_type", schema.String()...),
		schema.Req("rotation", schema.Natural()...), schema.Opt("metadata", schema.Metadata()...))
	return []verb{
		{
			name: "createImage", policy: "servers:create_image", vm: states, ignoresLock: true, run: s.createImage,
			rules: only("createImage", schema.Object(schema.Req("name", schema.Name()...), schema.Opt("metadata", schema.Metadata()...))...),
		},
		{
			name: "createBackup", policy: "os-create-backup", needs: "backup_instance", vm: states, ignoresLock: true,
			rules: only("createBackup", backup...),
		},
	}
}

// notInherited are properties of an image that its snapshots do not have.
func notInherited(name string) bool {
	return slices.Contains([]string{"cache_in_nova", "bittorrent", "img_signature_hash_method", "img_signature", "img_signature_key_type", "img_signature_certificate_uuid"}, name)
}

// snapshotImage is the record of a snapshot (nova/compute/utils.py,
// initialize_instance_snapshot_metadata).
func snapshotImage(i objects.Instance, user, name string, more map[string]string) Image {
	out := Image{Name: name, Properties: map[string]string{}}
	for k, v := range i.SystemMetadata() {
		k, of := strings.CutPrefix(k, "image_")
		if !of || notInherited(k) {
			continue
		}
		switch k {
		case "min_ram":
			out.MinRAM, _ = strconv.ParseInt(v, 10, 64) // we wrote it
		case "min_disk":
			out.MinDisk, _ = strconv.ParseInt(v, 10, 64)
		case "disk_format":
			out.DiskFormat = v
		case "container_format":
			out.ContainerFormat = v
		default:
			out.Properties[k] = v
		}
	}
	maps.Copy(out.Properties, map[string]string{"image_type": "snapshot", "instance_uuid": i.UUID(), "user_id": user, "owner_id": i.ProjectID()})
	for _, k := range []string{"owner_user_name", "owner_project_name"} {
		if v := i.SystemMetadata()[k]; v != "" {
			out.Properties[k] = v
		}
	}
	maps.Copy(out.Properties, more)
	return out
}

func (s *Service) createImage(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	metadata := d.Dict("metadata").Strings()
	if !r.Version.AtLeast(2, 39) {
		limits, err := s.limitsOf(ctx, scopes(r.Caller.ProjectID, "")...)
		if err != nil {
			return nil, err
		}
		if over(limits["metadata_items"], 0, len(metadata)) {
			return nil, forbidden("Image metadata limit exceeded")
		}
	}
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	i, err := s.begin(ctx, i, "createImage", []string{""}, map[string]any{"task_state": "image_snapshot_pending"})
	if err != nil {
		return nil, err
	}
	id, err := s.o.Images.CreateImage(ctx, r.Caller, snapshotImage(i, r.Caller.UserID, strings.TrimSpace(d.String("name")), metadata))
	if err == nil {
		err = s.tell(ctx, r, i, "createImage", "snapshot_instance", map[string]any{"image_id": id})
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", i.UUID(), s.abandon(ctx, i, "image_snapshot_pending", err))
	}
	if r.Version.AtLeast(2, 45) {
		return rest.Accepted(map[string]string{"image_id": id})
	}
	return &rest.Response{Status: http.StatusAccepted, Header: http.Header{"Location": {s.o.ImagesURL + "/images/" + id}}}, nil
}
