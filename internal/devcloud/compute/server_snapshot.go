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
			rules: only("createBackup", backup...), run: s.createBackup,
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
	if err := s.imageMetadata(ctx, r, metadata); err != nil {
		return nil, err
	}
	id, err := s.image(ctx, r, i, imaging{
		verb: "createImage", task: "image_snapshot_pending", method: "snapshot_instance", name: strings.TrimSpace(d.String("name")),
		more: metadata, args: map[string]any{},
	})
	if err != nil {
		return nil, err
	}
	return s.madeImage(r, id)
}

// imageMetadata holds properties for an image against the quota of them.
func (s *Service) imageMetadata(ctx context.Context, r *rest.Request, metadata map[string]string) error {
	if r.Version.AtLeast(2, 39) {
		return nil
	}
	limits, err := s.limitsOf(ctx, scopes(r.Caller.ProjectID, "")...)
	if err != nil {
		return err
	}
	if over(limits["metadata_items"], 0, len(metadata)) {
		return forbidden("Image metadata limit exceeded")
	}
	return nil
}

// madeImage names an image that a host is about to fill.
func (s *Service) madeImage(r *rest.Request, id string) (*rest.Response, error) {
	if r.Version.AtLeast(2, 45) {
		return rest.Accepted(map[string]string{"image_id": id})
	}
	return &rest.Response{Status: http.StatusAccepted, Header: http.Header{"Location": {s.o.ImagesURL + "/images/" + id}}}, nil
}

func (s *Service) createBackup(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	metadata := d.Dict("metadata").Strings()
	if err := s.imageMetadata(ctx, r, metadata); err != nil {
		return nil, err
	}
	keep, kind, more := d.Int("rotation", 0), d.String("backup_type"), map[string]string{}
	maps.Copy(more, metadata)
	more["image_type"], more["backup_type"] = "backup", kind
	id, err := s.image(ctx, r, i, imaging{
		verb: "createBackup", task: "image_backup", method: "backup_instance", name: strings.TrimSpace(d.String("name")), more: more,
		args: map[string]any{"backup_type": kind, "rotation": keep},
	})
	switch {
	case err != nil:
		return nil, err
	case keep == 0:
		return empty(http.StatusAccepted)
	}
	return s.madeImage(r, id)
}

// imaging is a verb for which a host fills an image.
type imaging struct {
	verb, task, method, name string
	more                     map[string]string
	args                     map[string]any
}

// image makes the record of an image and tells the server's host to fill it.
func (s *Service) image(ctx context.Context, r *rest.Request, i objects.Instance, m imaging) (id string, err error) {
	if i.Host() == "" {
		return "", conflict("Instance %s is not ready", i.UUID())
	}
	i, err = s.begin(ctx, i, m.verb, []string{""}, map[string]any{"task_state": m.task})
	if err != nil {
		return "", err
	}
	id, err = s.o.Images.CreateImage(ctx, r.Caller, snapshotImage(i, r.Caller.UserID, m.name, m.more))
	if err == nil {
		m.args["image_id"] = id
		err = s.tell(ctx, r, i, m.verb, m.method, m.args)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", m.verb, i.UUID(), s.abandon(ctx, i, m.task, err))
	}
	return id, nil
}
