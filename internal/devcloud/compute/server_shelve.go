package compute

import (
	"context"
	"net/http"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/logging"
)

// shelvedImage is the key of system_metadata that names the image of a shelved
// server; its host writes it.
const shelvedImage = "shelved_image_id"

// shelfVerbs take servers off their host and bring them back.
func (s *Service) shelfVerbs() []verb {
	clean := func(*schema.Dict) map[string]any {
		return map[string]any{"clean_shutdown": true, "accel_uuids": []string{}}
	}
	return []verb{
		{name: "shelve", needs: "shelve_instance", policy: "os-shelve:shelve", vm: []string{vmActive, vmStopped, vmPaused, vmSuspended}, run: s.shelve},
		s.told(verb{name: "shelveOffload", policy: "os-shelve:shelve_offload", admin: true, vm: []string{vmShelved}},
			"shelving_offloading", "shelveOffload", "shelve_offload_instance", clean),
		{
			name: "unshelve", needs: "unshelve_instance", policy: "os-shelve:unshelve", vm: []string{vmShelved, vmShelvedOffloaded},
			rules: unshelveSchema, run: s.unshelve,
		},
	}
}

func unshelveSchema(v rest.Version) schema.Schema {
	if !v.AtLeast(2, 77) {
		return schema.Open()
	}
	return schema.Object(schema.Req("unshelve", schema.Nullable(schema.Opt("availability_zone", schema.Name()...), schema.Opt("host", schema.Name()...))...))
}

func (s *Service) shelve(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
	_, err := s.image(ctx, r, i, imaging{
		verb: "shelve", task: "shelving", method: "shelve_instance", name: i.DisplayName() + "-shelved",
		args: map[string]any{"clean_shutdown": true, "accel_uuids": []string{}},
	})
	if err != nil {
		return nil, err
	}
	return empty(http.StatusAccepted)
}

// unshelve starts a server that has kept its place, or has the conductor find
// a host for one that has none.
func (s *Service) unshelve(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	if r.Version.AtLeast(2, 77) && d != nil && len(d.Keys) > 0 {
		return nil, badRequest("Unshelving to a zone or a host is not supported by this cloud.")
	}
	if i.VMState() == vmShelved {
		a := s.told(verb{name: "unshelve"}, "powering-on", "unshelve", "start_instance", nil)
		return a.run(ctx, r, i, d)
	}
	image, err := s.o.Images.Image(ctx, r.Caller, i.SystemMetadata()[shelvedImage])
	if isNotFound(err) {
		return nil, conflict("Instance %s cannot be unshelved: its image cannot be found.", i.UUID())
	}
	if err != nil {
		return nil, err
	}
	if i, err = s.begin(ctx, i, "unshelve", []string{""}, map[string]any{"task_state": "unshelving"}); err != nil {
		return nil, err
	}
	if err = s.record(ctx, r, i, "unshelve"); err == nil {
		err = s.o.Tasks.Unshelve(ctx, requestContext(r), i.UUID(), image.wire())
	}
	if err != nil {
		return nil, s.abandon(ctx, i, "unshelving", err)
	}
	return empty(http.StatusAccepted)
}

// dropShelf removes the image of a shelved server that is being deleted. One
// that stays is the tenant's to remove, who sees it.
func (s *Service) dropShelf(ctx context.Context, r *rest.Request, i objects.Instance) {
	id := i.SystemMetadata()[shelvedImage]
	if id == "" || i.VMState() != vmShelved && i.VMState() != vmShelvedOffloaded {
		return
	}
	if err := s.o.Images.DeleteImage(ctx, r.Caller, id); err != nil && !isNotFound(err) {
		s.o.Log.Warn().Err(err).Str(logging.Instance, i.UUID()).Str(logging.Image, id).Msg("image of a shelved server is not removed")
	}
}
